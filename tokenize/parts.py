"""What a label holds several of, each with a tokenizer of its own: masks of instances, poses.

4M writes the tokens of these parts among the words of the whole label (`coded.py`).
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray

from fourmill.manifests.labels import Label
from fourmill.manifests.run_lengths import RunLengths, read_masks
from fourmill.tokenize.masks import box_of
from fourmill.tokenize.poses import mirror_body, read_people

Part = Callable[[bool], Label]
"""Gives one part of a label; mirrored, as a flipped crop shows it, if that is true."""


def parts_of(name: str, label: Any) -> list[Part]:
    """The parts of a label, in its order; those that are empty or not known are left out.

    Args:
        name: of the part, one of `PARTS`: `sam_mask` of `sam_instance`, uint8 `[H, W]` of 0 and 255
            in the mask's own box; `body_pose` of `human_poses`, float32 `[207]`.
        label: of the whole, one that `check_label` has passed.

    Raises:
        SampleError: people that are not described as HMR 2.0 does.
    """
    return _READERS[name](label)


def _masks(label: Any) -> list[Part]:
    return [partial(_mask, each) for each in read_masks(label) if each.area]


def _mask(run_lengths: RunLengths, is_mirrored: bool) -> NDArray[np.uint8]:
    mask: Bool[np.ndarray, "H W"] = run_lengths.mask()
    left, top, right, bottom = box_of(mask)
    cut = mask[top:bottom, left:right]
    return 255 * (cut[:, ::-1] if is_mirrored else cut).astype(np.uint8)


def _bodies(label: Any) -> list[Part]:
    return [partial(_body, each.body) for each in read_people(label) if each.body is not None]


def _body(body: NDArray[np.float64], is_mirrored: bool) -> NDArray[np.float32]:
    return (mirror_body(body) if is_mirrored else body).astype(np.float32).ravel()


_READERS: Mapping[str, Callable[[Any], list[Part]]] = {"body_pose": _bodies, "sam_mask": _masks}
