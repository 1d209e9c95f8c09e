"""Which modalities of a snapshot a run uses. Nothing here needs torch."""

import re
from collections.abc import Sequence

from fourmill.manifests import modalities as known
from fourmill.manifests.errors import ConfigError, UnknownNameError
from fourmill.manifests.modalities import Kind, Masking, Modality
from fourmill.manifests.snapshots import Snapshot
from fourmill.train.domains import Domains

_PIXELS = re.compile(r"rgb@(\d+)")


def domains_of(
    snapshot: Snapshot,
    inputs: Sequence[str] | None,
    targets: Sequence[str] | None,
    pixel_patch: int,
) -> Domains:
    """The modalities of a run, as the snapshot defines them.

    Args:
        inputs: names, `rgb@112` for pixels, `t5_caption` for vectors; by default all tokens, and
            pixels at the size of the token grids.
        targets: names; by default all tokens.

    Raises:
        UnknownNameError: the snapshot has no such modality.
        ConfigError: pixels without `rgb` and `crop_settings`, or of a size that is no multiple of
            the patch.
    """
    tokens = {
        name: entry.definition
        for name, entry in snapshot.modalities.items()
        if entry.definition.kind is Kind.TOKENS and entry.definition.masking is not None
    }
    names = list(tokens)
    if {"rgb", "crop_settings"} <= snapshot.modalities.keys():
        sizes = {each.input_size for each in tokens.values() if each.input_size}
        names += [f"rgb@{size}" for size in sorted(sizes)]
    chosen = list(inputs) if inputs is not None else names
    pixels = [_pixels(name, pixel_patch, snapshot) for name in chosen if _PIXELS.fullmatch(name)]
    vectors = {
        name: entry.definition
        for name, entry in snapshot.modalities.items()
        if entry.definition.masking is Masking.EMBEDDING
    }
    every = [*tokens.values(), *pixels, *(each for each in vectors.values() if each.name in chosen)]
    for name in (*chosen, *(targets or ())):
        if name not in {each.name for each in every}:
            raise UnknownNameError(
                "modality of this snapshot that a model can see", name, [*names, *vectors]
            )
    return Domains.of(every, chosen, list(targets) if targets is not None else list(tokens))


def refuse_other_definitions(domains: Domains, snapshot: Snapshot, root: str) -> None:
    """Refuse a dataset whose tokens do not mean what a run's do.

    Raises:
        UnknownNameError: it lacks a modality.
        ConfigError: it defines one otherwise.
    """
    for modality in domains.modalities:
        if modality.masking is Masking.PIXELS:
            _pixels(modality.name, modality.patch_size, snapshot)
            continue
        if modality.name not in snapshot.modalities:
            raise UnknownNameError(f"modality in {root}", modality.name, snapshot.modalities)
        ours, theirs = modality.record(), snapshot.modalities[modality.name].definition.record()
        differing = [
            f"{field} is {theirs.get(field)!r}, not {ours.get(field)!r}"
            for field in sorted(ours.keys() | theirs.keys())
            if ours.get(field) != theirs.get(field)
        ]
        if differing:
            raise ConfigError(
                f"{root}: {modality.name} is not that of the other datasets: "
                f"{'; '.join(differing)}: tokenize it again with the same tokenizer"
            )


def _pixels(name: str, patch: int, snapshot: Snapshot) -> Modality:
    for needed in ("rgb", "crop_settings"):
        if needed not in snapshot.modalities:
            raise ConfigError(
                f"{name} is cut from rgb by crop_settings; the snapshot lacks {needed}"
            )
    if name in known.modality_names() and known.modality(name).patch_size == patch:
        return known.modality(name)
    size = int(name.removeprefix("rgb@"))
    if size % patch:
        raise ConfigError(f"{name}: its size is not a multiple of pixel_patch {patch}")
    return Modality(
        name, Kind.IMAGE, "rgb", "jpg", Masking.PIXELS, 0, (size // patch) ** 2, size, patch,
        channels=3,
    )  # fmt: skip
