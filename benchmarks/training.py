"""A step of 4M beside a plain one, and how much of a GPU it uses.

    python benchmarks/training.py [--json] [--only step packed device]

step: forward, backward and optimizer of small models on the CPU, beside an implementation as one
writes it first: every place of every modality is embedded in float32, the chosen ones are gathered
from all, attention is products and softmax with its masks written out, each modality's logits are
all there, and AdamW is torch's own default. Both have the same weights and the same masks, and
their losses are compared before they are timed; they take turns, and the median of the ratios
counts. packed: our step of 4M-Ti, with what is padding left out, beside the same step with it, at
256 inputs and 256 targets of 4M-7 under the published law. device: 4M-B and 4M-L at 128 inputs and
128 targets in bfloat16, where there is a GPU whose peak is known; MFU counts three times the
forward pass.
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from results import Result, show_parts
from torch import Tensor
from torch.nn import functional as F

from fourmill.manifests.modalities import FOURM_7, modality
from fourmill.manifests.modalities import Masking as Law
from fourmill.tokenize.vocabulary import EOS
from fourmill.train.batch import Batch
from fourmill.train.config import PRESETS, MaskingConfig, TrainConfig
from fourmill.train.domains import Domains
from fourmill.train.exchange import reference_state
from fourmill.train.flops import peak_flops, projected_width, sample_flops
from fourmill.train.loss import compute_loss, count_targets
from fourmill.train.masking import Masking
from fourmill.train.model import FourM, ModelShape
from fourmill.train.optim import make_optimizers
from fourmill.train.selection import PADDING, Selection

NAME = "train"  # a file of that name would hide the package

_DOMAINS = Domains.of([modality(name) for name in FOURM_7])
_SIZES = {
    "micro": (ModelShape(64, 4, encoder_depth=2, decoder_depth=2), 32),
    "small": (ModelShape(128, 2, encoder_depth=4, decoder_depth=4), 16),
    "tiny": (ModelShape(**PRESETS["tiny"]), 8),
}
"""Shape, and samples of a step."""
_RECIPE = TrainConfig(root="", tokenizers=Path(), out=Path(), weight_decay=0.05)
_MFU_GOALS = {"base": 0.40, "large": 0.45}
_BATCHES = {"base": 512, "large": 192}


@dataclass(frozen=True)
class Options:
    """How much to measure.

    Attributes:
        only: these parts.
        sizes: of the step: micro (64 wide, 2 + 2 blocks, that of the golden tests), small (128
            wide, 4 + 4 blocks), tiny (4M-Ti).
        batch: samples of the packed step.
        repeats: of each pair.
        threads: of the CPU.
        json: print one JSON object a line instead of a table.
    """

    only: tuple[str, ...] = ("step", "packed", "device")
    sizes: tuple[str, ...] = ("micro", "small", "tiny")
    batch: int = 8
    repeats: int = 5
    threads: int = 1
    json: bool = False


def make_batch(samples: int) -> Batch:
    """Random tokens and pixels; sentences of 8 to 39 words."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.arange(samples)
    tokens = {}
    for each in _DOMAINS.modalities:
        if each.masking is Law.IMAGE:
            shape = (samples, each.max_tokens)
            tokens[each.name] = torch.randint(each.vocab_size, shape, generator=generator)
        elif each.masking is Law.SEQUENCE:
            words = torch.randint(5000, 30_000, (samples, each.max_tokens), generator=generator)
            lengths = torch.randint(8, 40, (samples, 1), generator=generator)
            place = torch.arange(each.max_tokens)
            words = torch.where(place < lengths, words, 0)
            tokens[each.name] = torch.where(place == lengths, EOS, words)
    pixels = torch.randint(256, (samples, 224, 224, 3), generator=generator, dtype=torch.uint8)
    return Batch(ids, torch.zeros_like(ids), tokens, {}, {"rgb@224": pixels})


@dataclass(frozen=True)
class Dense:
    """One modality of a batch as a plain loader gives it: all places, and which are chosen.

    Shapes: all `[B, places]`; sequences are masked already, and their places are ranks.
    """

    input_token: Tensor
    is_input: Tensor
    target_token: Tensor
    target_label: Tensor
    is_target: Tensor


