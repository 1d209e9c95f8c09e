"""From labels to token shards, beside the loop that one would write.

    python benchmarks/tokenizing.py [--json] [--only crops write decode]

crops: the engine on two CPUs makes tokens of ten crops of each stored picture, beside one process
that opens each picture, cuts its crops with Pillow, and runs the same network on them. The network
is that of the demo (tokens of 8 pixels, a linear encoder), and a transformer, which leaves little
to win but the second CPU. write: tokens that are there, checked, summarised and committed by one
process, in shards of ten crops and of one; beside it, what no writer of such shards can do without:
one copy of a shard's bytes, their SHA-256, and a plain file of them that is on the disk. decode:
three tokenizers of one picture in one run, beside a run for one of them: how much more the others
cost than their own work shows whether pictures are decoded once.

Baseline and candidate take turns, and the median of the ratios counts. The start of Ray and of
workers is not counted.
"""

import hashlib
import io
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from engine import Meter, count_blocks, make_corpus
from PIL import Image
from results import Result, show_parts

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.modalities import modality
from fourmill.manifests.shards import shard_name
from fourmill.pipeline.engine import Engine
from fourmill.pipeline.plan import plan_wave
from fourmill.pipeline.steps import CropStep, TokenizeStep
from fourmill.pipeline.work import BLOCK_SAMPLES, commit_shard, encode_block
from fourmill.pipeline.workers import ray_session
from fourmill.tokenize import registry
from fourmill.tokenize.autoencoder import AutoencoderConfig, VQAutoencoder
from fourmill.tokenize.crops import crop_settings
from fourmill.tokenize.vq import VQTokenizer

NAME = "tokenize"  # a file of that name would hide the standard library's

_SIDE, _CROPS, _MAX_SIDE = 512, 10, 512
_NETWORKS = {
    "demo": (112, {"patch": 8, "dim": 128, "heads": 4, "encoder_depth": 0, "decoder_depth": 1,
                   "codes": 1024}),
    "transformer": (112, {"patch": 16, "dim": 192, "heads": 3, "encoder_depth": 12,
                          "decoder_depth": 1, "codes": 1024}),
}  # fmt: skip
_GOALS = {"demo": 2.0, "transformer": 0}


@dataclass(frozen=True)
class Options:
    """How much to measure.

    Attributes:
        only: these parts.
        networks: whose tokens of ten crops are made.
        samples: pictures, 512 x 384.
        repeats: of each pair.
        json: print one JSON object a line instead of a table.
    """

    only: tuple[str, ...] = ("crops", "write", "decode")
    networks: tuple[str, ...] = tuple(_NETWORKS)
    samples: int = 1024
    repeats: int = 3
    json: bool = False


