"""An index of a dataset's features, and the nearest of its samples.

FOLDER/index.json      what it is of: the model, the feature, the inputs, the snapshot; what failed
FOLDER/keys.parquet    the samples' keys, in the order of the vectors
FOLDER/vectors.npy     float32 [samples, width], centred, of length 1
FOLDER/means.npy       float32 [kinds, width], of vectors by what they are predicted from
FOLDER/centroids.npy   float32 [lists, width], where it is searched by cells (an inverted file)
FOLDER/cells.npy       int64 [samples], the cell of each

FAISS searches it (Johnson et al. 2019). Nothing of FAISS's own is stored: arrays are all that is
read, so an index of anybody can be opened.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32, Int64
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from fourmill.manifests.errors import ConfigError, MissingPackageError
from fourmill.manifests.hashing import canonical_json
from fourmill.tokenize.folders import whole_folder

EXACT_UP_TO = 200_000
"""Vectors that are compared one by one, unless told otherwise; more are searched by cells."""

_ABOUT, _KEYS, _VECTORS, _MEANS = "index.json", "keys.parquet", "vectors.npy", "means.npy"
_CENTROIDS, _CELLS = "centroids.npy", "cells.npy"
_BLOCK = 65_536  # vectors that are read at once
_SAME = 1e-6  # scores that differ by less are equal: products round differently by their shapes


class Failed(BaseModel):
    """A sample that is not in an index because a label of it cannot be used: which, at what stage,
    and what was found and expected."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    stage: str
    reason: str


