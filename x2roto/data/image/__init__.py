"""Readers of the image benchmarks, each in the layout its files are published in.

`IMAGE_LAYOUTS` is the table. A reader is a function that checks a folder and gives a list of requests; `classes` has
those that ask for all classes, `pictures` what they share, `scenes` the pictures of the miniatures. Which metric a
data set is scored by is not known here.
"""

from x2roto.data.image import ade20k, coco, grounded, reason, refer, regions
from x2roto.data.sample import Layout

IMAGE_LAYOUTS: dict[str, Layout] = {
    layout.name: layout for module in (coco, ade20k, refer, reason, grounded, regions) for layout in module.LAYOUTS
}
