"""Masking of whole batches, beside the published law done sample by sample in Python.

    python benchmarks/masking.py [--json] [--samples 2048]

The eight modalities of 4M-7 with budgets of 128 inputs and 128 targets; half of the samples give
pixels alone as inputs, half give everything. The baseline is `plain_masking.py`: masks of each
sample by torch, its tokens put into slots, and the slots of samples stacked, as workers of a data
loader do it. Ours has the same one thread, and then the GPU, if there is one. Captions have 23
tokens and boxes 16; nobody cuts pictures into patches. Baseline and candidate take turns, and the
median of the ratios counts; on the CPU, of the time that the process had.

fill: the share of slots that hold a token, of both laws, beside that of the baseline.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
import tyro
from plain_masking import PlainMasking
from results import Result, show
from torch.utils.data import default_collate

from fourmill.manifests.modalities import FOURM_7, modality
from fourmill.manifests.modalities import Masking as Law
from fourmill.tokenize.vocabulary import EOS, FIRST_NUMBER
from fourmill.train.batch import Batch
from fourmill.train.config import MaskingConfig, Mixture
from fourmill.train.domains import Domains
from fourmill.train.masking import Masking
from fourmill.train.selection import PADDING

_DOMAINS = Domains.of([modality(name) for name in FOURM_7])
_LENGTHS = {"caption": 23, "det": 16}
_BUDGET = 128
_ALL = dict.fromkeys(_DOMAINS.targets, 0.5)
_PIXELS = {"rgb@224": 1000.0}
_BASELINE = "the published law, sample by sample"


@dataclass(frozen=True)
class Options:
    """How much to measure.

    Attributes:
        samples: masked in each turn; by the baseline an eighth of them.
        batch: that ours masks at once.
        repeats: turns.
        json: print one JSON object a line instead of a table.
    """

    samples: int = 2048
    batch: int = 512
    repeats: int = 7
    json: bool = False


class Bench:
    """Both laws, on all devices."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.plain = PlainMasking(
            _DOMAINS.modalities, [(_PIXELS, _ALL), (_ALL | {"rgb@224": 0.5}, _ALL)]
        )
        self.samples = [
            {name: row.long() for name, row in zip(tokens, rows, strict=True)}
            for tokens in [_batch(range(options.samples // 8)).tokens]
            for rows in zip(*tokens.values(), strict=True)
        ]

    def run(self) -> Iterator[Result]:
        """All results."""
        torch.set_num_threads(1)
        torch.manual_seed(0)
        for law in ("faithful", "efficient"):
            pixels = Mixture(inputs=_PIXELS)
            config = MaskingConfig.model_validate({"law": law, "mixture": (pixels, Mixture())})
            masking = Masking(_DOMAINS, config, seed=0)
            for device in ("cpu", *(["cuda"] if torch.cuda.is_available() else [])):
                yield self._speed(f"masking/{law}/{device}", masking, torch.device(device))
            yield from self._fill(f"masking/{law}/fill", masking)

    def _speed(self, name: str, masking: Masking, device: torch.device) -> Result:
        batches = [each.to(device) for each in self.batches]

        def mask() -> None:
            for each in batches:
                masking(each)

        mask()
        pairs = []
        for _ in range(self.options.repeats):
            plain = len(self.samples) / _seconds(self._mask_plainly, torch.device("cpu"))
            pairs.append((plain, self.options.samples / _seconds(mask, device)))
        other, value = (statistics.median(each) for each in zip(*pairs, strict=True))
        ratio = statistics.median(ours / theirs for theirs, ours in pairs)
        return Result(
            name, round(value), "samples/s", _BASELINE, round(other), round(ratio, 1), 10
        )  # fmt: skip

    def _mask_plainly(self) -> None:
        size = self.options.batch
        for start in range(0, len(self.samples), size):
            packed = [self.plain.packed(each) for each in self.samples[start : start + size]]
            default_collate(packed)

    def _fill(self, name: str, masking: Masking) -> Iterator[Result]:
        selections = [masking(each) for each in self.batches]
        for side, other in self.plain_fill.items():
            modality = torch.cat([vars(each)[f"{side}_modality"] for each in selections])
            share = (modality != PADDING).double().mean().item()
            yield Result(
                f"{name}/{side}", round(share, 4), "of slots", _BASELINE, round(other, 4),
                round(share / other, 3), 0,
            )  # fmt: skip

    @cached_property
    def batches(self) -> list[Batch]:
        """What ours masks."""
        size = self.options.batch
        return [
            _batch(range(start, min(start + size, self.options.samples)))
            for start in range(0, self.options.samples, size)
        ]

    @cached_property
    def plain_fill(self) -> dict[str, float]:
        """Shares of slots that the baseline fills; of a sequence, the first target is read only."""
        masked = [each for sample in self.samples for each in self.plain(sample).items()]
        filled = {
            "input": sum(len(each.inputs) for _, each in masked),
            "target": sum(max(0, len(each.targets) - (name in _LENGTHS)) for name, each in masked),
        }
        return {side: count / (_BUDGET * len(self.samples)) for side, count in filled.items()}


def _seconds(work: Callable[[], None], device: torch.device) -> float:
    """On the CPU those of the process, so that it does not matter who else works there."""
    if device.type == "cpu":
        started = time.process_time()
        work()
        return time.process_time() - started
    torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def _batch(samples: range) -> Batch:
    """Samples of some numbers; their tokens are arithmetic."""
    sample = torch.arange(samples.start, samples.stop)
    tokens = {}
    for each in _DOMAINS.modalities:
        place = torch.arange(each.max_tokens)
        if each.masking is Law.IMAGE:
            tokens[each.name] = ((place * 7 + sample[:, None]) % each.vocab_size).to(torch.int16)
        elif each.masking is Law.SEQUENCE:
            last = _LENGTHS[each.name] - 1
            words = torch.where(
                place < last, FIRST_NUMBER + place, torch.where(place == last, EOS, 0)
            )
            tokens[each.name] = words.to(torch.int16).expand(len(sample), -1)
    return Batch(sample, torch.zeros_like(sample), tokens)


def main() -> None:
    """Print the results."""
    options = tyro.cli(Options, description=__doc__)
    for each in Bench(options).run():
        show(each, options.json)


if __name__ == "__main__":
    main()
