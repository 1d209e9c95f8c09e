"""Surface normals by Marigold: a diffusion model of pictures, taught to draw normals."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from fourmill.labelers.base import Labeler, LabelerSpec, Resources, Sample
from fourmill.labelers.batches import precision
from fourmill.labelers.required import check_packages
from fourmill.labelers.sizes import resized, stretched
from fourmill.manifests.errors import SampleError
from fourmill.manifests.hub import HubWeights
from fourmill.manifests.labels import Label


class MarigoldNormals(Labeler):
    """Unit vectors as `127.5 * (n + 1)` in the camera's frame: x right, y up, z to the viewer.

    Noise is drawn from the same seed for every image, so that an image has one answer.

    Attributes:
        steps: of the diffusion; more take longer and change little.
        side: pixels of the long side that it works at, those that it was trained on.
    """

    steps = 10
    side = 768

    spec = LabelerSpec(
        name="marigold-normals",
        version=1,
        reads=("rgb",),
        writes=("normal",),
        alternative=True,
        summary="surface normals in the camera's frame, by Marigold in ten steps",
        licence="Apache-2.0",
        citation="Ke et al. 2025, Marigold, arXiv:2505.09358",
        hub=HubWeights(
            "prs-eth/marigold-normals-v0-1",
            "f29bb3c6a11a92a15a3c9c53b9fcc84fa6518ddc",
            folders=("scheduler", "text_encoder", "tokenizer", "unet", "vae"),
        ),
        requires={"diffusers": "marigold"},
        resources=Resources(gpus=0.5, memory_gib=10.0, batch_size=4),
    )

    def load(self, device: str) -> None:
        check_packages(self.spec)
        import torch
        from diffusers import MarigoldNormalsPipeline

        assert self.spec.hub is not None
        pipeline: Any = self.spec.hub.build(
            MarigoldNormalsPipeline, dtype=precision(device), prediction_type="normals"
        )
        pipeline.set_progress_bar_config(disable=True)
        self._torch, self._device, self._pipeline = torch, device, pipeline.to(device)

    def label(self, batch: Sequence[Sample]) -> list[Mapping[str, Label] | SampleError]:
        # one by one: one image of this size fills a GPU
        return [{"normal": self._normals(sample["rgb"])} for sample in batch]

    def _normals(self, rgb: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
        image = self._torch.from_numpy(np.array(stretched(rgb))).permute(2, 0, 1)[None] / 255
        seeded = self._torch.Generator(self._device).manual_seed(0)
        found = self._pipeline(
            image,
            num_inference_steps=self.steps,
            processing_resolution=self.side,
            generator=seeded,
        )
        vectors = np.asarray(found.prediction[0], np.float32)
        return resized(np.rint(127.5 * (vectors + 1)).astype(np.uint8), *rgb.shape[:2])


LABELER = MarigoldNormals
