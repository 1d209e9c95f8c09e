"""Words that spell the codes of another tokenizer: what text alone is too long for.

4M writes a body's pose and an instance's mask as codes of a tokenizer of their own, among plain
words and numbers: a code is `v0=<code>` up to 511, and `v1=<code - 512>` from there.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

from fourmill.manifests.errors import ConfigError
from fourmill.tokenize.base import TokenizerSpec
from fourmill.tokenize.networks import NetworkTokenizer
from fourmill.tokenize.vocabulary import UNK, Vocabulary, number, parse_number
from fourmill.tokenize.words import VOCABULARY_FILE, WordTokenizer

NUM_CODES = 1024
"""Codes that there are words for."""

_HALF = NUM_CODES // 2

Item = str | tuple[int, int]
"""A word, or a number as (axis, bin)."""


class CodedTokenizer(WordTokenizer):
    """A label as words and codes; `codec`, where there is one, makes the codes.

    Attributes:
        words: that the grammar of the modality is made of.
        codes: how many codes the codec gives.

    Raises:
        ConfigError: a codec with other codes, or a vocabulary that cannot spell the words.
    """

    words: ClassVar[tuple[str, ...]]
    codes: ClassVar[int]
    codec_class: ClassVar[type[NetworkTokenizer]]

    def __init__(
        self,
        vocabulary: Vocabulary,
        max_tokens: int,
        codec: NetworkTokenizer | None = None,
        **config: Any,
    ) -> None:
        if codec is not None:
            _refuse_other_codes(codec, self.codec_class, self.codes)
            config["codec"] = codec.spec.config
        for word in self.words:
            if UNK in vocabulary.encode(word):
                raise ConfigError(
                    f"vocabulary: it cannot spell {word!r}, which tokens of {self.reads} are made "
                    "of; train one, or take the reference's"
                )
        super().__init__(vocabulary, max_tokens, **config)
        self._ids = {word: vocabulary.encode(word) for word in self.words}

    @classmethod
    def load(cls, folder: Path, spec: TokenizerSpec) -> "CodedTokenizer":
        """Read what `save` wrote.

        Raises:
            ConfigError: the weights of the codec are not there, or are another network's.
        """
        config = dict(spec.config)
        if "codec" in config:
            config["codec"] = cls.codec_class.load(folder, replace(spec, config=config["codec"]))
        return cls(Vocabulary.load(folder / VOCABULARY_FILE), spec.max_tokens, **config)

    def save(self, folder: Path) -> None:
        """Write `spec.json`, `vocabulary.json`, and the codec's `model.safetensors`."""
        codec: NetworkTokenizer | None = self.codec
        if codec is not None:
            codec.save(folder)  # its spec, which this one's holds, is written over
        super().save(folder)

    @property
    def codec(self) -> Any:
        """What makes the codes, or `None`."""
        raise NotImplementedError

    def word(self, text: str) -> list[int]:
        """Ids of one of the grammar's words: one id, but in vocabularies that do not have it."""
        return self._ids[text]

    def items(self, ids: Sequence[int]) -> list[Item]:
        """What ids say, word by word; special tokens are left out."""
        items: list[Item] = []
        letters: list[int] = []
        for id in [*ids, number(0, 0)]:
            found = parse_number(id)
            if found is None:
                letters.append(id)
                continue
            # pieces of words belong together up to the next number
            known = [each for each in letters if each < len(self.vocabulary)]
            items += self.vocabulary.decode(known).split() if known else []
            items.append(found)
            letters = []
        return items[:-1]


def spell_codes(codes: Sequence[int]) -> list[int]:
    """Ids of codes below `NUM_CODES`."""
    return [number(code // _HALF, code % _HALF) for code in codes]


def read_codes(items: Sequence[Item], count: int) -> tuple[int, ...] | None:
    """As many codes, from the start; `None` where anything else comes first."""
    found = [each for each in items[:count] if not isinstance(each, str)]
    if len(found) < count or any(axis > 1 or bin >= _HALF for axis, bin in found):
        return None
    return tuple(axis * _HALF + bin for axis, bin in found)


def read_bins(items: Sequence[Item], axes: Sequence[int]) -> list[int] | None:
    """The bins of numbers of these axes, from the start; `None` where anything else comes first."""
    bins = [
        item[1] for item, axis in zip(items, axes, strict=False)
        if not isinstance(item, str) and item[0] == axis
    ]  # fmt: skip
    return bins if len(bins) == len(axes) else None


def phrases(items: Sequence[Item], word: str) -> list[Sequence[Item]]:
    """What stands between one such word and the next, or the end."""
    starts = [index for index, item in enumerate(items) if item == word]
    return [items[start + 1 : stop] for start, stop in pairwise([*starts, len(items)])]


def _refuse_other_codes(
    codec: NetworkTokenizer, wanted: type[NetworkTokenizer], codes: int
) -> None:
    spec = codec.spec
    if not isinstance(codec, wanted) or spec.max_tokens != codes or spec.vocab_size > NUM_CODES:
        raise ConfigError(
            f"{spec.modality}: found {spec.kind} of {spec.max_tokens} tokens with "
            f"{spec.vocab_size} codes, expected {wanted.what} of {codes} with at most {NUM_CODES}"
        )
