"""DM3 and DM4 files that are made to fill the memory or to keep a reader busy for ever."""

from __future__ import annotations

import struct
import time

import numpy as np
import pytest
from helpers_formats import IMAGE, write_dm

from tumble.errors import InputFileError
from tumble.micrograph import read_micrograph

pytest.importorskip("rsciio")

#: Far more than any file, within the numbers of both versions.
HUGE = 2**31 - 1


class Tags:
    """Tags of one version of the format."""

    def __init__(self, version):
        self.version = version

    def numbers(self, *values):
        return struct.pack(f">{len(values)}{'q' if self.version == 4 else 'l'}", *values)

    def group(self, name, *tags, n=None):
        length = self.numbers(0) if self.version == 4 else b""
        head = struct.pack(">bh", 20, len(name)) + name
        return head + b"\x01\x00" + length + self.numbers(len(tags) if n is None else n) + b"".join(tags)

    def data(self, name, *info, content=b""):
        length = self.numbers(0) if self.version == 4 else b""
        return struct.pack(">bh", 21, len(name)) + name + length + b"%%%%" + self.numbers(*info) + content

    def file(self, *tags, n=None):
        content = b"\x01\x00" + self.numbers(len(tags) if n is None else n) + b"".join(tags)
        return struct.pack(">l", self.version) + self.numbers(len(content)) + struct.pack(">l", 1) + content


def nested(t, depth):
    tag = t.data(b"x", 1, 5, content=b"\x00" * 4)
    for _ in range(depth):
        tag = t.group(b"g", tag)
    return tag


def leading_back(t):
    length = len(t.data(b"Data", 3, 20, 10, 0))
    return t.data(b"Data", 3, 20, 10, -length)


HOSTILE = {
    "groups within groups": (lambda t: t.file(nested(t, 5000)), "more than 100 deep"),
    "tags without number": (lambda t: t.file(n=HUGE), "2147483647 tags"),
    "tags below none": (lambda t: t.file(n=-1), "-1 tags"),
    "items without number": (lambda t: t.file(t.data(b"a", 3, 20, 5, HUGE)), "2147483647 items"),
    # They take no byte of the file each, so that the end of the file would stop nobody.
    "structures of nothing": (lambda t: t.file(t.data(b"a", 5, 20, 15, 0, 0, HUGE)), "2147483647 items"),
    "texts of nothing": (lambda t: t.file(t.data(b"a", 4, 20, 18, 0, HUGE)), "2147483647 items"),
    "arrays of arrays": (lambda t: t.file(t.data(b"a", 6, 20, 20, 5, 0, HUGE)), "unknown kind 20"),
    "fields without number": (lambda t: t.file(t.data(b"a", 4, 15, 0, HUGE)), "2147483647 fields"),
    "a long text": (lambda t: t.file(t.data(b"a", 2, 18, HUGE)), "2147483647 characters"),
    # A step back of as many bytes as were read leads to the same tag again, and again.
    "pixels that lead back": (
        lambda t: t.file(t.group(b"ImageData", leading_back(t), n=2000) + bytes(4096)),
        "items, where",
    ),
    "a name below none": (lambda t: t.file(struct.pack(">bh", 21, -5)), "-5 characters"),
    "a value of no kind": (lambda t: t.file(t.data(b"a", 1, 99)), "unknown kind 99"),
    "a value that is an array": (lambda t: t.file(t.data(b"a", 1, 20)), "unknown kind 20"),
    "a tag of no kind": (lambda t: t.file(b"\x07\x00\x00"), "unknown kind 7"),
    "a tag of no numbers": (lambda t: t.file(t.data(b"a", 0, 0)), "0 numbers"),
    "no mark": (lambda t: t.file(struct.pack(">bh", 21, 0) + bytes(60)), "without its mark"),
    "an end": (lambda t: t.file(t.data(b"a", 1)), "ends within a tag"),
}


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_tags_are_one_clear_error_at_once(tmp_path, version, name):
    make, message = HOSTILE[name]
    path = tmp_path / f"a.dm{version}"
    path.write_bytes(make(Tags(version)))
    begun = time.monotonic()
    with pytest.raises(InputFileError, match=rf"a\.dm{version}: .*{message}.*damaged"):
        read_micrograph(path)
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("version", [3, 4])
def test_other_kinds_of_tags_are_passed_over(tmp_path, version):
    """What DigitalMicrograph writes beside the image: structures, arrays of them, texts, big and small numbers."""
    t = Tags(version)
    others = (
        t.data(b"struct", 7, 15, 0, 2, 0, 2, 0, 6, content=bytes(6)),
        t.data(b"structs", 9, 20, 15, 0, 2, 0, 2, 0, 6, 3, content=bytes(18)),
        t.data(b"text", 2, 18, 5, content=b"hello"),
        t.data(b"none", 3, 20, 5, 0),
        *(t.data(b"n", 1, code, content=bytes(n)) for code, n in ((2, 2), (7, 8), (8, 1), (11, 8), (12, 8))),
        t.group(b"", t.group(b"empty")),
    )
    path = tmp_path / f"a.dm{version}"
    write_dm(path, IMAGE)
    content = path.read_bytes()
    start = 16 if version == 4 else 12  # version, size, byte order
    head = content[: start + 2] + t.numbers(1 + len(others))
    path.write_bytes(head + b"".join(others) + content[len(head) :])
    np.testing.assert_array_equal(read_micrograph(path).pixels, IMAGE)


@pytest.mark.parametrize(("name", "value"), [(b"DataType", 99), (b"DataType", 23), (b"PixelDepth", 0)])
def test_numbers_that_do_not_fit_the_pixels(tmp_path, name, value):
    path = tmp_path / "a.dm3"
    write_dm(path, IMAGE)
    content = bytearray(path.read_bytes())
    at = content.index(name) + len(name) + 12  # behind the mark and two numbers
    content[at : at + 4] = struct.pack("<L", value)
    path.write_bytes(content)
    if name == b"PixelDepth":  # nobody asks for it
        np.testing.assert_array_equal(read_micrograph(path).pixels, IMAGE)
        return
    with pytest.raises(InputFileError, match=r"a\.dm3: "):
        read_micrograph(path)
