"""Names and layout of the reference implementation, both ways, so that its weights fit.

The reference keeps one table per modality and one matrix per projection, and writes tied tensors
once for each name; here tables and projections are fused, and tied tensors are one.
"""

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from fourmill.manifests.errors import ConfigError
from fourmill.manifests.modalities import Masking
from fourmill.train.blocks import GatedMLP
from fourmill.train.domains import Domains, reference_name
from fourmill.train.model import FourM

Names = dict[str, Tensor]

_OF_A_MODALITY = re.compile(r"(encoder|decoder)_embeddings\.([^.]+)\.(.+)")


def to_reference(model: FourM, values: Mapping[str, Tensor] | None = None) -> Names:
    """Tensors under the reference's names, as views where that is possible.

    Args:
        values: by the model's own names: its parameters (the default), or their gradients; those
            that are missing are left out.
    """
    given = dict(model.named_parameters()) if values is None else values
    named: Names = {}
    for name, value in given.items():
        named.update(_views(model, name, value))
    return named


def reference_state(model: FourM, values: Mapping[str, Tensor] | None = None) -> Names:
    """All that a checkpoint of the reference holds: parameters, positions, and zero norm biases.

    Args:
        values: as in `to_reference`.
    """
    state = fixed_tensors(model) | to_reference(model, values)
    # copies: files cannot hold views of one another
    return {
        name: value.detach().clone(memory_format=torch.contiguous_format)
        for name, value in sorted(state.items())
    }


def fixed_tensors(model: FourM) -> Names:
    """What a checkpoint of the reference holds though no training changes it."""
    domains = model.domains
    fixed: Names = {}
    for side, names, table in (
        ("encoder", domains.inputs, model.input_positions),
        ("decoder", domains.targets, model.target_positions),
    ):
        for name in names:
            start, stop = table.ranges[name]
            if name not in table.learned:
                fixed[_embedding(side, name, "pos_emb")] = table.fixed[None, start:stop]
    if not model.shape.bias:
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.LayerNorm):
                # whole, where the weight may be spread over processes
                fixed[f"{name}.bias"] = torch.zeros(module.weight.shape)
    return fixed


def parameter_counts(model: FourM) -> tuple[int, int]:
    """Numbers that are trained, each once and without padding; and those that are of no modality.

    The second is the size that 4M's models go by.
    """
    views = to_reference(model).items()
    blocks = sum(view.numel() for name, view in views if embedding_parts(name) is None)
    of_modalities = tuple(_SPLITTERS)
    others = [each for name, each in model.named_parameters() if name.startswith(of_modalities)]
    return blocks + sum(each.numel() for each in others), blocks


def load_reference(model: FourM, state: Mapping[str, Tensor], where: str = "checkpoint") -> None:
    """Set the model's parameters from a state with the reference's names.

    Positions and zero biases that the architecture fixes need not be there.

    Raises:
        ConfigError: a tensor is missing, unknown or of another shape, tied ones differ, or what the
            architecture fixes has other values; nothing has been changed then.
    """
    views, fixed = to_reference(model), fixed_tensors(model)
    missing = sorted(views.keys() - state.keys())
    unknown = sorted(state.keys() - views.keys() - fixed.keys())
    if missing or unknown:
        raise ConfigError(
            f"{where}: not the weights of this model: {len(missing)} tensors are missing"
            f"{_first(missing)}, {len(unknown)} are unknown{_first(unknown)}"
        )
    for name, view in views.items():
        if view.shape != state[name].shape:
            raise ConfigError(
                f"{where}: {name} has shape {tuple(state[name].shape)}, this model expects "
                f"{tuple(view.shape)}"
            )
    refuse_untied(views, state, where)
    refuse_other_constants(fixed, state, where)
    with torch.no_grad():
        for name, view in views.items():
            view.copy_(state[name])


def rename_modalities(state: Mapping[str, Tensor], names: Mapping[str, str]) -> Names:
    """The same tensors, of modalities that are called otherwise.

    Args:
        names: the new name by the old one; others stay.
    """
    return {
        _embedding(parts[0], names.get(parts[1], parts[1]), parts[2]) if parts else key: value
        for key, value in state.items()
        for parts in [embedding_parts(key)]
    }


def as_named_by(domains: Domains, state: Mapping[str, Tensor]) -> Names:
    """A state with the names of a model's modalities, where it has those of the reference."""
    found = {parts[1] for parts in map(embedding_parts, state) if parts}
    missing = [each for each in domains.modalities if each.name not in found]
    return rename_modalities(state, {reference_name(each): each.name for each in missing})


def embedding_parts(key: str) -> tuple[str, str, str] | None:
    """Side, modality and the rest of the name of a tensor that belongs to a modality."""
    found = _OF_A_MODALITY.fullmatch(key)
    return (found[1], found[2], found[3]) if found else None


