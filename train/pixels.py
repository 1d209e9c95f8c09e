"""RGB pixels as inputs: crops of stored images, decoded where they are needed and while it pays."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from fourmill.manifests.errors import SampleError
from fourmill.manifests.labels import decode_image
from fourmill.manifests.modalities import Kind
from fourmill.tokenize.crops import crop_dense
from fourmill.train.arrays import Column, Files, Numbers, Places
from fourmill.train.members import Members

Settings = Int64[np.ndarray, "crops 5"]
Crops = UInt8[np.ndarray, "crops size size 3"]

_UNKNOWN, _KEPT, _BROKEN = range(3)


class PixelReader:
    """Cuts crops from stored images.

    Of the first rows, as many as `cache_bytes` hold, all crops are kept once one is asked for; of
    others only the crop that is asked for is cut, each time anew.

    Args:
        images: files of `rgb`.
        settings: `crop_settings` of the same rows.
        size: pixels of the side of a crop.
        threads: that decode.
    """

    def __init__(
        self, images: Files, settings: Column, size: int, cache_bytes: int, threads: int
    ) -> None:
        self._images = Members(images)
        self._settings = settings
        self._size = size
        shape = (settings.num_crops, size, size, 3)
        kept = min(len(images.rows), cache_bytes // int(np.prod(shape)))
        self._kept = np.empty((kept, *shape), np.uint8)  # takes memory where it is written to
        self._state = np.zeros(kept, np.uint8)
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="pixels")

    @property
    def num_crops(self) -> int:
        """Crops of each sample."""
        return self._settings.num_crops

    @property
    def files(self) -> tuple[Files, Files]:
        """What it reads."""
        return self._images.files, self._settings.files

    def read(
        self, places: Places, crop: Numbers, wanted: Bool[np.ndarray, " batch"] | None = None
    ) -> tuple[UInt8[np.ndarray, "batch size size 3"], Bool[np.ndarray, " batch"]]:
        """One crop of each row; zeros where none is wanted, or where there is none.

        Returns:
            Pixels, and whether each row has any, so far as is known without decoding it.

        Raises:
            ShardError: a file is missing, or not what the manifest says.
            StoreError: the store refuses, or cannot be reached.
        """
        pixels = np.zeros((len(crop), self._size, self._size, 3), np.uint8)
        valid = self._images.files.valid(places.rows)
        slots = np.flatnonzero(valid if wanted is None else valid & wanted)
        is_kept = places.rows[slots] < len(self._kept)
        kept, other = slots[is_kept], slots[~is_kept]
        payload = self._images.opened(places, slots)

        def cut(slot: int, settings: Settings, out: Crops) -> bool:
            return self._cut(payload(slot), settings, out)

        def keep(slot: int) -> None:
            row, shard = int(places.rows[slot]), int(places.shard[slot])
            settings = self._settings.whole(shard)[places.local[slot]]
            self._state[row] = _KEPT if cut(slot, settings, self._kept[row]) else _BROKEN

        def cut_one(slot: int) -> None:
            valid[slot] = cut(slot, settings[slot : slot + 1], pixels[slot : slot + 1])

        rows = places.rows[kept]
        self._share_out(keep, kept[self._state[rows] == _UNKNOWN])
        pixels[kept] = self._kept[rows, crop[kept]]
        valid[kept] = self._state[rows] == _KEPT
        settings = self._settings.read(places, crop)
        self._share_out(cut_one, other)
        return pixels, valid

    def _share_out(self, work: Callable[[int], None], slots: Numbers) -> None:
        """Work through slots in all threads, each a share of them: switching costs as cropping."""

        def work_through(share: Numbers) -> None:
            for slot in share.tolist():
                work(slot)

        shares = [slots[each :: self._threads] for each in range(self._threads)]
        for done in [self._pool.submit(work_through, share) for share in shares if share.size]:
            done.result()

    def _cut(self, payload: bytes, settings: Settings, out: Crops) -> bool:
        """Decode an image and cut crops; whether it could be read."""
        try:
            image = decode_image(payload)
        except SampleError:  # recorded when the image was ingested or labelled
            out[:] = 0
            return False
        out[:] = crop_dense(image, Kind.IMAGE, settings, image.shape[:2], self._size)
        return True