class About(BaseModel):
    """What an index is of.

    Attributes:
        model: digest of the weights and of what decodes the feature (`features.identity`).
        inputs: what the features were predicted from.
        snapshot: of the dataset at `root`; `split` is `None` for all of it.
        samples: vectors; `skipped` are samples that lack an input, `failed` those with one that
            cannot be used.
        width: numbers in a vector.
        lists: cells, 0 where every vector is compared.
        kinds: of inputs, whose mean vectors there are: names joined by `+`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    model: str
    feature: str
    inputs: tuple[str, ...]
    root: str
    snapshot: str
    split: str | None
    samples: int = 0
    skipped: int = 0
    failed: tuple[Failed, ...] = ()
    width: int = 0
    lists: int = 0
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True)
class Nearest:
    """The samples nearest to some queries, the nearest first.

    Attributes:
        rows: of the index; -1 where there are no more.
        scores: cosines.
    """

    rows: Int64[np.ndarray, "queries k"]
    scores: Float32[np.ndarray, "queries k"]


class Index:
    """An index on disk.

    Raises:
        ConfigError: none is there, or it is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / _ABOUT).is_file():
            raise ConfigError(f"{folder}: no index here; `fourmill retrieve index` makes one")
        try:
            self.about = About.model_validate_json((folder / _ABOUT).read_bytes())
            self.keys: list[str] = pq.read_table(folder / _KEYS)["key"].to_pylist()
            self.vectors = self._array(_VECTORS, (self.about.samples, self.about.width), np.float32)
            kinds = self.about.kinds
            means = self._array(_MEANS, (len(kinds), self.about.width), np.float32)
            self.means: dict[str, NDArray[np.float32]] = dict(zip(kinds, means, strict=True))
            if self.about.lists:
                shape = (self.about.lists, self.about.width)
                self._centroids = self._array(_CENTROIDS, shape, np.float32)
                self._cells = self._array(_CELLS, (self.about.samples,), np.int64)
                # FAISS writes where they say, and does not look
                if not ((self._cells >= 0) & (self._cells < self.about.lists)).all():
                    raise ValueError(f"{_CELLS} names cells beyond the {self.about.lists}")
            if len(self.keys) != self.about.samples or None in self.keys:
                raise ValueError(f"{len(self.keys)} keys of {self.about.samples} samples")
            if kind_of(self.about.inputs) not in self.means:
                raise ValueError(f"{_MEANS} has no mean of {kind_of(self.about.inputs)}")
        except (OSError, ValueError, KeyError, ValidationError, pa.ArrowException) as error:
            raise ConfigError(f"{folder}: not a whole index ({error}): make it again") from error

    def mean(self, names: Sequence[str]) -> Float32[np.ndarray, " width"]:
        """Of vectors that are predicted from some inputs; of several the mean of theirs, and of
        inputs without one that of the index."""
        if kind_of(names) in self.means:
            return self.means[kind_of(names)]
        known = [self.means[name] for name in names if name in self.means]
        mean: NDArray[np.float32] = np.mean(
            known or [self.means[kind_of(self.about.inputs)]], axis=0, dtype=np.float32
        )
        return mean

    def search(self, queries: Float32[np.ndarray, "queries width"], k: int) -> Nearest:
        """The `k` samples with the highest cosine, if the index is not searched by cells; else of
        those in the nearest sixteenth of its cells.

        Raises:
            ConfigError: vectors of another width.
            MissingPackageError: FAISS is not installed.
        """
        if queries.shape[1] != self.about.width:
            raise ConfigError(
                f"{self.folder}: has vectors of {self.about.width} numbers, the query has "
                f"{queries.shape[1]}: it is of another feature"
            )
        scores, rows = self._faiss.search(np.ascontiguousarray(queries), min(k, len(self.keys)))
        return Nearest(rows, scores)

    def ranks(
        self, queries: Float32[np.ndarray, "queries width"], rows: Sequence[int]
    ) -> NDArray[np.float64]:
        """The place of each query's own sample among all, from 1; among equals the middle, so that
        an index of one vector again and again is as good as guessing. Exact in every index."""
        own = np.einsum("qc,qc->q", queries, self.vectors[np.asarray(rows)])[:, None]
        above, equal = np.zeros(len(queries)), np.zeros(len(queries))
        for start in range(0, len(self.vectors), _BLOCK):
            scores = queries @ self.vectors[start : start + _BLOCK].T
            above += (scores > own + _SAME).sum(1)
            equal += (np.abs(scores - own) <= _SAME).sum(1)
        return 1 + above + (equal - 1) / 2

    @cached_property
    def _faiss(self) -> Any:
        faiss = _import_faiss()
        flat = faiss.IndexFlatIP(self.about.width)
        if not self.about.lists:
            flat.add(np.ascontiguousarray(self.vectors))
            return flat
        flat.add(np.ascontiguousarray(self._centroids))
        cells = faiss.IndexIVFFlat(
            flat, self.about.width, self.about.lists, faiss.METRIC_INNER_PRODUCT
        )
        cells.is_trained = True
        cells.nprobe = max(1, self.about.lists // 16)
        for start in range(0, len(self.vectors), _BLOCK):
            block = np.ascontiguousarray(self.vectors[start : start + _BLOCK])
            place = np.ascontiguousarray(self._cells[start : start + _BLOCK])
            cells.add_core(len(block), faiss.swig_ptr(block), None, faiss.swig_ptr(place))
        self._quantizer = flat  # the other one points to it
        return cells

    def _array(self, name: str, shape: tuple[int, ...], dtype: type) -> NDArray[Any]:
        array: NDArray[Any] = np.load(self.folder / name, mmap_mode="r", allow_pickle=False)
        if array.shape != shape or array.dtype != dtype:
            raise ValueError(f"{name} is {array.dtype} {array.shape}, expected {shape}")
        return array


def build_index(
    folder: Path,
    about: About,
    vectors: Iterable[tuple[Sequence[str], Float32[np.ndarray, "batch width"]]],
    total: int,
    means: Mapping[str, Float32[np.ndarray, " width"]],
    lists: int | None = None,
    failed: Sequence[Failed] = (),
) -> Index:
    """Write an index; the folder is whole or not there, and one that is there is replaced.

    Args:
        about: counts and failures aside, which are filled in here.
        vectors: keys and centred vectors, some at a time; they are written as they come.
        total: samples, those that lack an input, or failed, included.
        means: of vectors before they were centred, by `kind_of` their inputs.
        lists: cells; 0 for none; by default none up to `EXACT_UP_TO` vectors, and then four times
            the root of their number.
        failed: looked at when all vectors have come.

    Raises:
        ConfigError: the folder holds something else, there are no vectors, or fewer than cells.
        MissingPackageError: FAISS is not installed.
    """
    refuse_other_folder(folder)
    if _cells_for(total, lists):
        _import_faiss()  # rather now than when all vectors are there
    with whole_folder(folder) as aside:
        keys: list[str] = []
        width = 0
        with (aside / _VECTORS).open("wb") as file:
            for names, batch in vectors:
                if not keys:
                    width = batch.shape[1]
                    _write_header(file, (0, width))
                keys += names
                file.write(np.ascontiguousarray(batch, "<f4").data)
            if not keys:
                raise ConfigError(
                    f"{about.root}: no sample of {about.split or 'the dataset'} has all of "
                    f"{', '.join(about.inputs)}: nothing to make an index of"
                )
            file.seek(0)
            _write_header(file, (len(keys), width))
        cells = _cells_for(len(keys), lists)
        pq.write_table(pa.table({"key": pa.array(keys, pa.string())}), aside / _KEYS)
        if cells:
            _write_cells(aside, cells)
        counted = about.model_copy(
            update={
                "samples": len(keys), "skipped": total - len(keys) - len(failed),
                "failed": tuple(failed), "width": width, "lists": cells, "kinds": tuple(means),
            }
        )  # fmt: skip
        np.save(aside / _MEANS, np.stack(list(means.values())).astype(np.float32))
        (aside / _ABOUT).write_bytes(canonical_json(counted.model_dump(mode="json")))
    return Index(folder)


def kind_of(inputs: Sequence[str]) -> str:
    """What vectors are predicted from, in one word."""
    return "+".join(sorted(inputs))


def refuse_other_folder(folder: Path) -> None:
    """Refuse to write an index where something else is.

    Raises:
        ConfigError: it is there.
    """
    if folder.exists() and not (folder / _ABOUT).is_file():
        raise ConfigError(f"{folder}: is there, and is no index: give another --out")


def _import_faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise MissingPackageError(
            "retrieval needs faiss: pip install 'fourmill[retrieval]'"
        ) from error
    return faiss


def _cells_for(samples: int, lists: int | None) -> int:
    """How many cells an index of so many samples gets."""
    if lists is None:
        return 0 if samples <= EXACT_UP_TO else round(4 * samples**0.5)
    if not 0 <= lists <= samples:
        raise ConfigError(f"--lists {lists}: expected 0 to {samples}, the samples there are")
    return lists


def _write_header(file: Any, shape: tuple[int, int]) -> None:
    """Of an array whose length may not be known yet: headers have room for any number of rows."""
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _write_cells(folder: Path, lists: int) -> None:
    faiss = _import_faiss()
    vectors = np.load(folder / _VECTORS, mmap_mode="r", allow_pickle=False)
    stride = max(1, len(vectors) // (256 * lists))  # more say no more about where cells are
    means = faiss.Kmeans(
        vectors.shape[1], lists, niter=10, seed=0, spherical=True, min_points_per_centroid=1
    )
    means.train(np.ascontiguousarray(vectors[::stride]))
    np.save(folder / _CENTROIDS, means.centroids)
    blocks = (vectors[start : start + _BLOCK] for start in range(0, len(vectors), _BLOCK))
    cells = [means.index.search(np.ascontiguousarray(each), 1)[1][:, 0] for each in blocks]
    np.save(folder / _CELLS, np.concatenate(cells))


@dataclass(frozen=True)
class Quality:
    """How well queries find their own sample.

    Attributes:
        queries: with a sample in the index; `samples` are all that it might have been.
        recall: share of queries whose sample is among the first 1, 5, 10.
        median_rank: of the own sample, from 1; guessing gives half of the samples.
    """

    queries: int
    samples: int
    recall: dict[int, float]
    median_rank: float


def quality(
    index: Index, queries: Iterator[tuple[Sequence[str], Float32[np.ndarray, "batch width"]]]
) -> Quality:
    """Recall and median rank of queries by the keys of the samples that they are of; those of
    samples that are not in the index are left out.

    Raises:
        ConfigError: none is in the index.
    """
    rows = {key: row for row, key in enumerate(index.keys)}
    found = []
    for keys, vectors in queries:
        there = [place for place, key in enumerate(keys) if key in rows]
        if there:
            found.append(index.ranks(vectors[there], [rows[keys[place]] for place in there]))
    if not found:
        raise ConfigError(f"{index.folder}: none of the queries is of a sample in the index")
    ranks = np.concatenate(found)
    recall = {k: float((ranks <= k).mean()) for k in (1, 5, 10)}
    return Quality(len(ranks), len(index.keys), recall, float(np.median(ranks)))
