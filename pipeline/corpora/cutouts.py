"""Photographic cut-outs pasted into pictures, with what that does to the truth."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from fourmill.manifests.modalities import COARSE_CLASSES
from fourmill.pipeline.corpora.renderer import Frame
from fourmill.pipeline.corpora.stamps import Stamp

_HEIGHTS = {  # metres
    "animal": (0.12, 2.0), "food": (0.05, 0.4), "plant": (0.15, 2.0), "vehicle": (0.6, 2.5),
    "person": (1.5, 1.9), "object": (0.1, 1.2),
}  # fmt: skip
_STANDS_ON = [COARSE_CLASSES.index(each) for each in ("floor", "ground", "table")]


@dataclass(frozen=True, eq=False)
class Patch:
    """A cut-out at its place in a picture, cut to the picture's edges.

    Attributes:
        rows, columns: of the picture that it covers.
        alpha: 0..1.
    """

    rows: slice
    columns: slice
    rgb: UInt8[np.ndarray, "height width 3"]
    alpha: Float[np.ndarray, "height width"]

    def blend(self, picture: UInt8[np.ndarray, "rows columns 3"], share: np.ndarray) -> None:
        """Paint it over a picture where and as far as `share` says (0..1, of the patch's size)."""
        below = picture[self.rows, self.columns].astype(np.float32)
        mixed = below + (self.rgb - below) * share[..., None]
        picture[self.rows, self.columns] = np.round(mixed).astype(np.uint8)


def patch(
    cutout: UInt8[np.ndarray, "h w 4"],
    size: tuple[int, int],
    corner: tuple[int, int],
    picture_size: tuple[int, int],
    brightness: float = 1.0,
) -> Patch | None:
    """The cut-out scaled to `size` with its top left at `corner` (all as rows, columns), or `None`
    where nothing of it lies inside the picture."""
    weighted = cutout.astype(np.float32)
    weighted[..., :3] *= weighted[..., 3:] / 255  # else the colour behind alpha bleeds in
    large = size[0] > cutout.shape[0]
    small = cv2.resize(
        weighted, (size[1], size[0]), interpolation=cv2.INTER_LINEAR if large else cv2.INTER_AREA
    )
    top, left = max(0, -corner[0]), max(0, -corner[1])
    bottom, right = (min(size[i], picture_size[i] - corner[i]) for i in range(2))
    if bottom <= top or right <= left:
        return None
    small = small[top:bottom, left:right]
    alpha = small[..., 3] / 255
    rgb = small[..., :3] / np.maximum(alpha[..., None], 1e-3) * brightness
    return Patch(
        slice(corner[0] + top, corner[0] + bottom), slice(corner[1] + left, corner[1] + right),
        np.clip(rgb, 0, 255).astype(np.uint8), alpha,
    )  # fmt: skip


def stand_cutout(
    rng: np.random.Generator, frame: Frame, fov: float, stamps: Sequence[Stamp]
) -> tuple[Frame, Stamp] | None:
    """The frame with a cut-out that stands upright on its floor, ground or a table, behind what is
    nearer; `None` where none fits.

    Its depth is that of the point where it stands, its normals are unknown.
    """
    height, width = frame.depth.shape
    focal = height / 2 / np.tan(np.radians(fov) / 2)
    rows, columns = np.nonzero(np.isin(frame.classes, _STANDS_ON) & (frame.depth < 12))
    for _ in range(12 if len(rows) > 400 else 0):
        pick = int(rng.integers(len(rows)))
        depth = float(frame.depth[rows[pick], columns[pick]])
        stamp = stamps[int(rng.integers(len(stamps)))]
        low, high = _HEIGHTS[COARSE_CLASSES[stamp.klass]]
        metres = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        tall = round(metres * focal / depth)
        if not 0.1 * height < tall < 0.75 * height:
            continue
        pixels = stamp.pixels()
        if rng.uniform() < 0.5:
            pixels = pixels[:, ::-1]
        wide = max(1, round(tall * pixels.shape[1] / pixels.shape[0]))
        corner = (int(rows[pick]) - tall + 1, int(columns[pick]) - wide // 2)
        brightness = float(np.clip(frame.rgb.mean() / 130, 0.5, 1.1))
        found = patch(pixels, (tall, wide), corner, (height, width), brightness)
        if found is not None and wide < width:
            return _with_cutout(frame, found, depth, stamp), stamp
    return None


def _with_cutout(frame: Frame, piece: Patch, depth: float, stamp: Stamp) -> Frame:
    window = (piece.rows, piece.columns)
    alpha = np.where(frame.depth[window] >= depth - 0.02, piece.alpha, 0.0)
    solid = alpha > 0.5
    rgb = frame.rgb.copy()
    piece.blend(rgb, alpha)
    depths, normals, classes, instances = (
        each.copy() for each in (frame.depth, frame.normal, frame.classes, frame.instances)
    )
    depths[window][solid] = depth
    normals[window][solid] = 128
    classes[window][solid] = stamp.klass
    instances[window][solid] = len(frame.names) + 1
    return replace(
        frame, rgb=rgb, depth=depths, normal=normals, classes=classes, instances=instances,
        names=(*frame.names, stamp.spoken),
    )  # fmt: skip
