"""The 80 things of COCO (Lin et al. 2014) under the ids of its annotations, which have gaps."""

from fourmill.manifests.class_names import COCO_THINGS

# the ids that COCO published without a single annotation
_UNUSED = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}

COCO_NAMES: dict[int, str] = dict(
    zip((each for each in range(1, 91) if each not in _UNUSED), COCO_THINGS, strict=True)
)
"""Name by id, 1 to 90; the names are also words of 4M's text vocabulary."""
