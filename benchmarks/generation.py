"""Generation without needless work, beside the same as one writes it first.

    python benchmarks/generation.py [--json] [--only text grids]

text: a caption of 256 words of a picture. The plain way encodes the picture once, and runs the
decoder over all words so far for each new one. grids: tokens of a picture from a caption of 23
words, guided, by MaskGIT and ROAR in 8 steps. The plain way, at each step and on each side of the
guidance, one after the other, runs the encoder over all places of the caption and of the grid, and
the decoder and its head over all places of the grid; what is unknown, or not asked for, is masked.

Both have the same weights and draws, and the likeliest tokens of both are compared before they are
timed. They take turns, and the median of the ratios counts; on the CPU, of the time that the
process had, with one thread. Where there is a GPU, everything is measured there too.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
import tyro
from results import Result, show_parts
from torch import Tensor

from fourmill.manifests.modalities import FOURM_7, modality
from fourmill.tokenize.vocabulary import EOS, sentinel
from fourmill.train.conditions import Conditions, select_inputs
from fourmill.train.counters import hashes, sample_keys, uniforms
from fourmill.train.domains import Domains
from fourmill.train.generate import generate
from fourmill.train.model import FourM, ModelShape
from fourmill.train.sampling import draw
from fourmill.train.schedules import GenerationStep, Scheme, filled_share
from fourmill.train.selection import PADDING, Selection

NAME = "generate"

_DOMAINS = Domains.of([modality(name) for name in FOURM_7])
_TARGET = "tok_rgb@224"
_PLACES = 196
_CAPTION_WORDS, _CAPTION_PLACES = 23, 256
_SAME = 0.99  # share of tokens; products of other shapes differ in their last bits
_SHAPES = {
    "nano": ModelShape(32, 2, encoder_depth=1, decoder_depth=1),
    "small": ModelShape(256, 4, encoder_depth=4, decoder_depth=4),
}


@dataclass(frozen=True)
class Options:
    """How much to measure.

    Attributes:
        only: these parts.
        size: of the model: small (256 wide, 4 + 4 blocks, the default of a run), nano (32
            wide, 1 + 1).
        samples: generated at once.
        repeats: of each pair.
        json: print one JSON object a line instead of a table.
    """

    only: tuple[str, ...] = ("text", "grids")
    size: str = "small"
    samples: int = 2
    repeats: int = 3
    json: bool = False


class Bench:
    """All parts."""

    def __init__(self, options: Options) -> None:
        torch.set_num_threads(1)
        self.options = options
        self.model = FourM(_DOMAINS, _SHAPES[options.size]).eval()
        generator = torch.Generator().manual_seed(0)
        self.samples = torch.arange(options.samples)
        self.pixels = torch.randint(
            256, (options.samples, 224, 224, 3), generator=generator, dtype=torch.uint8
        )
        words = torch.randint(5000, 30_000, (options.samples, _CAPTION_PLACES), generator=generator)
        words[:, _CAPTION_WORDS - 1] = EOS
        words[:, _CAPTION_WORDS:] = 0
        self.caption = words

    def text(self) -> Iterator[Result]:
        """Words a second."""
        step = GenerationStep("caption", "autoregressive", temperature=1.0)
        for device in _devices():
            known = Conditions(
                self.samples.to(device), {}, {"rgb@224": self.pixels.to(device)}
            )  # fmt: skip
            yield self._beside("text", "words/s", known, step, _plain_text, device)

    def grids(self) -> Iterator[Result]:
        """Tokens a second."""
        schemes: tuple[Scheme, ...] = ("maskgit", "roar")
        for device in _devices():
            known = Conditions(self.samples.to(device), {"caption": self.caption.to(device)})
            for scheme in schemes:
                step = GenerationStep(_TARGET, scheme, 8, temperature=1.0, guidance=2.0)
                yield self._beside(scheme, "tokens/s", known, step, _plain_grid, device)

    def _beside(
        self, name: str, unit: str, known: Conditions, step: GenerationStep, plain: "_Plain",
        device: torch.device,
    ) -> Result:  # fmt: skip
        """Both ways in turns."""
        model = self.model.to(device)

        def fast(step: GenerationStep) -> Tensor:
            return generate(model, known, [step])[step.target]

        def slow(step: GenerationStep) -> Tensor:
            return plain(model, known, step)

        likeliest = replace(step, temperature=0.0)
        if (fast(likeliest) == slow(likeliest)).double().mean() < _SAME:
            raise SystemExit(f"{name}: the two ways generate different things")
        made = int((fast(step) >= (1 if step.scheme == "autoregressive" else 0)).sum())
        pairs = [
            (_seconds(partial(slow, step), device), _seconds(partial(fast, step), device))
            for _ in range(self.options.repeats)
        ]
        before, now = (made / statistics.median(each) for each in zip(*pairs, strict=True))
        ratio = statistics.median(one / other for one, other in pairs)
        return Result(
            f"generate/{name}/{device.type}", round(now, 1), unit, _BASELINES[plain],
            round(before, 1), round(ratio, 2), 3,
        )  # fmt: skip


_Plain = Callable[[FourM, Conditions, GenerationStep], Tensor]


@torch.no_grad()
def _plain_text(model: FourM, known: Conditions, step: GenerationStep) -> Tensor:
    """The decoder runs over all words so far for each new one."""
    keys = sample_keys(0, known.sample, torch.zeros_like(known.sample))
    length = _DOMAINS.modality(step.target).max_tokens
    noise = uniforms(keys, f"{step.target} token", length)
    selection = select_inputs(_DOMAINS, known)
    context, bias = model.encode(selection)
    read = torch.full_like(known.sample, sentinel(1))[:, None]
    written = torch.zeros(len(read), length, dtype=torch.int64, device=read.device)
    ended = torch.zeros_like(known.sample, dtype=torch.bool)
    for place in range(length):
        asked = replace(
            selection,
            target_modality=torch.full_like(read, _DOMAINS.index(step.target)),
            target_position=torch.arange(place + 1, device=read.device).expand_as(read),
            target_token=read,
            target_label=torch.zeros_like(read),
        )
        logits = model.logits(step.target, model.decode(asked, context, bias)[:, -1:])
        token, _ = draw(logits, step, step.temperature, noise[:, place : place + 1])
        ended |= token[:, 0] == sentinel(2)
        written[:, place] = token[:, 0].masked_fill(ended, 0)
        ended |= token[:, 0] == EOS
        if bool(ended.all()):
            break
        read = torch.cat([read, token], dim=1)
    return written


@torch.no_grad()
def _plain_grid(model: FourM, known: Conditions, step: GenerationStep) -> Tensor:
    """All places of all that there is, on one side after the other; masks say what counts."""
    keys = sample_keys(0, known.sample, torch.zeros_like(known.sample))
    place = torch.arange(_PLACES, device=keys.device).expand(len(keys), -1)
    grid = torch.full_like(place, -1)
    filled = torch.zeros_like(known.sample)
    for number in range(1, step.steps + 1):
        asked = grid < 0
        until = round(_PLACES * filled_share(step, number))
        count = until - filled
        stream = f"{step.target} {number}"
        if step.scheme == "roar":
            order = hashes(keys, f"{stream} order", _PLACES).argsort(1).argsort(1)
            rank = order.masked_fill(~asked, _PLACES).argsort(dim=1, stable=True).argsort(1)
            asked = asked & (rank < count[:, None])
        logits = step.guidance * _plain_logits(model, known.tokens["caption"], grid, asked, step)
        nothing = torch.zeros_like(known.tokens["caption"])
        logits += (1 - step.guidance) * _plain_logits(model, nothing, grid, asked, step)
        noise = uniforms(keys, f"{stream} token", _PLACES)
        token, sureness = draw(logits, step, step.temperature, noise)
        rank = (-sureness.masked_fill(~asked, -1)).argsort(dim=1, stable=True).argsort(1)
        grid = torch.where(asked & (rank < count[:, None]), token, grid)
        filled = (grid >= 0).sum(1)
    return grid


def _plain_logits(
    model: FourM, caption: Tensor, grid: Tensor, asked: Tensor, step: GenerationStep
) -> Tensor:
    """Scores at all places of a grid."""
    words, tokens = (_DOMAINS.index(name) for name in ("caption", step.target))
    place = torch.arange(_PLACES, device=grid.device).expand_as(grid)
    rank = torch.arange(caption.shape[1], device=grid.device).expand_as(caption)
    modality = torch.cat(
        [torch.where(caption > 0, words, PADDING), torch.where(grid >= 0, tokens, PADDING)], 1
    )
    token = torch.cat([caption, grid.clamp(min=0)], 1)
    targets = torch.where(asked, tokens, PADDING)
    nothing = torch.zeros_like(grid)
    selection = Selection(
        modality, torch.cat([rank, place], 1), token, torch.zeros_like(token), targets, place,
        nothing, nothing,
    )  # fmt: skip
    return model.logits(step.target, model(selection)).float()


_BASELINES: dict[_Plain, str] = {
    _plain_text: "the decoder over all words so far",
    _plain_grid: "all places, side by side, masked",
}


def _devices() -> list[torch.device]:
    return [torch.device(name) for name in ("cpu", "cuda")[: 1 + torch.cuda.is_available()]]


def _seconds(work: Callable[[], Tensor], device: torch.device) -> float:
    """On the CPU those of the process, so that it does not matter who else works there."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    started = clock()
    work()
    if device.type != "cpu":
        torch.cuda.synchronize()
    return clock() - started


def main() -> None:
    """Print the results."""
    options = tyro.cli(Options, description=__doc__)
    show_parts(Bench(options), options.only, options.json)


if __name__ == "__main__":
    main()
