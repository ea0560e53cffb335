"""Whether the tags of a DM3 or DM4 file are what they say, before a reader that trusts their counts sees them.

A count in a tag may be larger than the file, of items of no size, or negative, which leads a reader back to what it has
read: memory would fill and loops would not end. Here every tag is passed over in the way in which RosettaSciIO reads
it, and nothing is kept.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, BinaryIO

from tumble.errors import InputFileError

if TYPE_CHECKING:
    from tumble.micrograph.frames import FrameSource

__all__ = ["check_dm_tags"]

#: Groups within groups; DigitalMicrograph writes some ten.
MAX_DEPTH = 100

#: Items of one array beside the pixels, which a reader takes one by one into memory.
MAX_ITEMS = 2**24

#: Fields of a structure, and bytes of a text.
MAX_FIELDS, MAX_TEXT = 2**12, 2**20

#: Bytes of the values of tags, by their code.
_BYTES = {2: 2, 3: 4, 4: 2, 5: 4, 6: 4, 7: 8, 8: 1, 9: 1, 10: 1, 11: 8, 12: 8}
_STRUCT, _TEXT, _ARRAY = 15, 18, 20
_GROUP_TAG, _DATA_TAG = 20, 21


class _BadTag(Exception):
    """What is wrong with a tag."""


def check_dm_tags(source: FrameSource) -> None:
    """Pass over all tags of a file.

    Parameters
    ----------
    source : FrameSource
        A DM3 or DM4 file.

    Raises
    ------
    InputFileError
        A tag cannot be what it says.
    """
    with source.file.open("rb") as file:
        try:
            _Tags(file, source.file.stat().st_size).check()
        except _BadTag as error:
            raise InputFileError(
                f"{source.name}: {error}; the file is damaged. Copy it again, or export it as TIFF."
            ) from error


class _Tags:
    """The tags of an open file, one after the other."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size = file, size
        self.wide = False

    def check(self) -> None:
        (version,) = self._read(">l")
        if version not in (3, 4):
            raise _BadTag(f"says that it is of version {version}, but versions 3 and 4 are known")
        self.wide = version == 4
        self._number()
        self._read(">l")
        self._group("", 0, nested=False)

    def _read(self, layout: str) -> tuple[int, ...]:
        content = self.file.read(struct.calcsize(layout))
        if len(content) < struct.calcsize(layout):
            raise _BadTag(f"ends within a tag, after {self.size} bytes")
        return struct.unpack(layout, content)

    def _number(self) -> int:
        return self._read(">q" if self.wide else ">l")[0]

    def _count(self, what: str, limit: int | None = None) -> int:
        """Read a number of things that are still to come in the file, so that there are no more of them than bytes."""
        n, left = self._number(), self.size - self.file.tell()
        if not 0 <= n <= (left if limit is None else min(left, limit)):
            raise _BadTag(f"a tag says that it has {n} {what}, where {left} bytes follow")
        return n

    def _skip(self, n_bytes: int) -> None:
        if n_bytes > self.size - self.file.tell():
            raise _BadTag(f"ends within a tag, after {self.size} bytes")
        self.file.seek(n_bytes, 1)

    def _group(self, name: str, depth: int, *, nested: bool = True) -> None:
        if depth > MAX_DEPTH:
            raise _BadTag(f"has groups of tags within groups, more than {MAX_DEPTH} deep")
        self._read(">bb")
        if nested and self.wide:
            self._number()  # bytes of the group, which readers do not use
        for _ in range(self._count("tags")):
            kind, length = self._read(">bh")
            if length < 0:
                raise _BadTag(f"a tag says that its name has {length} characters")
            inner = self.file.read(length).decode("latin-1").replace(".", "")
            if kind == _GROUP_TAG:
                self._group(inner, depth + 1)
            elif kind == _DATA_TAG:
                self._data(pixels=name == "ImageData" and inner == "Data")
            else:
                raise _BadTag(f"has a tag of the unknown kind {kind}")

    def _data(self, *, pixels: bool) -> None:
        if self.wide:
            self._number()
        if self.file.read(4) != b"%%%%":
            raise _BadTag("has a tag without its mark")
        n_info = self._number()
        code = self._number()
        if n_info == 1:
            self._skip(_bytes_of(code))
        elif n_info == 2 and code == _TEXT:
            self._skip(self._count("characters", MAX_TEXT))
        elif n_info == 3 and code == _ARRAY:
            each = _bytes_of(self._number())
            self._skip(each * self._count("items", None if pixels else MAX_ITEMS))
        elif n_info > 3 and code == _ARRAY and not pixels:
            self._array_of_parts()
        elif n_info > 3 and code == _STRUCT:
            self._skip(self._structure())
        else:
            raise _BadTag(f"has a tag of {n_info} numbers of the unknown kind {code}")

    def _array_of_parts(self) -> None:
        code = self._number()
        if code == _STRUCT:
            each = self._structure()
        elif code == _TEXT:
            each = self._count("characters", MAX_TEXT)
        else:  # also arrays of arrays, which RosettaSciIO does not read
            raise _BadTag(f"has an array of the unknown kind {code}")
        self._skip(each * self._count("items", MAX_ITEMS))

    def _structure(self) -> int:
        """Return the bytes of a structure from the codes of its fields."""
        self._number()
        n_bytes = 0
        for _ in range(self._count("fields", MAX_FIELDS)):
            self._number()
            n_bytes += _bytes_of(self._number())
        return n_bytes


def _bytes_of(code: int) -> int:
    if code not in _BYTES:
        raise _BadTag(f"has a value of the unknown kind {code}")
    return _BYTES[code]
