"""The trained encoder as a vision backbone, with the methods that timm's have.

Images are all that it needs; what else the model learned to read (tokens of depth, a caption) can
be given beside them. Shapes: B images, C channels, H and W pixels, P patches, D width.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64, UInt8
from timm.layers.drop import DropPath
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fourmill.manifests.errors import ConfigError
from fourmill.manifests.modalities import Masking, Modality
from fourmill.train.conditions import Conditions, select_inputs
from fourmill.train.domains import Domains
from fourmill.train.embeddings import IMAGENET_MEAN, IMAGENET_STD, ContinuousProjection
from fourmill.train.exchange import as_named_by, fixed_tensors, load_reference, to_reference
from fourmill.train.model import FourM, ModelShape
from fourmill.train.positions import grid_table
from fourmill.train.published import Published, Which, open_published

Images = UInt8[Tensor, "B 3 H W"] | Float[Tensor, "B 3 H W"]
"""Bytes 0..255, or floats that `data_config` has normalised."""

Tokens = Mapping[str, Int64[Tensor, "B length"]]
"""By token modality; -1 in grids, and 0 in sequences, is what is not known."""


class Backbone(nn.Module):
    """An encoder of 4M without its decoder, for images of any size that patches fill.

    Places of patches at other sizes than the model's own are between those that it learned with.

    Attributes:
        num_features: D; `embed_dim` too.
        num_prefix_tokens: registers, which come before the patches.
        patch_size: of the side, in pixels.
        input_size: of the side that the model was trained with.
        others: token modalities that it can read beside images.
    """

    def __init__(
        self, domains: Domains, shape: ModelShape, pixels: str, others: Sequence[str] = ()
    ) -> None:
        super().__init__()
        kept = tuple(each for each in domains.modalities if each.name in {pixels, *others})
        names = tuple(each.name for each in kept)
        encoder = FourM(Domains(kept, names, ()), _without_decoder(shape))
        definition = domains.modality(pixels)
        self.shape, self.pixels = encoder.shape, definition
        self.others = tuple(name for name in names if name != pixels)
        self.num_features = self.embed_dim = shape.dim
        self.num_prefix_tokens = shape.registers
        self.patch_size, self.input_size = definition.patch_size, definition.input_size
        self.grad_checkpointing = False
        self._domains = encoder.domains
        patch_embed = encoder.inputs.continuous[pixels]
        assert isinstance(patch_embed, ContinuousProjection)
        self.patch_embed = patch_embed
        self.blocks, self.norm = encoder.encoder, encoder.encoder_norm
        self.register_tokens = encoder.register_tokens
        self.modality_emb = encoder.modality_emb
        self.token_emb = encoder.inputs.tokens if self.others else None
        self.token_positions = encoder.input_positions if self.others else None

    @staticmethod
    def load(
        where: str | Path, others: Sequence[str] = (), size: int | None = None,
        weights: Which = "model", untrained: bool = False,
    ) -> "Backbone":  # fmt: skip
        """The encoder of a trained model, in float32 on the CPU.

        Args:
            where: as in `load_published`: a run, a checkpoint, a file, or a hub's id.
            others: token modalities to read beside images.
            size: of the pixels, where the model knows several (`rgb@224`, `rgb@448`).
            weights: `average` for the averages that a run with `ema` keeps.
            untrained: with the weights that a training would begin with: what to compare with.

        Raises:
            ConfigError: there is no such model, or it reads no pixels.
            UnknownNameError: another input that it does not know.
            MissingPackageError: an id that is not on this machine and cannot be fetched.
        """
        source = open_published(where, weights)
        pixels = _pixel_input(source.domains, size, str(where))
        for name in others:
            modality = source.domains.modality(name)
            if name not in source.domains.inputs or modality.masking is Masking.EMBEDDING:
                raise ConfigError(f"{where}: {name} is no token input of this model")
        backbone = Backbone(source.domains, source.shape, pixels.name, others)
        if not untrained:
            backbone.take(source)
        return backbone

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """All that it can read."""
        return self._domains.modalities

    @property
    def data_config(self) -> dict[str, Any]:
        """What timm's `create_transform` is to be given."""
        side = self.input_size
        return {
            "input_size": (3, side, side), "mean": IMAGENET_MEAN, "std": IMAGENET_STD,
            "interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "center",
        }  # fmt: skip

    def transform(self, is_training: bool = False) -> Callable[[Any], Tensor]:
        """timm's transform of a PIL image to what the backbone takes."""
        from timm.data.transforms_factory import create_transform

        made: Callable[[Any], Tensor] = create_transform(
            **self.data_config, is_training=is_training
        )
        return made

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute activations of blocks again in the backward pass, to save memory."""
        self.grad_checkpointing = enable

    def set_drop_path(self, rate: float) -> None:
        """Drop what blocks add, for some samples: none in the first, `rate` of them in the last
        (Huang et al. 2016)."""
        last = max(1, len(self.blocks) - 1)
        for number, block in enumerate(self.blocks):
            share = rate * number / last
            block.drop = (DropPath(share) if share else nn.Identity()).train(self.training)

    def forward_features(
        self, images: Images, tokens: Tokens | None = None
    ) -> Float[Tensor, "B tokens D"]:
        """Registers, patches row by row, and then what else was given.

        Raises:
            ConfigError: images that patches do not fill, or tokens that it was not made for.
        """
        x, bias = self._embed(images, tokens or {})
        for block in self.blocks:
            x = self._through(block, x, bias)
        features: Tensor = self.norm(x)
        return features

    def forward_intermediates(
        self,
        images: Images,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        tokens: Tokens | None = None,
    ) -> tuple[Float[Tensor, "B tokens D"], list[Float[Tensor, "B D h w"]]]:
        """The features, and maps of the patches after some blocks.

        Args:
            indices: of blocks, from the last one where they are negative; a number takes so many of
                the last ones; by default all.
            norm: apply the last norm to the maps, too.
        """
        count = len(self.blocks)
        wanted = range(count)[-indices:] if isinstance(indices, int) else indices
        chosen = [range(count)[each] for each in (range(count) if wanted is None else wanted)]
        x, bias = self._embed(images, tokens or {})
        found = {}
        for number, block in enumerate(self.blocks):
            x = self._through(block, x, bias)
            if number in chosen:
                found[number] = self.as_map(self.norm(x) if norm else x, images)
        return self.norm(x), [found[each] for each in chosen]

    def forward_head(
        self, features: Float[Tensor, "B tokens D"], patches: int | None = None
    ) -> Float[Tensor, "B D"]:
        """Features pooled over patches, or over as many of the first ones as there are."""
        start = self.num_prefix_tokens
        stop = None if patches is None else start + patches
        return features[:, start:stop].mean(dim=1)

    def pooled_registers(self, features: Float[Tensor, "B tokens D"]) -> Float[Tensor, "B D"]:
        """The mean of the registers.

        Raises:
            ConfigError: the model has none.
        """
        if not self.num_prefix_tokens:
            raise ConfigError("this model has no registers: take pooling mean")
        return features[:, : self.num_prefix_tokens].mean(dim=1)

    def forward(self, images: Images, tokens: Tokens | None = None) -> Float[Tensor, "B D"]:
        """One vector an image: the mean over its patches."""
        rows, columns = self.grid_of(images)
        return self.forward_head(self.forward_features(images, tokens), rows * columns)

    def as_map(
        self, features: Float[Tensor, "B tokens D"], images: Images
    ) -> Float[Tensor, "B D h w"]:
        """The patches of some features, where they lie."""
        rows, columns = self.grid_of(images)
        start = self.num_prefix_tokens
        patches = features[:, start : start + rows * columns]
        return patches.transpose(1, 2).reshape(len(patches), -1, rows, columns)

    def grid_of(self, images: Images) -> tuple[int, int]:
        """Rows and columns of the patches.

        Raises:
            ConfigError: the patches do not fill the images.
        """
        height, width = images.shape[-2:]
        patch = self.patch_size
        if not height or not width or height % patch or width % patch:
            raise ConfigError(
                f"found images of {height} x {width} pixels, expected multiples of the patch, "
                f"{patch}: resize or pad them"
            )
        return height // patch, width // patch

    def take(self, source: Published) -> None:
        """Load the encoder's weights of a model.

        Raises:
            ConfigError: they are not those of its settings.
        """
        model = self._as_model()
        state = as_named_by(source.domains, source.tensors)
        known = to_reference(model).keys() | fixed_tensors(model).keys()
        load_reference(
            model, {name: each for name, each in state.items() if name in known}, str(source.file)
        )

    def _as_model(self) -> FourM:
        """A model around the very parameters of this one, which knows their published names."""
        model = FourM(self._domains, self.shape)
        model.inputs.continuous[self.pixels.name] = self.patch_embed
        if self.token_emb is not None and self.token_positions is not None:
            model.inputs.tokens, model.input_positions = self.token_emb, self.token_positions
        model.encoder, model.encoder_norm = self.blocks, self.norm
        model.register_tokens, model.modality_emb = self.register_tokens, self.modality_emb
        del model.decoder_proj_context, model.decoder_norm, model.mask_token
        return model

    def _embed(self, images: Images, tokens: Tokens) -> tuple[Tensor, Tensor | None]:
        """What the first block sees, and the bias that hides what is not known."""
        unknown = sorted(set(tokens) - set(self.others))
        if unknown:
            raise ConfigError(
                f"{unknown[0]}: this backbone reads {', '.join(('pixels', *self.others))}; name it "
                f"among `others` when it is loaded"
            )
        x = self._embed_pixels(images)
        bias = None
        if tokens:
            more, is_known = self._embed_tokens(tokens, len(images))
            known = nn.functional.pad(is_known, (x.shape[1], 0), value=True)
            bias = torch.zeros(known.shape, dtype=x.dtype, device=x.device)
            bias = bias.masked_fill(~known, -1e30)[:, None, None, :]
            x = torch.cat([x, more.to(x.dtype)], dim=1)
        return x, bias

    def _embed_pixels(self, images: Images) -> Float[Tensor, "B _ D"]:
        grid, patch = self.grid_of(images), self.patch_size
        cut = images.unfold(2, patch, patch).unfold(3, patch, patch)  # B 3 rows columns p p
        patches = cut.permute(0, 2, 3, 4, 5, 1).flatten(1, 2).flatten(2)
        x: Tensor = self.patch_embed.embed(patches)
        place = grid_table(grid, self.pixels.grid, self.num_features, x.device)
        x = x + (place + self._modality(self.pixels.name))
        if self.register_tokens is not None:
            registers = self.register_tokens.expand(len(x), -1, -1).to(x.dtype)
            x = torch.cat([registers, x], dim=1)
        return x

    def _embed_tokens(self, tokens: Tokens, batch: int) -> tuple[Float[Tensor, "B more D"], Tensor]:
        assert self.token_emb is not None
        assert self.token_positions is not None
        device = next(iter(tokens.values())).device
        numbers = torch.arange(batch, device=device)
        selection = select_inputs(self._domains, Conditions(numbers, dict(tokens)))
        modality, position = selection.input_modality, selection.input_position
        is_known = modality >= 0
        x = self.token_emb(modality, selection.input_token)
        x = x + self.token_positions(modality, position)
        x = x + nn.functional.embedding(modality.clamp(min=0), self.modality_emb[0])
        return x.masked_fill(~is_known[..., None], 0), is_known

    def _modality(self, name: str) -> Float[Tensor, " D"]:
        return self.modality_emb[0, self._domains.index(name)]

    def _through(self, block: nn.Module, x: Tensor, bias: Tensor | None) -> Tensor:
        if self.grad_checkpointing and torch.is_grad_enabled():
            result: Tensor = checkpoint(block, x, bias, use_reentrant=False)
        else:
            result = block(x, bias)
        return result


def _without_decoder(shape: ModelShape) -> ModelShape:
    return replace(shape, decoder_depth=0, share_modality_embeddings=True)


def _pixel_input(domains: Domains, size: int | None, where: str) -> Modality:
    found = [
        modality for modality in domains.modalities
        if modality.name in domains.inputs and modality.masking is Masking.PIXELS
    ]  # fmt: skip
    if not found:
        tokens = [name for name in domains.inputs if name.startswith("tok_rgb")]
        instead = f"; it sees pictures as {tokens[0]} alone" if tokens else ""
        raise ConfigError(
            f"{where}: this model reads no pixels{instead}: a backbone needs a model with an input "
            f"such as rgb@224"
        )
    if size is None:
        return min(found, key=lambda each: each.input_size)
    exact = [each for each in found if each.input_size == size]
    return exact[0] if exact else min(found, key=lambda each: abs(each.input_size - size))
