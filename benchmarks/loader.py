"""The loader, stage by stage, beside webdataset and bare JPEG decoding.

    python benchmarks/loader.py [--json] [--only tokens pixels] [--samples 40000]

Tokens: eight modalities of 196 tokens lie in local shards and are read shuffled over all of them,
each sample once, in batches; vocabularies are checked. `first-epoch` opens the loader anew. The
`webdataset` library reads the same eight tars zipped, sample by sample, without shuffling, which is
the least that it can do. Pixels: one crop of stored JPEG images, where half of the samples need
them, and those are counted; beside the same by Pillow, and decoding to an array alone. Of the
stages, each is named with what it would reach alone, and the one that bounds with that word.

All figures are per second of CPU time of this process, not of the clock; all decode in one thread.
"""

import io
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import skimage.data
import torch
import tyro
import webdataset
from numpy.typing import NDArray
from PIL import Image
from results import Result, show_parts

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.modalities import modality, token_modality
from fourmill.manifests.snapshots import Producer
from fourmill.tokenize.crops import crop_settings
from fourmill.train.data import domains_of
from fourmill.train.domains import Domains
from fourmill.train.loader import TokenLoader
from fourmill.train.order import Shuffle, hashed

_MODALITIES, _TOKENS, _VOCABULARY = 8, 196, 16_384
_GOAL = 100_000  # samples per CPU-second
_TIMES = 100  # as fast as webdataset
_WIDTH, _HEIGHT, _CROP, _PATCH, _CROPS = 512, 384, 224, 16, 10
_PICTURES = 32  # of a batch
_PART_OF_DECODING = 0.8


@dataclass(frozen=True)
class Options:
    """How much to measure.

    Attributes:
        only: these parts.
        samples: of tokens.
        shards: that they lie in.
        batch: samples of a batch.
        pictures: JPEG images of 512 x 384.
        repeats: the median counts.
        json: print one JSON object a line instead of a table.
    """

    only: tuple[str, ...] = ("tokens", "pixels")
    samples: int = 40_000
    shards: int = 40
    batch: int = 256
    pictures: int = 512
    repeats: int = 5
    json: bool = False


