"""Sets of particles as text that fits into an address, so that a selection is a link which needs no storage.

A short set is written as numbers with commas between them. A long one is a point and base64 of the differences between
its sorted numbers, seven bits a byte, deflated: half of 100,000 particles, chosen at random, takes 17,000 letters.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from functools import lru_cache
from typing import TYPE_CHECKING

from tumble.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["LONGEST_SELECTION", "decode_ids", "encode_ids"]

#: Letters of an address that a server takes; uvicorn refuses a head of more than 64 KiB.
LONGEST_SELECTION = 60_000
_MARK = "."
_PLAIN_UP_TO = 200
#: What a selection may grow to when it is inflated: a million particles, and a hostile text costs no more.
_MOST_BYTES = 2 * 2**20
_MOST_BITS = 63


def encode_ids(ids: Iterable[int]) -> str:
    """Write a set of particles.

    Parameters
    ----------
    ids : iterable of int
        Positive numbers; repeated ones count once.

    Returns
    -------
    str
        What :func:`decode_ids` reads, safe in an address.

    Raises
    ------
    ConfigError
        The set is too large for an address.

    Examples
    --------
    >>> encode_ids([3, 1, 2])
    '1,2,3'
    """
    chosen = sorted(set(ids))
    plain = ",".join(map(str, chosen))
    if len(plain) <= _PLAIN_UP_TO:
        return plain
    packed, previous = bytearray(), 0
    for number in chosen:
        step, previous = number - previous, number
        while step > 0x7F:
            packed.append(step & 0x7F | 0x80)
            step >>= 7
        packed.append(step)
    # Repetitions make a regular set short, and a random one longer.
    deflated = min((_deflated(packed, how) for how in (zlib.Z_DEFAULT_STRATEGY, zlib.Z_HUFFMAN_ONLY)), key=len)
    text = _MARK + base64.urlsafe_b64encode(deflated).decode("ascii").rstrip("=")
    if len(text) > LONGEST_SELECTION:
        raise ConfigError(
            f"a selection of {len(chosen):,} particles does not fit into an address. Choose fewer, or filter them."
        )
    return text


def _deflated(content: bytearray, strategy: int) -> bytes:
    deflater = zlib.compressobj(9, strategy=strategy)
    return deflater.compress(content) + deflater.flush()


@lru_cache(maxsize=16)
def decode_ids(text: str) -> tuple[int, ...]:
    """Read a set of particles.

    Parameters
    ----------
    text : str
        As :func:`encode_ids` writes it, or numbers with commas between them.

    Returns
    -------
    tuple of int
        Each number once, in the order of the text.

    Raises
    ------
    ConfigError
        The text is no set of particles.

    Examples
    --------
    >>> decode_ids("5, 7,5")
    (5, 7)
    """
    if text.startswith(_MARK):
        return _unpack(text[1:])
    parts = [part.strip() for part in text.split(",")]
    numbers = [int(part) if part.isascii() and part.isdecimal() and len(part) < 20 else -1 for part in parts]
    if not all(0 <= number < 2**_MOST_BITS for number in numbers):
        raise ConfigError("ids: write numbers of particles with commas between them.")
    return tuple(dict.fromkeys(numbers))


def _unpack(text: str) -> tuple[int, ...]:
    damaged = ConfigError("ids: this selection is damaged. Copy the whole link, or select the particles again.")
    try:
        packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        inflater = zlib.decompressobj()
        content = inflater.decompress(packed, _MOST_BYTES)
    except (binascii.Error, zlib.error, ValueError) as error:
        raise damaged from error
    if not inflater.eof or not content or content[-1] > 0x7F:
        raise damaged
    ids, previous, step, shift = [], 0, 0, 0
    for byte in content:
        step |= (byte & 0x7F) << shift
        shift += 7
        if shift > _MOST_BITS:
            raise damaged
        if byte <= 0x7F:
            previous += step
            if step < 1 or previous >= 2**_MOST_BITS:
                raise damaged
            ids.append(previous)
            step = shift = 0
    return tuple(ids)
