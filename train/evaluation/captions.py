"""Captions: BLEU and CIDEr over all of them, by the scorers of COCO's caption evaluation.

Its own tokenizer is a program in Java. Here words are what is left of a caption in lower case
without punctuation, which is what that program leaves of plain sentences; so figures may differ in
the third digit from those that it was used for.
"""

import contextlib
import io
import math
import re
from collections.abc import Sequence
from typing import Any

from fourmill.manifests.errors import ConfigError, MissingPackageError
from fourmill.manifests.labels import Label
from fourmill.manifests.listed_agreement import texts
from fourmill.train.evaluation.metric import Metric, Scores

_WORD = re.compile(r"[^\W_]+(?:[-'’.,][^\W_]+)*", re.UNICODE)
_GRAMS = 4


class CaptionMetric(Metric):
    """`cider`, `bleu1` to `bleu4` over all captions, and `word_overlap`, F1 of the words.

    A truth may be several captions of a picture (`references_of`); the overlap is with the nearest.
    Counts of the words and phrases of all captions are kept, some kilobytes a sample.

    Raises:
        MissingPackageError: pycocoevalcap is not installed.
    """

    headline = "word_overlap"

    def __init__(self) -> None:
        try:
            from pycocoevalcap.bleu.bleu_scorer import BleuScorer
            from pycocoevalcap.cider.cider_scorer import CiderScorer
        except ImportError as error:
            raise MissingPackageError(
                "BLEU and CIDEr need pycocoevalcap: `pip install 'fourmill[evaluate]'`"
            ) from error
        self._bleu: Any = BleuScorer(n=_GRAMS)
        self._cider: Any = CiderScorer(n=_GRAMS)
        self._count, self._overlap = 0, 0.0

    def add(self, truth: Label, predicted: Label) -> Scores:
        assert isinstance(predicted, str)
        references = [" ".join(words_of(each)) for each in references_of(truth)] or [""]
        candidate = " ".join(words_of(predicted))
        self._bleu += (candidate, references)
        self._cider += (candidate, references)
        overlap = max(texts(each, candidate)["word_overlap"] for each in references)
        self._count, self._overlap = self._count + 1, self._overlap + overlap
        return {"word_overlap": overlap}

    def totals(self) -> Scores:
        names = ["cider", *(f"bleu{number}" for number in range(1, _GRAMS + 1)), "word_overlap"]
        if not self._count:
            return dict.fromkeys(names, math.nan)
        self._bleu._score = None  # else it would answer in another form the next time
        with contextlib.redirect_stdout(io.StringIO()):
            bleu, _ = self._bleu.compute_score(option="closest", verbose=0)
        # of one sample every phrase is in every truth, and nothing distinguishes it
        cider = float(self._cider.compute_score()[0]) if self._count > 1 else math.nan
        self._cider.document_frequency.clear()  # it would count them again the next time
        values = [cider, *map(float, bleu), self._overlap / self._count]
        return dict(zip(names, values, strict=True))


def words_of(text: str) -> list[str]:
    """The words of a caption, in lower case, without punctuation.

    >>> words_of("A man's dog (well-fed), 2.5 years old.")
    ['a', "man's", 'dog', 'well-fed', '2.5', 'years', 'old']
    """
    return _WORD.findall(text.lower())


def references_of(label: Label) -> Sequence[str]:
    """The captions that a truth holds: one text, a list of texts, or `{"captions": [...]}`; those
    that say nothing are left out.

    Raises:
        ConfigError: none of these.
    """
    found: Any = label.get("captions") if isinstance(label, dict) else label
    listed = [found] if isinstance(found, str) else found
    if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
        raise ConfigError(
            'expected a caption, a list of captions, or {"captions": [...]}; found '
            f"{str(label)[:80]!r}"
        )
    return [each for each in listed if words_of(each)]
