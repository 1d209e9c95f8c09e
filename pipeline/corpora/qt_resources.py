"""Qt resource archives (`.rcc`): files of a Qt program, each plain, deflated or Zstandard.

Layout, all numbers big-endian: a header with the offsets of three tables; a tree of 22-byte entries
(14 before version 2), folders pointing at their first child; names in UTF-16; sizes and contents.
"""

import struct
import zlib
from collections.abc import Iterator

import zstandard

from fourmill.manifests.errors import SourceError

_DEFLATED, _FOLDER, _ZSTANDARD = 1, 2, 4
MAX_FILE_BYTES = 64_000_000


class QtResources:
    """An archive in memory.

    Raises:
        SourceError: it is not such an archive.
    """

    def __init__(self, data: bytes) -> None:
        if data[:4] != b"qres":
            raise SourceError("not a Qt resource archive: it does not begin with 'qres'")
        self._data = data
        version, self._tree, self._contents, self._names = struct.unpack_from(">4I", data, 4)
        self._entry_bytes = 14 if version < 2 else 22
        self._files = dict(self._walk(0, "", 0))

    def names(self) -> list[str]:
        """Paths of all files, in the archive's order."""
        return list(self._files)

    def read(self, name: str) -> bytes:
        """A file's content."""
        offset, flags = self._files[name]
        start = self._contents + offset
        (size,) = struct.unpack_from(">I", self._data, start)
        content = self._data[start + 4 : start + 4 + size]
        if flags & _DEFLATED:
            return zlib.decompressobj().decompress(content[4:], MAX_FILE_BYTES)
        if flags & _ZSTANDARD:
            return zstandard.ZstdDecompressor().decompress(content, max_output_size=MAX_FILE_BYTES)
        return content

    def _walk(self, index: int, folder: str, depth: int) -> Iterator[tuple[str, tuple[int, int]]]:
        at = self._tree + index * self._entry_bytes
        name_offset, flags = struct.unpack_from(">IH", self._data, at)
        path = f"{folder}/{self._name(name_offset)}".lstrip("/") if index else ""
        if flags & _FOLDER:
            if depth > 32:
                raise SourceError("a Qt resource archive whose folders contain themselves")
            count, first = struct.unpack_from(">II", self._data, at + 6)
            for child in range(first, first + count):
                yield from self._walk(child, path, depth + 1)
        else:
            yield path, (struct.unpack_from(">I", self._data, at + 10)[0], flags)

    def _name(self, offset: int) -> str:
        at = self._names + offset
        (length,) = struct.unpack_from(">H", self._data, at)
        return self._data[at + 6 : at + 6 + 2 * length].decode("utf-16-be")
