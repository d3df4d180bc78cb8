"""From class and mask logits of one frame to masks, instances and segments at frame size.

Pure functions over tensors on any device; what a shot must remember is a value handed in and returned. They
take `scores_qc`, (Q, C) from `softmax_scores`, and `logits_qhw`, the mask logits at any network resolution.
Frames of any size run in bounded memory: queries are upsampled a few at a time. Knows no model, clip or file.

| task | function |
|---|---|
| semantic | `semantic` |
| instance, VGD | `instances` |
| panoptic, and its ids over a shot | `panoptic`, `link` |
| referring, reasoning | `referring` |
| generalised referring | `generalised_referring` |
| grounded captions (GCG) | `phrases` |
| interactive | `interactive` |
| video object | `video_object` |

Read first: `geometry.py`, then `selection.py`.
"""

from x2roto.engine.postprocess.geometry import Geometry, resize_back, resized
from x2roto.engine.postprocess.linking import LinkMemory, link
from x2roto.engine.postprocess.masks import boxes_of, label_map, mask_iou
from x2roto.engine.postprocess.scores import condition_average, flat_scores, softmax_scores
from x2roto.engine.postprocess.segments import ColourIds, Panoptic, Segment, fuse, panoptic
from x2roto.engine.postprocess.selection import (
    Instances,
    ObjectMemory,
    Selected,
    anchor_of,
    generalised_referring,
    instance_map,
    instances,
    interactive,
    phrases,
    referring,
    semantic,
    video_object,
)

__all__ = [
    "ColourIds",
    "Geometry",
    "Instances",
    "LinkMemory",
    "ObjectMemory",
    "Panoptic",
    "Segment",
    "Selected",
    "anchor_of",
    "boxes_of",
    "condition_average",
    "flat_scores",
    "fuse",
    "generalised_referring",
    "instance_map",
    "instances",
    "interactive",
    "label_map",
    "link",
    "mask_iou",
    "panoptic",
    "phrases",
    "referring",
    "resize_back",
    "resized",
    "semantic",
    "softmax_scores",
    "video_object",
]
