"""Members of varying sizes: pictures, and sequences of vectors."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float16, Int8
from numpy.typing import NDArray

from fourmill.manifests.errors import SampleError
from fourmill.manifests.labels import decode_label
from fourmill.manifests.modalities import Modality
from fourmill.manifests.packing import BLOCK, member_offsets
from fourmill.train.arrays import Files, Numbers, Places

_OFFSETS = 4096  # shards whose members' places are kept


class Members:
    """The bytes of single members of a version's shards."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self._offsets = lru_cache(_OFFSETS)(self._find_offsets)

    def opened(self, places: Places, slots: Numbers) -> Callable[[int], bytes]:
        """What gives the bytes of a slot's member; their files are opened now.

        Raises:
            ShardError: a file is missing, or not what the manifest says.
            StoreError: the store refuses, or cannot be reached.
        """
        files = {each: self.files.open(each) for each in np.unique(places.shard[slots]).tolist()}

        def payload(slot: int) -> bytes:
            shard, local = int(places.shard[slot]), int(places.local[slot])
            starts, sizes = self._offsets(shard)
            start = int(starts[local]) + BLOCK
            return files[shard][start : start + int(sizes[local])].tobytes()

        return payload

    def _find_offsets(self, shard: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        rows = self.files.rows
        sizes = rows.dataset.member_sizes(self.files.modality, int(rows.shards[shard]))
        return member_offsets(sizes), sizes


class Vectors:
    """Sequences of vectors, such as `t5_caption`: inputs that no tokenizer has seen."""

    def __init__(self, modality: Modality, files: Files) -> None:
        self.modality = modality
        self.files = files
        self._members = Members(files)
        self._encoding = files.rows.dataset.modalities[modality.name].encoding

    def read(
        self, places: Places
    ) -> tuple[
        Int8[np.ndarray, "batch length"],
        Float16[np.ndarray, "batch length channels"],
        Bool[np.ndarray, " batch"],
    ]:
        """The sequence of each row.

        Returns:
            1 for each vector, the vectors, and whether the row has a label.

        Raises:
            ShardError: a file is missing or not what the manifest says, or a sequence cannot be
                read, or has more or other vectors than the modality.
            StoreError: the store refuses, or cannot be reached.
        """
        count, length, channels = len(places.rows), self.modality.max_tokens, self.modality.channels
        present = np.zeros((count, length), np.int8)
        vectors = np.zeros((count, length, channels), np.float16)
        valid = self.files.valid(places.rows)
        slots = np.flatnonzero(valid)
        payload = self._members.opened(places, slots)
        for slot in slots.tolist():
            try:
                found = np.asarray(decode_label(self.modality, payload(slot), self._encoding))
                vectors[slot, : len(found)] = found
                present[slot, : len(found)] = 1
            except (SampleError, ValueError) as error:
                what = f"sample {places.local[slot]}: {error}"
                raise self.files.broken(int(places.shard[slot]), what) from error
        return present, vectors, valid
