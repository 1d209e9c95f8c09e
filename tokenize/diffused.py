"""Tokenizers that decode by diffusion: noise becomes an image, depth, …, given the codes."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fourmill.manifests.errors import ConfigError
from fourmill.manifests.modalities import Kind, Modality
from fourmill.tokenize.autoencoder import TokenEncoder
from fourmill.tokenize.diffusion import Sampling
from fourmill.tokenize.divae import DiVAE, DiVAEConfig
from fourmill.tokenize.vq import VQTokenizer

_SAMPLING = Sampling()
_KINDS = (Kind.IMAGE, Kind.DEPTH, Kind.NORMAL, Kind.EDGE, Kind.PLANE)


class DiffusionTokenizer(VQTokenizer):
    """Images, depth, normals, edges or planes ↔ `tok_<name>@<size>`; tokens as of a `VQTokenizer`.

    Many pictures fit the same tokens. Which of them `detokenize` gives is drawn from the tokens
    themselves (`seed_of`), so that it does not change between runs, workers or batches.

    Args:
        definition: of the modality that it encodes.
        size: side of a crop in pixels.
        patch: side of a token in pixels.
        name: what the tokens are called, `tok_<name>@<size>`; the modality's name by default.
        sampling: how noise becomes values; a mapping as in `spec.json`, too.
    """

    kind = "diffusion"
    what = "a diffusion tokenizer"
    network: DiVAE

    def __init__(
        self,
        definition: Modality,
        size: int,
        patch: int,
        network: TokenEncoder,
        name: str | None = None,
        sampling: Sampling | Mapping[str, Any] = _SAMPLING,
    ) -> None:
        if definition.kind not in _KINDS:
            raise ConfigError(
                f"{definition.name}: found {definition.kind.value}; diffusion decodes "
                f"{', '.join(_KINDS)}"
            )
        super().__init__(definition, size, patch, network, name)
        self.sampling = Sampling.model_validate(sampling)
        chosen = self.sampling.model_dump(mode="json")
        self.spec = replace(self.spec, config=self.spec.config | {"sampling": chosen})

    @staticmethod
    def make_network(config: Mapping[str, Any]) -> TokenEncoder:
        """A new network, of the configuration that `spec.json` holds."""
        return DiVAE(DiVAEConfig.model_validate(config))

    def sampled_by(self, sampling: Sampling) -> "DiffusionTokenizer":
        """The same tokenizer with another way to decode; its tokens are the same."""
        chosen = {"definition": self.definition, "network": self.network, "sampling": sampling}
        return type(self)(**(self.spec.config | chosen))

    @torch.inference_mode()
    def decode_with(
        self, ids: Int[Tensor, "B h w"], seeds: Sequence[int]
    ) -> Float[Tensor, "B C S S"]:
        """As `decode`, with seeds of one's own: other seeds give other pictures of the tokens.

        Raises:
            ConfigError: an id that is not in the code book, or seeds that are not one a sample.
            MissingPackageError: there is no `diffusers`.
        """
        self._refuse_other_ids(ids)
        return self.network.decode_tokens(ids.to(self.device), seeds, self.sampling).cpu()

    def _decoded(self, ids: Int[Tensor, "B h w"]) -> Float[Tensor, "B C S S"]:
        return self.decode_with(ids, [seed_of(each) for each in ids])


def seed_of(ids: Int[Tensor, "h w"]) -> int:
    """The seed of a sample's noise, below 2⁶³: the beginning of the BLAKE2b digest of its tokens.

    They are taken row by row as little-endian numbers of 32 bits.

    >>> seed_of(torch.zeros(2, 2, dtype=torch.int64))
    520810605562734633
    """
    data = ids.cpu().numpy().astype("<i4").tobytes()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little") >> 1
