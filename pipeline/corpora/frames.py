"""Frames of rooms and outdoor scenes: composed, rendered, checked, captioned, by seed and index."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from fourmill.manifests.modalities import COARSE_CLASSES
from fourmill.pipeline.corpora import furniture, stamps
from fourmill.pipeline.corpora.cutouts import stand_cutout
from fourmill.pipeline.corpora.indoors import furnish
from fourmill.pipeline.corpora.outdoors import landscape
from fourmill.pipeline.corpora.renderer import Frame, renderer
from fourmill.pipeline.corpora.scenes import FAR, Scene
from fourmill.pipeline.corpora.wording import listing, with_article

SIZE = 256  # pixels of a side
VERSION = 1  # raised whenever the same seed gives other frames
_VEHICLE = COARSE_CLASSES.index("vehicle")
MIN_SHARE = 0.003  # of the picture that a caption's or a box's instance covers


@dataclass(frozen=True, eq=False)
class Rendering:
    """A frame with the words for it.

    Attributes:
        credits: name, creator and licence of each model and cut-out in it.
    """

    frame: Frame
    caption: str
    credits: tuple[str, ...]


def render_frame(seed: int, index: int, split: str = "train") -> Rendering:
    """Frame `index` of a split; the same arguments give the same frame.

    Raises:
        MissingPackageError: no furniture, or nothing to render with.
    """
    held_out = split == "val"
    for attempt in range(1000):
        rng = np.random.default_rng([VERSION, seed, index, int(held_out), attempt])
        made = _try_frame(rng, held_out)
        if made is not None:
            return made
    raise AssertionError(f"no frame in a thousand attempts: seed {seed}, index {index}")


@lru_cache(maxsize=2)
def _models(held_out: bool) -> tuple[furniture.Model, ...]:
    return tuple(each for each in furniture.catalogue() if each.is_held_out == held_out)


@lru_cache(maxsize=4)
def _stamps(held_out: bool, outside: bool) -> tuple[stamps.Stamp, ...]:
    return tuple(
        each for each in stamps.stamps()
        if each.is_held_out == held_out and (outside or each.klass != _VEHICLE)
    )  # fmt: skip


def _try_frame(rng: np.random.Generator, held_out: bool) -> Rendering | None:
    mode = rng.choice(["inside", "close", "outside"], p=[0.5, 0.15, 0.35])
    if mode == "outside":
        scene = landscape(rng, _models(held_out))
    else:
        scene = furnish(rng, _models(held_out), close=mode == "close")
    if scene is None:
        return None
    frame = renderer(SIZE, SIZE).render(scene)
    if not _is_worth_it(frame, near=0.2 if mode == "close" else 0.5):
        return None
    credits = {each.name: each.credit for each in scene.things if each.credit}
    shown = set(_visible(frame))
    for _ in range(int(rng.choice([0, 1, 2], p=[0.65, 0.25, 0.1]))):
        placed = stand_cutout(rng, frame, scene.camera.fov, _stamps(held_out, mode == "outside"))
        if placed is not None:
            frame, stamp = placed
            credits[stamp.spoken] = f"{stamp.spoken}: {stamps.CREATOR} ({stamps.LICENCE})"
            shown.add(stamp.spoken)
    return Rendering(
        frame, _caption(scene, frame), tuple(sorted(credits[each] for each in shown & set(credits)))
    )


def _visible(frame: Frame) -> list[str]:
    """Names of the instances that cover enough of the picture, the largest first."""
    counts = np.bincount(frame.instances.ravel(), minlength=len(frame.names) + 1)[1:]
    order = np.argsort(-counts, kind="stable")
    return [frame.names[i] for i in order if counts[i] >= MIN_SHARE * frame.instances.size]


def _caption(scene: Scene, frame: Frame) -> str:
    return f"{with_article(scene.kind)} with {listing(_visible(frame))}"


def _is_worth_it(frame: Frame, near: float) -> bool:
    """Not just a wall, not inside a cupboard, something with a name in it."""
    depth = frame.depth
    measured = depth[depth < FAR]
    if measured.size < 0.2 * depth.size or not _visible(frame):
        return False
    counts = np.bincount(frame.instances.ravel())
    return bool(
        np.median(measured) > near
        and (depth < near / 2).mean() < 0.05
        and np.log(measured).std() > 0.12
        and counts[0] < 0.97 * depth.size
        and counts[1:].max() < 0.7 * depth.size
    )
