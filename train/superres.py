"""Super-resolution: large grids of tokens from small ones, by a model that was trained for it.

A second 4M that sees tokens of 224 pixels and predicts those of 448 (Mizrahi et al. 2023): what was
given at the small size is held, whatever of it there is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fourmill.manifests.errors import ConfigError, UnknownNameError
from fourmill.manifests.modalities import Kind, Masking, Modality
from fourmill.train.domains import Domains, meanings
from fourmill.train.sampler import Sampler
from fourmill.train.schedules import GenerationStep, preset


@dataclass(frozen=True)
class Resolutions:
    """The sizes of a super-resolution model, in pixels.

    Attributes:
        low: of the largest grids that are inputs and no targets.
        high: of the targets.
    """

    low: int
    high: int


def resolutions(domains: Domains) -> Resolutions:
    """Between which sizes a model goes.

    Raises:
        ConfigError: no target is larger than an input: it is no model for super-resolution.
    """
    targets = [domains.modality(name) for name in domains.targets]
    high = max((each.input_size for each in targets if _is_grid(each)), default=0)
    inputs = [domains.modality(name) for name in domains.inputs]
    sizes = [each.input_size for each in inputs if _is_grid(each) and each.input_size < high]
    if not sizes:
        raise ConfigError(
            f"this model is not for super-resolution: no target ({', '.join(domains.targets)}) is "
            f"larger than an input ({', '.join(domains.inputs)}); "
            "configs/small-super-resolution.yaml trains one that is"
        )
    return Resolutions(max(sizes), high)


def load_superres(
    where: str | Path, tokenizers: Path | None = None, device: str = "auto", dtype: str = "auto"
) -> Sampler:
    """A super-resolution model, with tokenizers of both sizes.

    Raises:
        ConfigError, MissingPackageError: see `Sampler.load`; a model of one size.
    """
    sampler = Sampler.load(where, tokenizers, device, dtype)
    resolutions(sampler.domains)
    return sampler


def large_target(domains: Domains, name: str) -> str:
    """The large grid of that name: `rgb` is `tok_rgb@448`.

    Raises:
        UnknownNameError: the model predicts none; those that it does are named.
    """
    found = _of_size(domains, domains.targets, resolutions(domains).high)
    return _named("target", name, found)


def small_input(domains: Domains, name: str) -> str:
    """The input of that name: of several sizes the small one, of pixels and tokens the tokens.

    Raises:
        UnknownNameError: the model sees none; those that it does are named.
    """
    if name in domains.inputs:
        return name
    found = _of_size(domains, domains.inputs, resolutions(domains).low)
    texts = {
        each: domains.modality(each) for each in domains.inputs
        if not domains.modality(each).input_size
    }  # fmt: skip
    return _named("input", name, {**found, **texts})


def small_inputs(domains: Domains) -> list[str]:
    """All inputs that are small grids of tokens."""
    found = _of_size(domains, domains.inputs, resolutions(domains).low)
    return [name for name, each in found.items() if each.masking is Masking.IMAGE]


def usual_plan(domains: Domains, targets: Sequence[str]) -> list[GenerationStep]:
    """As the reference generates: 8 steps that fill few positions, many, few, the surest first; at
    temperature 1 of the likeliest 0.8, with guidance 2; each target is seen by the next."""
    finer = preset("finer").grid
    return [replace(finer, target=large_target(domains, name)) for name in targets]


def _is_grid(modality: Modality) -> bool:
    """Whether it covers the picture; tokens of vectors are called a grid and are none."""
    is_image = modality.masking in (Masking.IMAGE, Masking.PIXELS)
    return is_image and not modality.learned_positions


def _of_size(domains: Domains, names: Sequence[str], size: int) -> dict[str, Modality]:
    found = {name: domains.modality(name) for name in names}
    return {
        name: each for name, each in found.items() if _is_grid(each) and each.input_size == size
    }


def _named(role: str, name: str, found: Mapping[str, Modality]) -> str:
    if name in found:
        return name
    meant = [each for each, modality in found.items() if name in meanings(modality)]
    if not meant:
        short = {min(meanings(each), key=len) for each in found.values()}
        raise UnknownNameError(f"{role} of this model", name, {*found, *short})
    # tokens before pixels: large tokens are learned from small ones above all
    return min(meant, key=lambda each: found[each].kind is not Kind.TOKENS)