class Bench:
    """All parts, in a folder with nothing else in it."""

    def __init__(self, options: Options, folder: Path) -> None:
        self.options = options
        self.folder = folder

    def tokens(self) -> Iterator[Result]:
        """Eight modalities of tokens."""
        samples, size = self.options.samples, self.options.batch
        batches = samples // size
        loader = self._loader(self._tokens, self._domains, size)
        order = Shuffle(len(loader))

        def ordered() -> None:
            for number in range(batches):
                places = number * size + np.arange(size)
                order(places, hashed("order", 0, np.zeros_like(places)))

        def whole() -> None:
            for number in range(batches):
                loader.batch(number)

        def first_epoch() -> None:
            fresh = self._loader(self._tokens, self._domains, size)
            for number in range(batches):
                fresh.batch(number)

        def gathered() -> None:
            for number in range(batches):
                rows = shuffled[number * size : (number + 1) * size]
                for array in arrays:
                    array[rows]

        arrays = [
            np.concatenate(self._tokens.tokens(each.name)) for each in self._domains.modalities
        ]
        shuffled = np.random.default_rng(0).permutation(samples)
        seconds = self._seconds(
            {"order": ordered, "whole": whole, "first": first_epoch, "memory": gathered}
        )
        rates = {name: batches * size / each for name, each in seconds.items()}
        yield from _stages(
            "loader", {"order": seconds["order"], "tokens": seconds["whole"] - seconds["order"]},
            batches * size,
        )  # fmt: skip
        yield _result("loader/whole", rates["whole"], "arrays in memory", rates["memory"])
        yield _result("loader/whole", rates["whole"], "the goal", _GOAL, 1.0)
        yield _result("loader/first-epoch", rates["first"], "the goal", _GOAL, 1.0)
        other = samples / self._seconds({"web": self._by_webdataset}, repeats=1)["web"]
        yield _result("loader/whole", rates["whole"], "webdataset, zipped", other, _TIMES)

    def _by_webdataset(self) -> None:
        names = [each.name for each in self._domains.modalities]
        urls = [f"{self._tokens.url}/{name}/shard-{{000000..{self.options.shards - 1:06d}}}.tar"
                for name in names]  # fmt: skip
        streams = [webdataset.WebDataset(url, shardshuffle=False).decode() for url in urls]
        count = 0
        for parts in zip(*streams, strict=True):
            assert len({part["__key__"] for part in parts}) == 1
            [part["npy"] for part in parts]
            count += 1
        assert count == self.options.samples

    def pixels(self) -> Iterator[Result]:
        """Crops of JPEG images, where half of the samples need them, beside bare decoding."""
        count = self.options.pictures // 2

        def half(sample: torch.Tensor, visit: torch.Tensor) -> dict[str, torch.Tensor]:
            return {f"rgb@{_CROP}": sample % 2 == 0}

        dataset = self._pictures
        domains = domains_of(dataset.head, [f"rgb@{_CROP}"], None, _PATCH)
        grid = f"tok_a@{_CROP}"
        without = domains_of(dataset.head, [grid], [grid], _PATCH)
        loader = self._loader(dataset, domains, _PICTURES)
        token_loader = self._loader(dataset, without, _PICTURES)

        def read(one: TokenLoader) -> None:
            for first in range(0, self.options.pictures, _PICTURES):
                one.at(first + np.arange(_PICTURES), half)

        seconds = self._seconds({
            "whole": lambda: read(loader),
            "tokens": lambda: read(token_loader),
            "decoding": self._decode,
            "bare": self._decode_and_crop,
        })  # fmt: skip
        stages = {name: seconds[name] for name in ("tokens", "decoding")}
        stages["cropping"] = max(1e-9, seconds["whole"] - sum(stages.values()))
        yield from _stages("loader/rgb", stages, count)
        rate = count / seconds["whole"]
        yield _result("loader/rgb", rate, "decoding alone", count / seconds["decoding"])
        yield _result("loader/rgb", rate, "Pillow, bare", count / seconds["bare"],
                      _PART_OF_DECODING)  # fmt: skip

    @cached_property
    def _domains(self) -> Domains:
        return Domains.of(
            token_modality(name, _CROP, _PATCH, _VOCABULARY) for name in "abcdefgh"[:_MODALITIES]
        )  # fmt: skip

    @cached_property
    def _tokens(self) -> Dataset:
        options = self.options
        dataset = Dataset.open(str(self.folder / "tokens"), create=True)
        each = options.samples // options.shards
        entries = []
        for number, definition in enumerate(self._domains.modalities):
            draws = np.random.default_rng(number)
            writer = dataset.writer(
                definition, Producer(name="bench", version="1"), {}, options.shards
            )
            for shard in range(options.shards):
                keys = [f"{shard:06d}-{row:06d}" for row in range(each)]
                array = draws.integers(0, _VOCABULARY, (each, _TOKENS)).astype(np.int16)
                writer.commit(shard, keys, array=array)
            entries.append(writer.finish())
        dataset.publish(entries, "bench", {"train": [(0, options.shards)]})
        return dataset

    @cached_property
    def _pictures(self) -> Dataset:
        """Photographs, cut and mirrored to differ, as JPEG, with ten crops each."""
        count = self.options.pictures
        keys = [f"{row:06d}" for row in range(count)]
        photos = [getattr(skimage.data, name)() for name in ("astronaut", "chelsea", "coffee")]
        images = []
        for row in range(count):
            photo = Image.fromarray(np.roll(photos[row % 3], row, (0, 1)))
            stream = io.BytesIO()
            photo.resize((_WIDTH, _HEIGHT), Image.Resampling.BICUBIC).save(stream, "JPEG")
            images.append(stream.getvalue())
        settings = np.stack([crop_settings(key, _HEIGHT, _WIDTH, _CROPS) for key in keys])
        tokens = np.zeros((count, _CROPS, _TOKENS), np.int16)
        dataset = Dataset.open(str(self.folder / "pictures"), create=True)
        grid = token_modality("a", _CROP, _PATCH, _VOCABULARY)
        entries = []
        for definition, values in (
            (modality("rgb"), {"payloads": images}),
            (modality("crop_settings"), {"array": settings}),
            (grid, {"array": tokens}),
        ):
            writer = dataset.writer(definition, Producer(name="bench", version="1"), {}, 1)
            writer.commit(0, keys, **values)
            entries.append(writer.finish())
        dataset.publish(entries, "bench", {"train": [(0, 1)]})
        return dataset

    def _needed(self) -> Iterator[tuple[bytes, NDArray[np.int64]]]:
        """Half of the pictures, with one crop of each."""
        images = self._pictures.shard("rgb", 0)
        settings = self._pictures.shard("crop_settings", 0).array()
        for row in range(0, self.options.pictures, 2):
            yield images.payload(row), settings[row, row % _CROPS]

    def _decode(self) -> None:
        for payload, _ in self._needed():
            with Image.open(io.BytesIO(payload)) as image:
                np.asarray(image)

    def _decode_and_crop(self) -> None:
        for payload, (top, left, height, width, flip) in self._needed():
            with Image.open(io.BytesIO(payload)) as opened:
                image = opened.convert("RGB")
            cut = image.crop((left, top, left + width, top + height))
            cut = cut.resize((_CROP, _CROP), Image.Resampling.BICUBIC)
            np.ascontiguousarray(np.asarray(cut)[:, :: -1 if flip else 1])

    def _loader(self, dataset: Dataset, domains: Domains, batch: int) -> TokenLoader:
        return TokenLoader(dataset, dataset.head, domains, "train", batch, cache_bytes=0, threads=1)

    def _seconds(
        self, works: Mapping[str, Callable[[], object]], repeats: int | None = None
    ) -> dict[str, float]:
        """CPU time of this process that each takes; they take turns."""
        seconds: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(repeats or self.options.repeats):
            for name, work in works.items():
                began = time.process_time()
                work()
                seconds[name].append(time.process_time() - began)
        return {name: statistics.median(each) for name, each in seconds.items()}


def _stages(name: str, seconds: Mapping[str, float], samples: int) -> Iterator[Result]:
    """What each stage alone would reach, and its share of the whole."""
    whole = sum(seconds.values())
    slowest = max(seconds, key=seconds.__getitem__)
    for stage, each in seconds.items():
        yield Result(
            f"{name}/{stage}", round(samples / each), "samples/CPU-s",
            "the whole, which it bounds" if stage == slowest else "the whole",
            round(samples / whole), round(whole / each, 3), 0,
        )  # fmt: skip


def _result(name: str, value: float, baseline: str, other: float, goal: float = 0) -> Result:
    return Result(
        name, round(value), "samples/CPU-s", baseline, round(other), round(value / other, 3), goal
    )


def main() -> None:
    """Print the results."""
    options = tyro.cli(Options, description=__doc__)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        show_parts(Bench(options, Path(folder)), options.only, options.json)


if __name__ == "__main__":
    main()
