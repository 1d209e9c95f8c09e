"""RGB pixels as inputs: the crops of a sample, decoded once and kept as bytes in memory."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Bool, Int64, UInt8
from numpy.typing import NDArray

from fourmill.manifests.errors import SampleError
from fourmill.manifests.labels import decode_image
from fourmill.manifests.modalities import Kind
from fourmill.manifests.shards import Shard
from fourmill.tokenize.crops import crop_dense

Crops = UInt8[np.ndarray, "crops size size 3"]


class PixelReader:
    """Cuts crops from stored images, and keeps them until `cache_bytes` are used up.

    Args:
        images: shards of `rgb`; `crop_settings` those of the same rows.
        starts: row at which each shard begins, and the number of rows.
        size: pixels of the side of a crop.
    """

    def __init__(
        self,
        images: Sequence[Shard],
        crop_settings: Sequence[Shard],
        starts: NDArray[np.int64],
        size: int,
        cache_bytes: int,
        threads: int,
    ) -> None:
        self._images = images
        self._settings = crop_settings
        self._starts = starts
        self._size = size
        self._free = cache_bytes
        self._cache: dict[int, Crops | None] = {}
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="pixels")

    def read(
        self, rows: Int64[np.ndarray, " batch"], crop: Int64[np.ndarray, " batch"]
    ) -> tuple[UInt8[np.ndarray, "batch size size 3"], Bool[np.ndarray, " batch"]]:
        """One crop of each row, and whether the image could be read; zeros where it could not."""
        wanted = rows.tolist()
        missing = [row for row in dict.fromkeys(wanted) if row not in self._cache]
        fresh = dict(zip(missing, self._pool.map(self._decode, missing), strict=True))
        for row, crops in fresh.items():
            cost = 0 if crops is None else crops.nbytes
            if cost <= self._free:
                self._free -= cost
                self._cache[row] = crops
        pixels = np.zeros((len(wanted), self._size, self._size, 3), np.uint8)
        valid = np.zeros(len(wanted), bool)
        for place, (row, index) in enumerate(zip(wanted, crop.tolist(), strict=True)):
            crops = fresh[row] if row in fresh else self._cache[row]
            if crops is not None:
                pixels[place], valid[place] = crops[index], True
        return pixels, valid

    def _decode(self, row: int) -> Crops | None:
        shard = int(np.searchsorted(self._starts, row, side="right")) - 1
        local = row - int(self._starts[shard])
        data = self._images[shard].valid_payload(local)
        if data is None:
            return None
        try:
            image = decode_image(data)
        except SampleError:  # recorded when the image was ingested or labelled
            return None
        settings = np.asarray(self._settings[shard].array()[local])
        return crop_dense(image, Kind.IMAGE, settings, image.shape[:2], self._size)
