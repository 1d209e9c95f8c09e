"""Which modalities a model sees, which of them it predicts, and the numbers it knows them by."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from fourmill.manifests.errors import ConfigError, UnknownNameError
from fourmill.manifests.modalities import Masking, Modality

CONTINUOUS = frozenset({Masking.PIXELS, Masking.EMBEDDING})
"""What enters the model through a linear projection rather than as token ids."""

SEQUENCES = frozenset({Masking.SEQUENCE, Masking.CHUNKS, Masking.EMBEDDING})

SEQUENCE_POSITIONS = 512
"""Positions that every text-like modality has an embedding of."""

_POSITION_LIMITS = {"human_poses": 263}  # the published models embed fewer than its 275 tokens


@dataclass(frozen=True)
class Domains:
    """The modalities of a model, sorted by name; index `k` stands for `modalities[k]`.

    Attributes:
        inputs: names of what the encoder can see.
        targets: names of what the decoder can predict.
    """

    modalities: tuple[Modality, ...]
    inputs: tuple[str, ...]
    targets: tuple[str, ...]

    @staticmethod
    def of(
        modalities: Iterable[Modality],
        inputs: Iterable[str] | None = None,
        targets: Iterable[str] | None = None,
    ) -> "Domains":
        """Domains of some modalities; by default all are inputs, and all that can be are targets.

        Raises:
            UnknownNameError: an input or target that is not among the modalities.
            ConfigError: one that the model cannot see or predict, or none at all.
        """
        known = {each.name: each for each in modalities if each.masking is not None}
        chosen_in = sorted(known if inputs is None else set(inputs))
        possible = [name for name, each in known.items() if each.is_target]
        chosen_out = sorted(possible if targets is None else set(targets))
        for name in (*chosen_in, *chosen_out):
            if name not in known:
                raise UnknownNameError("modality that a model can see", name, known)
        for name in chosen_out:
            if name not in possible:
                raise ConfigError(
                    f"{name} can only be an input: take it out of the targets, which can be "
                    f"{', '.join(sorted(possible))}"
                )
        if not chosen_in or not chosen_out:
            raise ConfigError("a model needs at least one input and one target modality")
        used = sorted(set(chosen_in) | set(chosen_out))
        return Domains(tuple(known[each] for each in used), tuple(chosen_in), tuple(chosen_out))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names by index."""
        return tuple(each.name for each in self.modalities)

    def index(self, name: str) -> int:
        """The number of a modality.

        Raises:
            UnknownNameError: the model does not know it.
        """
        if name not in self.names:
            raise UnknownNameError("modality of this model", name, self.names)
        return self.names.index(name)

    def modality(self, name: str) -> Modality:
        """The definition of a modality.

        Raises:
            UnknownNameError: the model does not know it.
        """
        return self.modalities[self.index(name)]


def meanings(modality: Modality) -> set[str]:
    """What else people call a modality of a model: its folder, what its tokens encode.

    `tok_depth@224` is `depth`, `rgb@224` is `rgb`.
    """
    names = {modality.folder, modality.folder.removeprefix("tok_").partition("@")[0]}
    return names | ({modality.token_of} if modality.token_of else set())


def num_positions(modality: Modality) -> int:
    """Rows of a modality's table of positions."""
    return SEQUENCE_POSITIONS if modality.masking in SEQUENCES else modality.max_tokens


def position_limit(modality: Modality) -> int:
    """From this position on the decoder gives a token the embedding of position 0."""
    limit = _POSITION_LIMITS.get(reference_name(modality), modality.max_tokens)
    return min(num_positions(modality), modality.max_tokens, limit)


def reference_name(modality: Modality) -> str:
    """What the reference calls it: the text of a dataset's `tok_caption` is its `caption`.

    What is tokenized may be called otherwise: `tok_sam_instance` may be of `instances`.
    """
    is_text = modality.masking in SEQUENCES and modality.token_of is not None
    return modality.name.removeprefix("tok_") if is_text else modality.name


def continuous_width(modality: Modality) -> int:
    """Numbers in one patch of pixels, or in one vector."""
    if modality.masking is Masking.PIXELS:
        return modality.channels * modality.patch_size**2
    return modality.channels
