"""CLIP by open_clip: patch vectors, the vector of an image, the vector of a text."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float16, Float32, UInt8
from PIL import Image

from fourmill.labelers.base import LabelerSpec
from fourmill.labelers.batches import in_equal_batches, is_accelerator
from fourmill.labelers.patch_maps import feature_map, patch_grid
from fourmill.labelers.required import check_packages
from fourmill.labelers.sizes import resized, stretched
from fourmill.manifests.errors import MissingPackageError
from fourmill.manifests.hub import HubWeights

WEIGHTS = HubWeights(
    "timm/vit_base_patch16_clip_224.openai", "977e3dd0ec55ab8da155f2fbeb6b5f54948b6e3d"
)
"""OpenAI's ViT-B/16 in the form of open_clip."""

WEIGHTS_MB = 599
LICENCE = "MIT"
CITATION = "Radford et al. 2021, CLIP, arXiv:2103.00020; open_clip"

_SHORTEST = 14  # patches: 224 pixels
# ImageNet's rather than CLIP's own, for the map alone: 4M's tokenizer of CLIP features was trained
# on what the network says of images that are normalised so
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_STD = np.array([0.229, 0.224, 0.225], np.float32)


class OpenCLIP:
    """The two networks on one device: half precision on a GPU, single elsewhere.

    Raises:
        MissingPackageError: open_clip or the weights are not there.
    """

    def __init__(self, spec: LabelerSpec, device: str) -> None:
        check_packages(spec)
        import open_clip
        import torch

        assert spec.hub is not None
        self._torch: Any = torch
        self._device = device
        self._batch_size = spec.resources.batch_size if is_accelerator(device) else 1
        name = f"local-dir:{_checked(spec.hub)}"
        model, preprocess = open_clip.create_model_from_pretrained(
            name,
            device=device,
            precision="fp16" if is_accelerator(device) else "fp32",
            # OpenAI's weights mean this activation, whatever the file beside them says
            force_quick_gelu=True,
        )
        self._model: Any = model.eval()
        self._preprocess: Any = preprocess
        self._tokenizer: Any = open_clip.get_tokenizer(name)

    def maps(
        self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]
    ) -> list[Float16[np.ndarray, "512 _ _"]]:
        """Each patch's vector, projected as the class vector is; the whole image in its aspect."""
        return self._run([self._dense_pixels(each) for each in images], self._dense)

    def image_vectors(
        self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]
    ) -> list[Float32[np.ndarray, "512"]]:
        """Unit vectors of the central squares, by CLIP's own preprocessing."""
        pixels = [self._preprocess(Image.fromarray(stretched(each))) for each in images]
        return self._run(pixels, self._vectors(self._model.encode_image))

    def text_vectors(self, texts: Sequence[str]) -> list[Float32[np.ndarray, "512"]]:
        """Unit vectors of texts, of which the first 75 word pieces or so are read."""
        tokens = [self._tokenizer([each])[0] for each in texts]
        return self._run(tokens, self._vectors(self._model.encode_text))

    def _vectors(self, encode: Any) -> Callable[[Any], list[Any]]:
        return lambda batch: [*encode(batch, normalize=True).float().cpu().numpy()]

    def _run(self, inputs: list[Any], forward: Callable[[Any], list[Any]]) -> list[Any]:
        def batch(group: list[Any]) -> list[Any]:
            stacked = self._torch.stack(group).to(self._device)
            if stacked.is_floating_point():
                stacked = stacked.to(self._model.visual.conv1.weight.dtype)
            with self._torch.inference_mode():
                return forward(stacked)

        return in_equal_batches(inputs, lambda each: tuple(each.shape), self._batch_size, batch)

    def _dense_pixels(self, rgb: UInt8[np.ndarray, "H W 3"]) -> Any:
        patch = self._model.visual.patch_size[0]
        height, width = rgb.shape[:2]
        rows, columns = patch_grid(height, width, _SHORTEST)
        pixels = resized(rgb, rows * patch, columns * patch).astype(np.float32) / 255
        normalised = ((pixels - _MEAN) / _STD).transpose(2, 0, 1)
        return self._torch.from_numpy(np.ascontiguousarray(normalised))

    def _dense(self, pixels: Any) -> list[Float16[np.ndarray, "512 _ _"]]:
        visual = self._model.visual
        patches = visual.conv1(pixels)
        rows, columns = patches.shape[-2:]
        first = visual.class_embedding.to(pixels.dtype).expand(len(pixels), 1, -1)
        states = self._torch.cat([first, patches.flatten(2).transpose(1, 2)], dim=1)
        states = visual.ln_pre(states + self._positions(rows, columns).to(pixels.dtype))
        vectors = visual.ln_post(visual.transformer(states)[:, 1:]) @ visual.proj
        return [feature_map(each, rows, columns) for each in vectors]

    def _positions(self, rows: int, columns: int) -> Any:
        """Position vectors for a grid of another shape than the network's, `[1 + patches, C]`."""
        positions = self._model.visual.positional_embedding.float()
        height, width = self._model.visual.grid_size
        if (rows, columns) == (height, width):
            return positions
        grid = positions[1:].T.reshape(1, -1, height, width)
        larger = self._torch.nn.functional.interpolate(grid, (rows, columns), mode="bicubic")
        return self._torch.cat([positions[:1], larger[0].flatten(1).T])


def _checked(weights: HubWeights) -> str:
    folder = weights.folder()
    if not (folder / "open_clip_config.json").is_file():
        raise MissingPackageError(
            f"{folder} has no open_clip_config.json, which open_clip reads: remove it, and run "
            f"`hf download {weights.id}`"
        )
    return str(folder)
