"""Sizes of the network. Whatever a weight's shape tells is inferred from the weights (`from_state_dict`);
the rest, which no shape can tell, is stated here with the released checkpoint's values as defaults.

Source: wanghao9610/X2SAM@5b0b106 `x2sam/x2sam/configs/x2sam/s3_train/` and `model/segmentors/`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class MaskEncoderConfig:
    """SAM2.1 Hiera and its feature pyramid. Defaults: Hiera-L."""

    embed_dims: tuple[int, ...] = (144, 288, 576, 1152)
    blocks: tuple[int, ...] = (2, 6, 36, 4)
    heads: tuple[int, ...] = (2, 4, 8, 16)
    windows: tuple[int, ...] = (8, 4, 16, 8)
    global_blocks: tuple[int, ...] = (23, 33, 43)
    # Side of the window-independent background embedding.
    pos_embed_size: tuple[int, int] = (7, 7)
    query_stages: int = 3
    fpn_dim: int = 256
    fpn_top_down_levels: tuple[int, ...] = (2, 3)


@dataclass(frozen=True, slots=True)
class PixelDecoderConfig:
    """Deformable encoder over the three pyramid levels."""

    layers: int = 6
    heads: int = 8
    points: int = 4
    feedforward: int = 1024


@dataclass(frozen=True, slots=True)
class MemoryConfig:
    """Memory attention, memory encoder and the FIFO bank."""

    capacity: int = 5  # past frames kept ("num_maskmem"); at least 1
    layers: int = 4
    feedforward: int = 2048
    # Downsampling of the pixel-decoder features, coarse to fine, down to the memory's resolution; 0: this level
    # neither enters the memory nor reads it.
    feature_strides: tuple[int, ...] = (1, 2, 4)
    mask_stride: int = 4
    # Convolutions through which the per-pixel embedding sees what the finest level read; 0: it sees nothing, as
    # released.
    mask_layers: int = 0
    # Cells around each cell of the finest level in memory in which the newest map is searched for what was there, to
    # be added where it has moved to; 0: memory is only attended to, as released.
    carry: int = 0
    # Whether the first frame stays in memory for the whole shot, with a map of what looked like each cell anywhere in
    # it. Not as released.
    anchored: bool = False
    # Whether the region that asks for a single object enters the memory, for the whole shot. Not as released.
    prompts: bool = False
    # Cells along a side that self-attention reads as one on the scales finer than the coarsest; 1: each, as released.
    pooled: int = 1
    fuser_layers: int = 2
    fuser_feedforward: int = 1024
    # Guidance map g in [0, 1] enters the mask downsampler as scale * g + bias.
    guidance_scale: float = 20.0
    guidance_bias: float = -10.0


@dataclass(frozen=True, slots=True)
class MaskDecoderConfig:
    """Transformer decoder with 200 queries."""

    queries: int = 200
    layers: int = 9
    heads: int = 8
    feedforward: int = 2048
    # Layers in which the cells of the middle level read what is asked, beside the queries; 0: none, as released.
    reading: int = 0


@dataclass(frozen=True, slots=True)
class RegionConfig:
    """Region sampler: points drawn per region and how many are averaged into one token."""

    points: int = 256
    pool: int = 4


@dataclass(frozen=True, slots=True)
class FinderConfig:
    """What finds words in a picture before they are followed (`model/finder.py`). `dim` 0: nothing, as released."""

    dim: int = 0
    heads: int = 4
    layers: int = 2
    text_layers: int = 2
    feedforward: int = 192
    # Channels and residual blocks of the eyes at strides 4, 8, 16 and 32.
    widths: tuple[int, ...] = (48, 96, 160, 176)
    blocks: tuple[int, ...] = (1, 2, 2, 1)


@dataclass(frozen=True, slots=True)
class OutlinerConfig:
    """What draws the outlines of objects with the finder's eyes (`model/outliner.py`). `dim` 0: nothing, as released.
    `tokens`: width of what is compared. `side`: of the square that the eyes see of a window, 0 for the mask
    encoder's; outlines are drawn on a quarter of it. `alone`: after an object's first frame it draws without the
    network's masks, which then nobody asks for. `reach`: how far what is drawn may be from true edges, in longer
    sides of the object; a window of 64 cells shows about 36 of it."""

    dim: int = 0
    tokens: int = 64
    blocks: int = 3
    side: int = 0
    alone: bool = False
    reach: float = 0.12


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The whole network. `language`: the dictionary of a Hugging Face `Qwen3VLConfig`, {} for its defaults.

    `image_size`: side of the square the mask encoder sees. `dim`: width of everything after the encoder.
    `glimpse_pixels`: most pixels of a still, or of one of 16 frames, that the language model sees; 0: as released.
    `room`: side of the window in which a drawn object is followed, in sizes of the object; 0: the whole frame, as
    released. `palette`: weight of the colours of such an object and its surroundings, as the shot shows them, in its
    mask logits; 0: only the network's, as released.
    """

    name: str = "x2sam-4b"
    image_size: int = 1024
    dim: int = 256
    encoder: MaskEncoderConfig = field(default_factory=MaskEncoderConfig)
    pixel_decoder: PixelDecoderConfig = field(default_factory=PixelDecoderConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    decoder: MaskDecoderConfig = field(default_factory=MaskDecoderConfig)
    region: RegionConfig = field(default_factory=RegionConfig)
    finder: FinderConfig = field(default_factory=FinderConfig)
    outliner: OutlinerConfig = field(default_factory=OutlinerConfig)
    glimpse_pixels: int = 0
    room: float = 0.0
    palette: float = 0.0
    language: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready dictionary; `from_dict` gives the equal config back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Inverse of `to_dict`. Raises TypeError on an unknown key."""
        parts = {
            "encoder": MaskEncoderConfig,
            "pixel_decoder": PixelDecoderConfig,
            "memory": MemoryConfig,
            "decoder": MaskDecoderConfig,
            "region": RegionConfig,
            "finder": FinderConfig,
            "outliner": OutlinerConfig,
        }
        plain = {
            key: parts[key](**{k: tuple(v) if isinstance(v, list) else v for k, v in value.items()})
            if key in parts
            else value
            for key, value in values.items()
        }
        return cls(**plain)