class Bench:
    """All parts, in a folder with nothing else in it."""

    def __init__(self, options: Options, folder: Path) -> None:
        self.options = options
        self.folder = folder

    def corpus(self, share: int = 1) -> Dataset:
        """Pictures with crop settings, which all tokenizers share.

        Args:
            share: one of so many pictures, where each takes long.
        """
        folder = self.folder / f"corpus-{share}"
        if folder.exists():
            return Dataset.open(str(folder))
        dataset = make_corpus(folder, 4, self.options.samples // share // 4, _SIDE)
        plan = plan_wave(dataset, [CropStep(_CROPS, 0, 0.2)])
        with ray_session(cpus=2):
            Engine(plan).run()
        written = [each for step in plan.steps.values() for each in step.writers.values()]
        dataset.publish([each.finish() for each in written], "crops")
        return Dataset.open(dataset.url)

    def crops(self) -> Iterator[Result]:
        """Ten crops of each picture."""
        for name in self.options.networks:
            place = self._tokenizer(name, name)
            share = 1 if name == "demo" else 4
            pairs = [
                (self._loop_seconds(place, share), self._engine_seconds([place], share))
                for _ in range(self.options.repeats)
            ]
            yield _faster(f"tokenize/ten-crops/{name}", pairs, "a loop with Pillow, one process",
                          _GOALS[name])  # fmt: skip

    def write(self) -> Iterator[Result]:
        """What is there, into shards."""
        for name, crops in (("ten-crops", _CROPS), ("one-crop", 1)):
            step = TokenizeStep(self._tokenizer("demo", "demo"), crops, _MAX_SIDE)
            definition = step.definition(step.name)
            dataset = Dataset.open(str(self.folder / f"write-{name}"), create=True)
            rows = np.random.default_rng(0).integers(0, 1024, (5000, crops, 196)).astype(np.int16)
            outcomes = [{step.name: row} for row in rows]
            keys = [f"{row:08d}" for row in range(len(rows))]
            writer = dataset.writer(definition, step.producer(), {}, self.options.repeats)
            seconds, least = [], []
            for shard in range(self.options.repeats):
                started = time.perf_counter()
                blocks = [
                    encode_block(
                        step, step.name, keys[at : at + BLOCK_SAMPLES],
                        outcomes[at : at + BLOCK_SAMPLES],
                    )
                    for at in range(0, len(rows), BLOCK_SAMPLES)
                ]  # fmt: skip
                commit_shard(writer, shard, blocks)
                seconds.append(time.perf_counter() - started)
                written = Path(dataset.url) / writer.folder / shard_name(shard)
                least.append(_least_seconds(written.read_bytes(), self.folder / "plain"))
            rate, floor = (len(rows) / statistics.median(each) for each in (seconds, least))
            yield Result(
                f"tokenize/write/{name}", round(rate), "samples/s", "the goal", 50_000,
                round(rate / 50_000, 3), 1.0,
            )  # fmt: skip
            shares = [one / other for one, other in zip(least, seconds, strict=True)]
            yield Result(
                f"tokenize/write-share/{name}", round(rate), "samples/s",
                "a copy, SHA-256 and a plain file", round(floor),
                round(statistics.median(shares), 3), 0,
            )  # fmt: skip

    def decode(self) -> Iterator[Result]:
        """Three tokenizers of the same pictures, and one."""
        places = [self._tokenizer("demo", f"demo{number}") for number in range(3)]
        pairs = [
            (self._engine_seconds(places[:1]), self._engine_seconds(places))
            for _ in range(self.options.repeats)
        ]
        one, three = (BLOCK_SAMPLES / statistics.median(each) for each in zip(*pairs, strict=True))
        ratio = statistics.median(three / one for one, three in pairs)
        yield Result(
            "tokenize/three-at-once", round(three, 1), "samples/s", "one of the three",
            round(one, 1), round(ratio, 3), 3.0, True,
        )  # fmt: skip

    def _tokenizer(self, network: str, name: str) -> Path:
        """A folder with random weights."""
        folder = self.folder / "tokenizers" / name
        if not folder.exists():
            size, shape = _NETWORKS[network]
            torch.manual_seed(0)
            config = AutoencoderConfig(channels=3, size=size, **shape)
            VQTokenizer(modality("rgb"), size, shape["patch"], VQAutoencoder(config), name).save(
                folder
            )
        return folder

    def _engine_seconds(self, places: Sequence[Path], share: int = 1) -> float:
        """For each block, once it runs."""
        corpus = self.corpus(share)
        steps = [TokenizeStep(each, _CROPS, _MAX_SIDE) for each in places]
        plan = plan_wave(corpus, steps, relabel=True)
        meter = Meter(count_blocks(plan))
        with ray_session(cpus=2):
            Engine(plan, meter.note).run()
        for step in plan.steps.values():  # the next run would find it done
            for writer in step.writers.values():
                shutil.rmtree(Path(corpus.url) / writer.folder)
        return meter.cost.seconds * len(places)

    def _loop_seconds(self, place: Path, share: int) -> float:
        """For as many pictures as a block has, in this process."""
        network = registry.load(place).network
        size = network.config.size
        keys, payloads = self._payloads(share)
        started = time.perf_counter()
        for key, payload in zip(keys, payloads, strict=True):
            with Image.open(io.BytesIO(payload)) as opened:
                image = opened.convert("RGB")
            crops = []
            for top, left, height, width, flip in crop_settings(
                key, image.height, image.width, _CROPS
            ).tolist():
                crop = image.crop((left, top, left + width, top + height))
                crop = crop.resize((size, size), Image.Resampling.BICUBIC)
                crops.append(np.asarray(crop)[:, :: -1 if flip else 1])
            values = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 127.5 - 1
            with torch.inference_mode():
                network.tokenize(values).numpy().astype(np.int16)
        return BLOCK_SAMPLES * (time.perf_counter() - started) / len(keys)

    def _payloads(self, share: int) -> tuple[list[str], list[bytes]]:
        shards = [self.corpus(share).shard("rgb", index) for index in range(4)]
        keys = [key for each in shards for key in each.keys]
        return keys, [bytes(each.payload(row)) for each in shards for row in range(len(each.keys))]


def _least_seconds(data: bytes, place: Path) -> float:
    """For one copy of a shard's bytes, their digest, and a file of them, whole on the disk."""
    place.unlink(missing_ok=True)
    started = time.perf_counter()
    copied = bytearray(data)
    hashlib.sha256(copied).hexdigest()
    with place.open("wb") as file:
        file.write(copied)
        file.flush()
        os.fsync(file.fileno())
    return time.perf_counter() - started


def _faster(name: str, pairs: Sequence[tuple[float, float]], baseline: str, goal: float) -> Result:
    other, value = (BLOCK_SAMPLES / statistics.median(each) for each in zip(*pairs, strict=True))
    ratio = statistics.median(loop / engine for loop, engine in pairs)
    return Result(
        name, round(value, 1), "samples/s", baseline, round(other, 1), round(ratio, 3), goal
    )


def main() -> None:
    """Print the results."""
    options = tyro.cli(Options, description=__doc__)
    with tempfile.TemporaryDirectory() as folder:
        show_parts(Bench(options, Path(folder)), options.only, options.json)


if __name__ == "__main__":
    main()
