"""How a modality is generated: in which order, in how many steps, how boldly, guided by what."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from pydantic import BeforeValidator

from fourmill.manifests.errors import ConfigError, UnknownNameError
from fourmill.manifests.modalities import Kind, Masking, Modality, modality, modality_names

Scheme = Literal["maskgit", "roar", "autoregressive"]

_FARTHEST = 100.0  # x of the end of a `OneOverX`, which begins at 1


@dataclass(frozen=True)
class OneOverX:
    """A temperature that falls fast at first, and then ever more slowly: as `1 / x ** power`.

    Attributes:
        least: what it comes down to when all is filled.
    """

    least: float
    power: float

    def __post_init__(self) -> None:
        if not (0 <= self.least < math.inf and 0 < self.power < math.inf):
            raise ConfigError(
                f"temperature onex:{self.least:g}:{self.power:g}: expected a least temperature of "
                f"0 or more, and a power above 0"
            )

    def above_least(self, progress: float) -> float:
        """From 1 at the beginning to 0 at the end."""
        end = _FARTHEST**-self.power
        return float(((1 + (_FARTHEST - 1) * progress) ** -self.power - end) / (1 - end))


def parse_cooling(text: str) -> Literal["constant", "linear"] | OneOverX:
    """`constant`, `linear`, or `onex:LEAST:POWER`, as on a command line.

    >>> parse_cooling("onex:0.5:2")
    OneOverX(least=0.5, power=2.0)

    Raises:
        ConfigError: none of them.
    """
    if text == "constant":
        return "constant"
    if text == "linear":
        return "linear"
    kind, *numbers = text.split(":")
    try:
        least, power = map(float, numbers)
    except ValueError:
        kind = ""
    if kind != "onex":
        raise ConfigError(
            f"temperature {text!r}: expected constant, linear, or onex:LEAST:POWER with two numbers"
        )
    return OneOverX(least, power)


def _read_cooling(value: object) -> object:
    return parse_cooling(value) if isinstance(value, str) else value


Cooling = Annotated[Literal["constant", "linear"] | OneOverX, BeforeValidator(_read_cooling)]
"""How a temperature changes; files and command lines say it as `parse_cooling` reads it."""


@dataclass(frozen=True)
class GenerationStep:
    """How one target is generated; a chain of them generates several, each seen by the next.

    Text is generated word by word: steps, and all that changes with them, are of grids alone.

    Attributes:
        scheme: `maskgit` predicts all that is missing and keeps the surest (Chang et al. 2022);
            `roar` predicts random positions (Mizrahi et al. 2023); `autoregressive` is for text.
        steps: in which a grid is filled.
        schedule: how much of what is missing a step fills: `cosine` little, much, little; `linear`
            always as much. `constant` fills as many positions as a step of an empty grid would,
            so that few missing ones take few steps.
        temperature: 0 takes the likeliest token.
        cooling: how the temperature changes while the grid is filled: not at all, linearly to
            nothing, or as `OneOverX`.
        top_k: only the likeliest ids, 0 for all.
        top_p: only the likeliest ids that together have this probability.
        guidance: of all conditions; 1 is none, more follows them more closely, negative numbers go
            the other way (Ho & Salimans 2021).
        guidance_schedule: whether guidance is there from the first step on, or grows with them.
        weights: instead of `guidance`, how much each of some conditions counts: predictions are
            `without + sum of weight * (with this one - without any)`; negative ones lead away.
            Conditions that are not named are seen in any case.
        grow: whether what the chain generated before is guided by too, as what was given.
    """

    target: str
    scheme: Scheme
    steps: int = 1
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    temperature: float = 0.0
    cooling: Cooling = "constant"
    top_k: int = 0
    top_p: float = 1.0
    guidance: float = 1.0
    guidance_schedule: Literal["constant", "linear", "cosine"] = "constant"
    weights: Mapping[str, float] = field(default_factory=dict)
    grow: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1 or self.temperature < 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ConfigError(
                f"generation of {self.target}: expected at least one step, a temperature and top_k "
                f"of 0 or more, and top_p above 0 and up to 1; found {self}"
            )
        if not all(map(math.isfinite, (self.temperature, self.guidance, *self.weights.values()))):
            raise ConfigError(f"generation of {self.target}: expected finite numbers; found {self}")
        if self.weights and self.guidance != 1:
            raise ConfigError(
                f"generation of {self.target}: weights say how much each condition counts; leave "
                f"guidance out, or multiply them by it"
            )
        if self.target in self.weights:
            raise ConfigError(
                f"generation of {self.target}: what is known of the target itself is always seen, "
                f"and has no weight"
            )


def filled_share(step: GenerationStep, number: int) -> float:
    """Share of a grid's positions that is filled after step `number`, counted from 1.

    >>> maskgit = GenerationStep("depth", "maskgit", steps=8)
    >>> [round(196 * filled_share(maskgit, number)) for number in range(1, 9)]
    [7, 29, 60, 98, 136, 167, 189, 196]
    """
    progress = number / step.steps
    return _half_cosine(progress) if step.schedule == "cosine" else progress


def temperature_at(step: GenerationStep, number: int) -> float:
    """The temperature of step `number`, counted from 1."""
    progress = filled_share(step, number - 1)
    if isinstance(step.cooling, OneOverX):
        least = min(step.cooling.least, step.temperature)
        return least + (step.temperature - least) * step.cooling.above_least(progress)
    return step.temperature * (1 - progress if step.cooling == "linear" else 1)


def guidance_share(step: GenerationStep, number: int) -> float:
    """How much of the guidance is there at step `number`, counted from 1; all of it at the last."""
    progress = number / step.steps
    if step.guidance_schedule == "constant":
        return 1.0
    return progress if step.guidance_schedule == "linear" else _half_cosine(progress)


def _half_cosine(progress: float) -> float:
    return 0.5 - 0.5 * math.cos(math.pi * progress)


def default_step(modality: Modality) -> GenerationStep:
    """What works for most: one bold stroke for grids, word by word for text."""
    if modality.masking is Masking.IMAGE:
        return GenerationStep(modality.name, "maskgit", steps=4)
    return GenerationStep(modality.name, "autoregressive")


_TEXT = GenerationStep("", "autoregressive", temperature=0.3, top_p=0.8)


@dataclass(frozen=True)
class Preset:
    """A way to generate, for targets of each kind.

    Attributes:
        features: for maps and vectors of features; `grid` for all other grids.
    """

    grid: GenerationStep
    features: GenerationStep
    text: GenerationStep = _TEXT

    def chain(self, targets: Iterable[Modality]) -> list[GenerationStep]:
        """Text first, then features, then the rest; in each of the three the order stays.

        Args:
            targets: what the model predicts: grids of tokens and text.
        """
        kinds: dict[str, list[GenerationStep]] = {"text": [], "features": [], "grid": []}
        for each in targets:
            kind = _kind(each)
            kinds[kind].append(replace(getattr(self, kind), target=each.name))
        return [step for steps in kinds.values() for step in steps]


def _kind(tokens: Modality) -> str:
    if tokens.masking is not Masking.IMAGE:
        return "text"
    encoded = modality(tokens.token_of).kind if tokens.token_of in modality_names() else None
    return "features" if encoded in (Kind.FEATURE_MAP, Kind.VECTOR) else "grid"


_AT_ONCE = GenerationStep("", "roar", temperature=0.01, top_p=0.8, guidance=2.0)
_SUREST = GenerationStep("", "maskgit", steps=8, temperature=1.0, top_p=0.8, guidance=2.0)

PRESETS: Mapping[str, Preset] = {
    "from-picture": Preset(_AT_ONCE, _AT_ONCE),
    "from-text": Preset(
        GenerationStep("", "roar", steps=25, temperature=3.0, top_p=0.8, guidance=2.0),
        GenerationStep(
            "", "roar", steps=50, temperature=5.0, cooling=OneOverX(least=1.0, power=0.5),
            top_p=0.8, guidance=3.0,
        ),
    ),
    "finer": Preset(_SUREST, _SUREST),
}  # fmt: skip
"""Ways to generate, in the manner of the authors of 4M.

`from-picture`: a picture leaves little of its maps open, so all is predicted at once and hardly
drawn. `from-text`: a sentence leaves most of a picture open; features come first, boldly and in
many steps, and pictures and maps follow them. `finer`: a larger grid from a smaller one.
"""


def preset(name: str) -> Preset:
    """One of `PRESETS`.

    Raises:
        UnknownNameError: there is no such preset.
    """
    if name not in PRESETS:
        raise UnknownNameError("preset of generation", name, PRESETS)
    return PRESETS[name]
