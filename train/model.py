"""The 4M model (Mizrahi et al. 2023; Bachmann et al. 2024): an encoder-decoder over any modalities.

Functions and parameters are those of the reference implementation, laid out for speed: fused
tables and projections, and only what was selected is computed. `exchange.py` maps to and from the
reference's names.

Shapes: B batch, N inputs, M targets, D width.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fourmill.manifests.errors import ConfigError
from fourmill.manifests.modalities import Masking
from fourmill.train.blocks import BlockConfig, DecoderBlock, EncoderBlock, GatedMLP, norm
from fourmill.train.config import MaskingConfig
from fourmill.train.domains import Domains
from fourmill.train.embeddings import InputEmbedding, PositionTable, TokenTable
from fourmill.train.packing import Packing
from fourmill.train.selection import PADDING, Selection

_HIDDEN = -1e30  # finite in float32 and bfloat16, and large enough to swallow any score


@dataclass(frozen=True)
class ModelShape(BlockConfig):
    """Shape and variant of a model.

    Attributes:
        registers: tokens that the encoder works with and nobody reads (Darcet et al. 2024).
        share_modality_embeddings: the same for the encoder and the decoder.
        share_text_embeddings: one table for all text-like modalities, which have one vocabulary.
        separate_targets: targets attend to targets of their own modality only.
        causal_targets: targets attend to earlier ones only, in grids too.
    """

    encoder_depth: int = 12
    decoder_depth: int = 12
    registers: int = 0
    share_modality_embeddings: bool = True
    share_text_embeddings: bool = False
    separate_targets: bool = True
    causal_targets: bool = False


class FourM(nn.Module):
    """Encodes the selected inputs, and predicts the selected targets from them.

    Args:
        seed: of the initial weights.

    Raises:
        ConfigError: a width that heads or positions do not divide.
    """

    def __init__(self, domains: Domains, shape: ModelShape, seed: int = 0) -> None:
        super().__init__()
        if shape.dim % shape.heads or shape.dim % 4:
            raise ConfigError(
                f"model: dim {shape.dim} is not a multiple of {shape.heads} heads and of 4"
            )
        self.domains = domains
        self.shape = shape
        self.recompute = False  # activations of blocks in the backward pass, to save memory
        self.packed = False  # padding is left out of all that is computed row by row
        self.masking: MaskingConfig | None = None  # what it was trained with, where that is known
        dim, share = shape.dim, shape.share_text_embeddings
        self.inputs = InputEmbedding(domains, dim, share)
        self.targets = TokenTable(domains, domains.targets, dim, share)
        self.input_positions = PositionTable(domains, domains.inputs, dim, limited=False)
        self.target_positions = PositionTable(domains, domains.targets, dim, limited=True)
        sides = 1 if shape.share_modality_embeddings else 2
        self.modality_emb = nn.Parameter(torch.empty(sides, len(domains.modalities), dim))
        self.mask_token = nn.Parameter(torch.empty(1, 1, dim))
        self.register_tokens = (
            nn.Parameter(torch.empty(1, shape.registers, dim)) if shape.registers else None
        )
        self.encoder = nn.ModuleList(EncoderBlock(shape) for _ in range(shape.encoder_depth))
        self.encoder_norm = norm(shape)
        self.decoder_proj_context = nn.Linear(dim, dim)
        self.decoder = nn.ModuleList(DecoderBlock(shape) for _ in range(shape.decoder_depth))
        self.decoder_norm = norm(shape)
        is_grid = [each.masking is Masking.IMAGE for each in domains.modalities]
        self.is_grid: Tensor
        self.register_buffer("is_grid", torch.tensor([*is_grid, False]), persistent=False)
        initialise(self, seed)

    def forward(self, selection: Selection) -> Float[Tensor, "batch targets dim"]:
        """What the decoder says at each target; `logits` makes predictions of it."""
        context, context_bias = self.encode(selection)
        return self.decode(selection, context, context_bias)

    def encode(
        self, selection: Selection
    ) -> tuple[Float[Tensor, "batch keys dim"], Float[Tensor, "batch 1 1 keys"] | None]:
        """What the decoder attends to, with the bias that hides padding (`None`: there is none)."""
        modality = selection.input_modality
        is_padding = modality == PADDING
        emb = self.input_positions(modality, selection.input_position)
        emb = self._with_modality(emb, self.modality_emb[0], modality)
        content = self.inputs(
            modality, selection.input_token, selection.input_source, selection.continuous
        )
        x_BND = content + emb
        if self.register_tokens is not None:
            registers = self.register_tokens.expand(len(modality), -1, -1)
            x_BND = torch.cat([registers.to(x_BND.dtype), x_BND], dim=1)
            emb = nn.functional.pad(emb, (0, 0, self.shape.registers, 0))
            is_padding = nn.functional.pad(is_padding, (self.shape.registers, 0))
        bias = _hide(is_padding[:, None, None, :], x_BND)
        packing = Packing.of(~is_padding) if self.packed else None
        x, emb = (each if packing is None else packing.pack(each) for each in (x_BND, emb))
        for block in self.encoder:
            x = self._through(block, x, bias, packing)
        context = self.decoder_proj_context(self.encoder_norm(x)) + emb
        return (context if packing is None else packing.unpack(context)), bias

    def decode(
        self,
        selection: Selection,
        context_BND: Float[Tensor, "batch keys dim"],
        context_bias: Float[Tensor, "batch 1 1 keys"] | None,
    ) -> Float[Tensor, "batch targets dim"]:
        """The decoder's output at each target, given what `encode` returned."""
        modality = selection.target_modality
        is_padding = modality == PADDING
        y_BMD = self.embed_targets(modality, selection.target_position, selection.target_token)
        bias = _hide(~self._may_attend(modality)[:, None], y_BMD)
        packing = context_packing = None
        y, context = y_BMD, context_BND
        if self.packed and context_bias is not None:
            packing, context_packing = (
                Packing.of(~is_padding),
                Packing.of(context_bias[:, 0, 0] == 0),
            )
            y, context = packing.pack(y_BMD), context_packing.pack(context_BND)
        for block in self.decoder:
            y = self._through(block, y, context, bias, context_bias, packing, context_packing)
        result: Tensor = self.decoder_norm(y)
        return result if packing is None else packing.unpack(result)

    def embed_targets(
        self,
        modality: Int64[Tensor, "batch targets"],
        position: Int64[Tensor, "batch targets"],
        token: Int64[Tensor, "batch targets"],
    ) -> Float[Tensor, "batch targets dim"]:
        """What the decoder begins with: places and what it reads there, zero for padding."""
        is_grid = self.is_grid[modality][..., None]
        words = self.targets(modality, token)
        content = torch.where(is_grid, self.mask_token.to(words.dtype), words)
        content = content.masked_fill((modality == PADDING)[..., None], 0)
        emb = self.target_positions(modality, position)
        return content + self._with_modality(emb, self.modality_emb[-1], modality)

    def logits(self, name: str, y: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch vocab"]:
        """Scores of all ids of a modality, of rows of the decoder's output."""
        return nn.functional.linear(y, self.head(name))

    def head(self, name: str) -> Float[Tensor, "vocab dim"]:
        """The weight of the layer that predicts a modality."""
        return self.targets.heads()[name][: self.domains.modality(name).vocab_size]

    def _through(self, block: nn.Module, *values: Tensor | Packing | None) -> Tensor:
        result: Tensor
        if self.recompute and torch.is_grad_enabled():
            result = checkpoint(block, *values, use_reentrant=False, preserve_rng_state=False)
        else:
            result = block(*values)
        return result

    @staticmethod
    def _with_modality(emb: Tensor, table: Tensor, modality: Tensor) -> Tensor:
        """Embeddings of place and modality, zero for padding."""
        emb = emb + nn.functional.embedding(modality.clamp(min=0), table)
        return emb.masked_fill((modality == PADDING)[..., None], 0)

    def _may_attend(
        self, modality: Int64[Tensor, "batch targets"]
    ) -> Bool[Tensor, "batch targets targets"]:
        """From each target (rows) to which targets (columns)."""
        count = modality.shape[1]
        earlier = torch.ones(count, count, dtype=torch.bool, device=modality.device).tril()
        same = modality[:, :, None] == modality[:, None, :]
        if self.shape.causal_targets:
            return same & earlier if self.shape.separate_targets else earlier.expand_as(same)
        own_grid = same & self.is_grid[modality][:, :, None]
        return own_grid | (same & earlier if self.shape.separate_targets else earlier)


def _hide(hidden: Bool[Tensor, "..."], like: Tensor) -> Float[Tensor, "..."]:
    """An additive bias that hides; rows with everything hidden attend evenly, and stay finite."""
    bias = torch.zeros(hidden.shape, dtype=like.dtype, device=like.device)
    return bias.masked_fill(hidden, _HIDDEN)


def initialise(model: FourM, seed: int) -> None:
    """Initial weights, as the reference draws them: Xavier for layers, normal for embeddings."""
    generator = torch.Generator().manual_seed(seed)

    def xavier(weight: Tensor, parts: int = 1) -> None:
        for part in weight.chunk(parts):
            nn.init.xavier_uniform_(part, generator=generator)

    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear):
                fused = {"qkv": 3, "kv": 2, "gate_up": 2}
                xavier(module.weight, fused.get(name.rsplit(".", 1)[-1], 1))
                if module.bias is not None:
                    module.bias.zero_()
        for module in model.modules():
            if isinstance(module, GatedMLP):
                clear_padding(module)
        for embedding in (model.inputs.tokens.weight, model.modality_emb, model.mask_token):
            embedding.normal_(std=0.02, generator=generator)
        for table in (model.input_positions, model.target_positions):
            for learned in table.learned.values():
                learned.normal_(std=0.02, generator=generator)
        if model.register_tokens is not None:
            model.register_tokens.normal_(std=0.02, generator=generator)
        for head in model.targets.heads().values():
            xavier(head)


def clear_padding(mlp: GatedMLP) -> None:
    """Zeros where a gated MLP is padded."""
    with torch.no_grad():
        for part in mlp.gate_up.weight.chunk(2):
            part[mlp.hidden :] = 0
        mlp.fc2.weight[:, mlp.hidden :] = 0
