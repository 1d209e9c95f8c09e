"""Memory that a worker has used stays with it."""

import ctypes
from contextlib import suppress
from functools import lru_cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameters of mallopt, as malloc.h numbers them
_KEPT_BYTES = 256 << 20
_LARGEST_KEPT_BYTES = 64 << 20  # larger arrays are few, and given back one by one


@lru_cache(maxsize=1)
def keep_memory() -> None:
    """Have this process keep up to 256 MiB that it frees, for what it needs next.

    The C library gives a freed block of pictures, or the activations of a batch, back to the
    system, and the next one is mapped in again page by page: a quarter of the time of decoding, and
    a sixth of a small network's on a CPU. What is kept was needed at once before, so the most that
    a worker ever takes does not grow.

    It does nothing where the C library is not glibc.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES)
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