def refuse_untied(views: Names, state: Mapping[str, Tensor], where: str) -> None:
    """Refuse a state in which tensors differ that are one in the model.

    Args:
        views: of the model, under the reference's names.

    Raises:
        ConfigError: two that differ.
    """
    seen: dict[tuple[int, torch.Size], str] = {}
    for name, view in views.items():
        twin = seen.setdefault((view.data_ptr(), view.shape), name)
        if twin != name and not torch.equal(state[name], state[twin]):
            raise ConfigError(f"{where}: {name} and {twin} differ, but this model ties them")


def refuse_other_constants(fixed: Names, state: Mapping[str, Tensor], where: str) -> None:
    """Refuse a state whose positions, or biases that are none, are not the architecture's.

    Args:
        fixed: of the model, from `fixed_tensors`.

    Raises:
        ConfigError: some differ by more than half precision explains.
    """
    for name, value in fixed.items():
        found = state.get(name)
        if found is None:
            continue
        if found.shape != value.shape or not torch.allclose(found.float(), value.cpu(), atol=1e-2):
            raise ConfigError(f"{where}: {name} has other values than this model, which fixes it")


def _first(names: list[str]) -> str:
    return f" ({names[0]}{', …' if len(names) > 1 else ''})" if names else ""


def _embedding(side: str, modality: str, what: str) -> str:
    return f"{side}_embeddings.{modality}.{what}"


def _views(model: FourM, name: str, value: Tensor) -> list[tuple[str, Tensor]]:
    for prefix, split in _SPLITTERS.items():
        if name.startswith(prefix):
            return split(model, name, value)
    module_name, _, leaf = name.rpartition(".")
    parent_name, _, layer = module_name.rpartition(".")
    parent = model.get_submodule(parent_name)
    if isinstance(parent, GatedMLP):
        return _split_gated(parent, parent_name, layer, leaf, value)
    return [(name, value)]


def _split_gated(
    mlp: GatedMLP, prefix: str, layer: str, leaf: str, value: Tensor
) -> list[tuple[str, Tensor]]:
    if layer == "fc2":
        return [(f"{prefix}.fc2.{leaf}", value[:, : mlp.hidden] if leaf == "weight" else value)]
    gate, up = (part[: mlp.hidden] for part in value.chunk(2))
    return [(f"{prefix}.fc1.{leaf}", gate), (f"{prefix}.fc3.{leaf}", up)]


def _split_inputs(model: FourM, name: str, value: Tensor) -> list[tuple[str, Tensor]]:
    ranges = model.inputs.tokens.ranges
    return [
        (_embedding("encoder", each, "token_emb.weight"), _rows(model, each, ranges, value))
        for each in ranges
    ]


def _split_targets(model: FourM, name: str, value: Tensor) -> list[tuple[str, Tensor]]:
    ranges = model.targets.ranges
    return [
        (_embedding("decoder", each, what), _rows(model, each, ranges, value))
        for each in ranges
        for what in ("token_emb.weight", "to_logits.weight")
    ]


def _rows(model: FourM, name: str, ranges: Mapping[str, tuple[int, int]], value: Tensor) -> Tensor:
    start = ranges[name][0]
    return value[start : start + model.domains.modality(name).vocab_size]


def _split_projection(model: FourM, name: str, value: Tensor) -> list[tuple[str, Tensor]]:
    modality, _, leaf = name.removeprefix("inputs.continuous.").partition(".proj.")
    is_pixels = model.domains.modality(modality).masking is Masking.PIXELS
    layer = "proj" if is_pixels else "emb_proj"
    return [(_embedding("encoder", modality, f"{layer}.{leaf}"), value)]


def _split_modalities(model: FourM, name: str, value: Tensor) -> list[tuple[str, Tensor]]:
    domains = model.domains
    return [
        (_embedding(side, each, "mod_emb"), value[row, domains.index(each)].view(1, 1, -1))
        for side, names, row in (("encoder", domains.inputs, 0), ("decoder", domains.targets, -1))
        for each in names
    ]


def _learned_positions(side: str) -> Callable[[FourM, str, Tensor], list[tuple[str, Tensor]]]:
    def split(model: FourM, name: str, value: Tensor) -> list[tuple[str, Tensor]]:
        return [(_embedding(side, name.rpartition(".learned.")[2], "pos_emb"), value[None])]

    return split


_SPLITTERS: dict[str, Callable[[FourM, str, Tensor], list[tuple[str, Tensor]]]] = {
    "inputs.tokens.": _split_inputs,
    "inputs.continuous.": _split_projection,
    "targets.": _split_targets,
    "modality_emb": _split_modalities,
    "input_positions.": _learned_positions("encoder"),
    "target_positions.": _learned_positions("decoder"),
}