def densify(selection: Selection) -> dict[str, Dense]:
    """All modalities of a batch, sorted by name."""
    found = {}
    for index, each in enumerate(_DOMAINS.modalities):
        columns = []
        for side, values in (
            ("input", (selection.input_token, torch.ones_like(selection.input_token))),
            ("target", (selection.target_token, selection.target_label,
                        torch.ones_like(selection.target_token))),
        ):  # fmt: skip
            is_mine = getattr(selection, f"{side}_modality") == index
            place = getattr(selection, f"{side}_position")
            place = torch.where(is_mine, place, each.max_tokens)
            for value in values:
                spread = value.new_zeros(len(value), each.max_tokens + 1)
                columns.append(spread.scatter_(1, place, value)[:, :-1])
        token, is_input, target, label, is_target = columns
        found[each.name] = Dense(token, is_input > 0, target, label, is_target > 0)
    return found


class Plain:
    """4M as one writes it first, on parameters under the reference's names.

    Shapes: B batch, S places of all modalities, N inputs, M targets, D width.
    """

    def __init__(self, model: FourM) -> None:
        self.shape = model.shape
        self.state = {name: each.clone() for name, each in reference_state(model).items()}
        for name, each in self.state.items():
            each.requires_grad_("pos_emb" not in name and not name.endswith("norm.bias"))
        for name in _DOMAINS.targets:  # decoders are tied to their heads
            tied = f"decoder_embeddings.{name}"
            self.state[f"{tied}.token_emb.weight"] = self.state[f"{tied}.to_logits.weight"]
        trained = {id(each): each for each in self.state.values() if each.requires_grad}
        self.parameters = list(trained.values())

    def loss(self, dense: Mapping[str, Dense], pixels: Tensor, inputs: int, targets: int) -> Tensor:
        """The mean over target modalities of their mean cross-entropy.

        Args:
            pixels: patches `[B, places, values]`, uint8; `inputs` and `targets` are the budgets.
        """
        x_BSD, emb_BSD, chosen_BS = self._embed_inputs(dense, pixels)
        order = (~chosen_BS).to(torch.uint8).argsort(dim=1, stable=True)[:, :inputs]
        gathered = order[..., None].expand(-1, -1, self.shape.dim)
        is_hidden = ~chosen_BS.gather(1, order)
        emb = emb_BSD.gather(1, gathered) * ~is_hidden[..., None]
        x = x_BSD.gather(1, gathered) * ~is_hidden[..., None] + emb
        mask = is_hidden[:, None, :].expand(-1, inputs, -1)
        for number in range(self.shape.encoder_depth):
            x = self._encode(x, mask, f"encoder.{number}")
        context = self._linear(self._norm(x, "encoder_norm"), "decoder_proj_context") + emb
        return self._decode_all(dense, context, is_hidden, targets)

    def _embed_inputs(
        self, dense: Mapping[str, Dense], pixels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        content, places, chosen = [], [], []
        for each in _DOMAINS.modalities:
            at = f"encoder_embeddings.{each.name}"
            if each.masking is Law.PIXELS:
                mean, std = (torch.tensor(v * 256) for v in (_MEAN, _STD))
                rows = (pixels.float() / 255 - mean) / std
                content.append(F.linear(rows, self.state[f"{at}.proj.weight"]))
            else:
                token = dense[each.name].input_token
                content.append(F.embedding(token, self.state[f"{at}.token_emb.weight"]))
            places.append(self._places(at, each.max_tokens, len(pixels)))
            chosen.append(dense[each.name].is_input)
        return torch.cat(content, 1), torch.cat(places, 1), torch.cat(chosen, 1)

    def _places(self, at: str, count: int, batch: int) -> Tensor:
        emb = self.state[f"{at}.pos_emb"][:, :count] + self.state[f"{at}.mod_emb"]
        return emb.expand(batch, -1, -1)

    def _decode_all(
        self, dense: Mapping[str, Dense], context: Tensor, is_hidden: Tensor, targets: int
    ) -> Tensor:
        modalities = [each for each in _DOMAINS.modalities if each.name in _DOMAINS.targets]
        content, numbers, sequences = [], [], []
        for number, each in enumerate(modalities):
            at = f"decoder_embeddings.{each.name}"
            emb = self._places(at, each.max_tokens, len(context))
            is_sequence = each.masking is Law.SEQUENCE
            if is_sequence:
                token = dense[each.name].target_token
                content.append(F.embedding(token, self.state[f"{at}.token_emb.weight"]) + emb)
            else:
                content.append(emb + self.state["mask_token"])
            numbers += [number] * each.max_tokens
            sequences += [is_sequence] * each.max_tokens
        y_BSD = torch.cat(content, 1)
        chosen_BS = torch.cat([dense[each.name].is_target for each in modalities], 1)
        label_BS = torch.cat([dense[each.name].target_label for each in modalities], 1)
        order = (~chosen_BS).to(torch.uint8).argsort(dim=1, stable=True)[:, :targets]
        is_padding = ~chosen_BS.gather(1, order)
        number = torch.tensor(numbers)[order].masked_fill(is_padding, -1)
        label = label_BS.gather(1, order)
        y = y_BSD.gather(1, order[..., None].expand(-1, -1, self.shape.dim))
        y = y * ~is_padding[..., None]
        later = torch.ones(targets, targets, dtype=torch.bool).triu(1)
        own = (number[:, :, None] != number[:, None, :]) | (
            later & torch.tensor(sequences)[order][:, :, None]
        )
        cross = is_hidden[:, None, :].expand(-1, targets, -1)
        for block in range(self.shape.decoder_depth):
            y = self._decode(y, context, own, cross, f"decoder.{block}")
        y = self._norm(y, "decoder_norm")
        losses = []
        for index, each in enumerate(modalities):
            rows = number == index
            head = self.state[f"decoder_embeddings.{each.name}.to_logits.weight"]
            losses.append(F.cross_entropy(F.linear(y[rows], head).float(), label[rows]))
        return torch.stack(losses).mean()

    def _encode(self, x: Tensor, mask: Tensor, at: str) -> Tensor:
        normed = self._norm(x, f"{at}.norm1")
        q, k, v = self._linear(normed, f"{at}.attn.qkv").chunk(3, -1)
        x = x + self._linear(self._attend(q, k, v, mask), f"{at}.attn.proj")
        return x + self._mlp(self._norm(x, f"{at}.norm2"), f"{at}.mlp")

    def _decode(self, y: Tensor, context: Tensor, own: Tensor, cross: Tensor, at: str) -> Tensor:
        q, k, v = self._linear(self._norm(y, f"{at}.norm1"), f"{at}.self_attn.qkv").chunk(3, -1)
        y = y + self._linear(self._attend(q, k, v, own), f"{at}.self_attn.proj")
        q = self._linear(self._norm(y, f"{at}.query_norm"), f"{at}.cross_attn.q")
        normed = self._norm(context, f"{at}.context_norm")
        k, v = self._linear(normed, f"{at}.cross_attn.kv").chunk(2, -1)
        y = y + self._linear(self._attend(q, k, v, cross), f"{at}.cross_attn.proj")
        return y + self._mlp(self._norm(y, f"{at}.norm2"), f"{at}.mlp")

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        heads = self.shape.heads
        q, k, v = (each.unflatten(-1, (heads, -1)).transpose(1, 2) for each in (q, k, v))
        scores = (q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5
        scores = scores.masked_fill(mask[:, None], torch.finfo(scores.dtype).min)
        return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)

    def _mlp(self, x: Tensor, at: str) -> Tensor:
        gated = F.silu(self._linear(x, f"{at}.fc1")) * self._linear(x, f"{at}.fc3")
        return self._linear(gated, f"{at}.fc2")

    def _norm(self, x: Tensor, at: str) -> Tensor:
        weight, bias = self.state[f"{at}.weight"], self.state[f"{at}.bias"]
        return F.layer_norm(x, weight.shape, weight, bias, 1e-6)

    def _linear(self, x: Tensor, at: str) -> Tensor:
        return F.linear(x, self.state[f"{at}.weight"], self.state.get(f"{at}.bias"))


_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Bench:
    """All parts."""

    def __init__(self, options: Options) -> None:
        self.options = options

    def step(self) -> Iterator[Result]:
        """Whole steps on the CPU."""
        torch.set_num_threads(self.options.threads)
        for name in self.options.sizes:
            yield self._step_of(name)

    def _step_of(self, name: str) -> Result:
        shape, samples = _SIZES[name]
        model = FourM(_DOMAINS, shape)
        plain = Plain(model)
        config = MaskingConfig(law="faithful", input_tokens=128, target_tokens=128)
        selection = Masking(_DOMAINS, config, seed=0)(make_batch(samples))
        dense, pixels = densify(selection), selection.continuous["rgb@224"]
        model.packed = True  # the published law leaves padding, which ours need not compute

        def plain_loss() -> Tensor:
            return plain.loss(dense, pixels, 128, 128)

        with torch.no_grad():
            losses = [float(plain_loss()), float(compute_loss(model, selection).total)]
        if not abs(losses[0] - losses[1]) <= 1e-4 * losses[0]:  # nor is NaN the same
            raise SystemExit(f"the losses are {losses[0]} and {losses[1]}: not the same model")
        ours, theirs = _our_step(model, selection), _plain_step(plain, plain_loss)
        return self._beside(f"train/step/{name}", samples, theirs, ours, "a plain eager step", 1.5)

    def _beside(
        self, name: str, samples: int, slow: Callable[[], None], fast: Callable[[], None],
        baseline: str, goal: float,
    ) -> Result:  # fmt: skip
        """Two steps in turns."""
        slow(), fast()  # memory is found
        pairs = [(_seconds(slow), _seconds(fast)) for _ in range(self.options.repeats)]
        before, now = (samples / statistics.median(each) for each in zip(*pairs, strict=True))
        ratio = statistics.median(one / other for one, other in pairs)
        return Result(
            name, round(now, 2), "samples/s", baseline, round(before, 2), round(ratio, 3), goal
        )

    def packed(self) -> Iterator[Result]:
        """Our step without padding, under the published law."""
        options = self.options
        torch.set_num_threads(options.threads)
        model = FourM(_DOMAINS, ModelShape(**PRESETS["tiny"]))
        config = MaskingConfig(law="faithful", input_tokens=256, target_tokens=256)
        selection = Masking(_DOMAINS, config, seed=0)(make_batch(options.batch))
        held = float((selection.target_modality != PADDING).float().mean())
        step = _our_step(model, selection)

        def padded_or_not(packed: bool) -> None:
            model.packed = packed
            step()

        yield self._beside(
            "train/packed/tiny", options.batch, lambda: padded_or_not(False),
            lambda: padded_or_not(True), f"with {1 - held:.0%} of targets padding", 1.0,
        )  # fmt: skip

    def device(self) -> Iterator[Result]:
        """Published sizes on a GPU."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        peak = peak_flops(device)
        if peak is None:
            sys.stderr.write("train/device: no GPU whose peak is known, so nothing to measure\n")
            return
        for preset, goal in _MFU_GOALS.items():
            yield from self._preset(preset, goal, device, peak)

    def _preset(
        self, preset: str, goal: float, device: torch.device, peak: float
    ) -> Iterator[Result]:
        size = _BATCHES[preset]
        shape = ModelShape(**PRESETS[preset])
        model = FourM(_DOMAINS, shape).to(device)
        model.compile(fullgraph=True, dynamic=False)
        config = MaskingConfig(input_tokens=128, target_tokens=128)
        selection = Masking(_DOMAINS, config, seed=0)(make_batch(size).to(device))
        step = _our_step(model, selection, torch.bfloat16)
        for _ in range(5):
            step()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.set_sync_debug_mode("error")  # a steady step asks the device for nothing
        step()
        torch.cuda.set_sync_debug_mode("default")
        began = time.perf_counter()
        for _ in range(20):
            step()
        torch.cuda.synchronize()
        rate = 20 * size / (time.perf_counter() - began)
        sizes = torch.tensor([_DOMAINS.modality(name).vocab_size for name in _DOMAINS.targets])
        counts = count_targets(_DOMAINS, selection).cpu()
        width = float((counts * sizes).sum() / selection.target_modality.numel())
        flops = sample_flops(shape, 128, 128, width, projected_width(_DOMAINS)).training
        where = torch.cuda.get_device_name(device)
        yield Result(
            f"train/mfu/{preset}", round(rate * flops / 1e12, 1), "TFLOP/s",
            f"the peak of {where}", peak / 1e12, round(rate * flops / peak, 4), goal,
        )  # fmt: skip
        memory = torch.cuda.max_memory_allocated() / 2**30
        yield Result(
            f"train/memory/{preset}-{size}", round(memory, 2), "GiB", "its samples", size,
            round(memory / size, 4), 0,
        )  # fmt: skip


def _our_step(
    model: FourM, selection: Selection, dtype: torch.dtype = torch.float32
) -> Callable[[], None]:
    optimizers = make_optimizers(model, _RECIPE)
    own = count_targets(model.domains, selection).tolist()  # known a step ahead, as in training
    device = selection.input_modality.device.type

    def step() -> None:
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            loss = compute_loss(model, selection, own=own)
        optimizers.zero_grad()
        torch.autograd.backward(loss.total)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizers.step(1e-4)

    return step


def _plain_step(plain: Plain, compute: Callable[[], Tensor]) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(plain.parameters, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05)

    def step() -> None:
        loss = compute()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(plain.parameters, 1.0)
        optimizer.step()

    return step


def _seconds(step: Callable[[], None]) -> float:
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def main() -> None:
    """Print all results."""
    options = tyro.cli(Options)
    show_parts(Bench(options), options.only, options.json)


if __name__ == "__main__":
    main()
