"""Token shards: read as arrays and written whole, beside one sample at a time.

    python benchmarks/shards.py [--json] [--samples 2000] [--shards 8]

Reading: a dataset is opened and every token is touched, once in the mapped shards, once through the
`webdataset` library, which decodes the same members of the same files. The largest token is found
in about the time that memory takes; a sum takes NumPy longer than reading does, and is shown beside
it to say so. Writing: the
bytes of a shard are made, once whole, once with one `tarfile` member a sample; and a shard is
committed, which besides hashes it and waits until the disk has it.
"""

import io
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import tyro
import webdataset
from numpy.typing import NDArray
from results import Result, show

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.modalities import Kind, Modality
from fourmill.manifests.packing import pack_array
from fourmill.manifests.snapshots import Producer

Operation: TypeAlias = Callable[[Any], Any]

CROPS = 10
TOKENS = 196


@dataclass(frozen=True)
class Options:
    """How much to read and write.

    Attributes:
        samples: in a shard.
        shards: that are read.
        repeats: the best of so many runs counts, of either side.
        json: print one JSON object a line instead of a table.
    """

    samples: int = 2000
    shards: int = 8
    repeats: int = 3
    json: bool = False


def run(options: Options, folder: Path) -> Iterator[Result]:
    """All results, in a folder with nothing else in it."""
    for name, shape in (("crops", (CROPS, TOKENS)), ("whole", (TOKENS,))):
        arrays = [
            np.random.default_rng(seed)
            .integers(0, 16_384, (options.samples, *shape))
            .astype(np.int16)
            for seed in range(options.shards)
        ]
        yield from _reading(name, arrays, options, folder / name)
        yield from _writing(name, arrays[0], options, folder / name)


def _reading(
    name: str, arrays: list[NDArray[np.int16]], options: Options, folder: Path
) -> Iterator[Result]:
    definition = Modality("tokens", Kind.TOKENS, "tokens", "npy")
    dataset = Dataset.open(str(folder), create=True)
    writer = dataset.writer(definition, Producer(name="bench", version="1"), {}, len(arrays))
    for shard, array in enumerate(arrays):
        writer.commit(shard, _keys(len(array), shard), array=array)
    dataset.publish([writer.finish()], "bench")
    urls = f"{folder}/tokens/shard-{{000000..{len(arrays) - 1:06d}}}.tar"
    for operation, goal in ((np.max, 100), (np.sum, 0)):

        def as_arrays(touch: Operation = operation) -> list[int]:
            return [int(touch(each)) for each in Dataset.open(str(folder)).tokens("tokens")]

        def by_webdataset(touch: Operation = operation) -> list[int]:
            samples = webdataset.WebDataset(urls, shardshuffle=False).decode()
            return [int(touch(sample["npy"])) for sample in samples]

        expected = int(operation(np.stack(arrays)))
        assert operation(as_arrays()) == operation(by_webdataset()) == expected
        seconds = [_best(read, options.repeats) for read in (as_arrays, by_webdataset)]
        samples = options.samples * options.shards
        label = f"shards/read-{operation.__name__}/{name}"
        yield _result(label, samples, seconds, "webdataset", goal=goal)


def _writing(
    name: str, array: NDArray[np.int16], options: Options, folder: Path
) -> Iterator[Result]:
    keys = _keys(len(array), 0)
    definition = Modality("again", Kind.TOKENS, "again", "npy")
    dataset = Dataset.open(str(folder))
    writer = dataset.writer(definition, Producer(name="bench", version="1"), {}, 1)
    assert bytes(pack_array(keys, "npy", array)) == _by_tarfile(keys, array)
    whole = _best(lambda: pack_array(keys, "npy", array), options.repeats)
    commit = _best(lambda: writer.commit(0, keys, array=array), options.repeats)
    one_by_one = _best(lambda: _by_tarfile(keys, array), options.repeats)
    yield _result(f"shards/write/{name}", len(keys), [whole, one_by_one], "tarfile", goal=10)
    yield _result(f"shards/commit/{name}", len(keys), [commit, one_by_one], "tarfile", goal=0)


def _by_tarfile(keys: list[str], array: NDArray[np.int16]) -> bytes:
    """The same archive, member by member, in memory."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for key, row in zip(keys, array, strict=True):
            member = io.BytesIO()
            np.save(member, row)
            info = tarfile.TarInfo(f"{key}.npy")
            info.size = member.tell()
            member.seek(0)
            archive.addfile(info, member)
    return stream.getvalue()


def _keys(count: int, shard: int) -> list[str]:
    return [f"{shard:06d}-{row:06d}" for row in range(count)]


def _best(work: Callable[[], object], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def _result(name: str, samples: int, seconds: list[float], baseline: str, goal: float) -> Result:
    value, other = (samples / each for each in seconds)
    return Result(
        name, round(value), "samples/s", baseline, round(other), round(value / other, 1), goal
    )


def main() -> None:
    """Print the results."""
    options = tyro.cli(Options, description=__doc__)
    with tempfile.TemporaryDirectory() as folder:
        for each in run(options, Path(folder)):
            show(each, options.json)


if __name__ == "__main__":
    main()
