"""Sets of particles as text: what is written is read again, and what is damaged is refused."""

from __future__ import annotations

import base64
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("fastapi")

from tumble.app.selection import LONGEST_SELECTION, decode_ids, encode_ids
from tumble.errors import ConfigError

IDS = st.sets(st.integers(1, 2**63 - 1), min_size=1) | st.sets(st.integers(1, 300), min_size=60)


#: How long it takes to make an example up says how busy the machine is.
ANY_MACHINE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@ANY_MACHINE
@given(IDS)
def test_what_is_written_is_read_again(ids):
    text = encode_ids(ids)
    assert decode_ids(text) == tuple(sorted(ids))
    assert text == "".join(letter for letter in text if letter.isalnum() or letter in ".,-_")  # as it is in an address


@ANY_MACHINE
@given(st.sets(st.integers(1, 10**6), min_size=60, max_size=100), st.data())
def test_a_damaged_selection_is_refused_or_is_one(ids, data):
    text = list(encode_ids(ids))
    place = data.draw(st.integers(1, len(text) - 1))
    text[place] = data.draw(st.sampled_from("AZaz09-_!é"))
    try:
        found = decode_ids("".join(text))
    except ConfigError:
        return
    assert found == tuple(sorted(ids))  # the checksum leaves only what was there before


def test_half_of_a_large_library_fits_into_an_address():
    chosen = np.flatnonzero(np.random.default_rng(0).random(100_000) < 0.5) + 1
    text = encode_ids(chosen.tolist())
    assert len(text) < 20_000
    assert decode_ids(text) == tuple(chosen)


def test_what_does_not_fit_is_said():
    chosen = np.random.default_rng(0).choice(10**9, 40_000, replace=False)
    with pytest.raises(ConfigError, match=r"40,000 particles does not fit"):
        encode_ids(chosen.tolist())


def packed(content):
    return "." + base64.urlsafe_b64encode(zlib.compress(content)).decode().rstrip("=")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00",
        b"\x81",
        b"\xff" * 9 + b"\x7f",
        b"\x01\x00",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x01",
        b"\x01" * (3 * 2**20),
    ],
)
def test_hostile_selections_are_refused(content):
    assert len(packed(content)) < LONGEST_SELECTION
    with pytest.raises(ConfigError, match="damaged"):
        decode_ids(packed(content))
