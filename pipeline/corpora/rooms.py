"""Rendered rooms and outdoor scenes with exact depth, normals, classes, instances and boxes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fourmill.manifests.labels import Label
from fourmill.manifests.packages import record
from fourmill.pipeline.corpora import furniture, stamps
from fourmill.pipeline.corpora.encoding import boxes, jpeg
from fourmill.pipeline.corpora.frames import MIN_SHARE, VERSION, render_frame
from fourmill.pipeline.sources.base import Item, RawSample

VAL_SHARE = 0.1


@dataclass(frozen=True)
class RoomsSource:
    """`count` frames; a tenth is `val`, and shows only furniture and cut-outs that no `train` frame
    shows."""

    count: int = 200
    seed: int = 0
    name: str = "builtin:rooms"
    label_modalities: Sequence[str] = (
        "truth_depth", "truth_normal", "truth_semseg_coarse", "truth_instances", "truth_det",
    )  # fmt: skip

    @property
    def params(self) -> Mapping[str, Any]:
        """All that decides what the samples are."""
        packages = [record("apt", each) for each in (furniture.PACKAGE, stamps.PACKAGE)]
        return {
            "count": self.count,
            "seed": self.seed,
            "version": VERSION,
            "packages": {each.name: each.version for each in packages},
        }

    def listing(self) -> list[Item]:
        """One item a frame."""
        num_val = round(VAL_SHARE * self.count)
        splits = ["train"] * (self.count - num_val) + ["val"] * num_val
        return [
            Item(f"room-{index:06d}", split, where=(split, index))
            for index, split in enumerate(splits)
        ]

    def read(self, item: Item) -> RawSample:
        """The frame, rendered."""
        split, index = item.where
        made = render_frame(self.seed, index, split)
        frame = made.frame
        labels: dict[str, Label] = {
            "truth_depth": frame.depth,
            "truth_normal": frame.normal,
            "truth_semseg_coarse": frame.classes,
            "truth_instances": frame.instances,
            "truth_det": boxes(frame.instances, frame.names, MIN_SHARE),
        }
        source = {
            "file": item.name,
            "title": made.caption,
            "creator": "; ".join(made.credits),
            "licence": "CC-BY-3.0 and CC0-1.0 (models), GPL-2.0-only (cut-outs)",
            "dataset": self.name,
        }
        return RawSample(jpeg(frame.rgb), made.caption, labels, source)
