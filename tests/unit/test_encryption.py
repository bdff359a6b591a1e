"""What is sealed can be opened with the right key, at the right place, as it was, and in no other way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.apps.owned_secrets import CannotOpen
from controller.encryption import SecretKeys, seal_for

KEYS, OTHERS = SecretKeys(b"k" * 32), SecretKeys(b"o" * 32)
PLACE = b"demo/keys/TOKEN"
CONTENTS = st.binary(max_size=2000)


@given(CONTENTS, st.binary(max_size=50))
def test_what_was_sealed_is_found_again(content: bytes, place: bytes) -> None:
    assert KEYS.open(KEYS.seal(content, place), place) == content
    assert KEYS.open_received(seal_for(KEYS.public, content, place), place) == content


@given(CONTENTS, st.data())
def test_a_changed_bit_is_noticed(content: bytes, data: st.DataObject) -> None:
    for sealed, opened in (
        (KEYS.seal(content, PLACE), KEYS.open),
        (seal_for(KEYS.public, content, PLACE), KEYS.open_received),
    ):
        at = data.draw(st.integers(0, 8 * len(sealed) - 1))
        changed = bytearray(sealed)
        changed[at // 8] ^= 1 << at % 8
        with pytest.raises(CannotOpen):
            opened(bytes(changed), PLACE)


@given(st.binary(max_size=100))
def test_what_was_never_sealed_is_refused(garbage: bytes) -> None:
    for opened in (KEYS.open, KEYS.open_received):
        for text in (garbage, KEYS.id + garbage):
            with pytest.raises(CannotOpen):
                opened(text, PLACE)


def test_what_was_moved_or_cut_off_is_refused() -> None:
    sealed, received = KEYS.seal(b"value", PLACE), seal_for(KEYS.public, b"value", PLACE)
    for opened, text in ((KEYS.open, sealed), (KEYS.open_received, received)):
        for moved, place in ((text, b"demo/keys/OTHER"), (text[:-1], PLACE), (text + b"\0", PLACE)):
            with pytest.raises(CannotOpen):
                opened(moved, place)


def test_another_key_is_told_from_damage() -> None:
    sealed = KEYS.seal(b"value", PLACE)
    with pytest.raises(CannotOpen) as foreign:
        OTHERS.open(sealed, PLACE)
    with pytest.raises(CannotOpen) as damaged:
        KEYS.open(sealed, b"elsewhere")
    assert (foreign.value.is_foreign, damaged.value.is_foreign) == (True, False)
    with pytest.raises(CannotOpen):
        OTHERS.open_received(seal_for(KEYS.public, b"value", PLACE), PLACE)


def test_nobody_sees_whether_two_values_are_equal() -> None:
    assert KEYS.seal(b"value", PLACE) != KEYS.seal(b"value", PLACE)
    assert seal_for(KEYS.public, b"value", PLACE) != seal_for(KEYS.public, b"value", PLACE)
    same = {KEYS.fingerprint(b"value", PLACE) for _ in range(2)}
    other = {KEYS.fingerprint(b"value", b"elsewhere"), OTHERS.fingerprint(b"value", PLACE)}
    moved = {KEYS.fingerprint(b"Nvalue", PLACE[:-1])}
    assert len(same | other | moved) == 4


def test_all_follows_from_the_one_key_and_stays_the_same() -> None:
    """Values that were stored by one release can be read by the next one."""
    again = SecretKeys(b"k" * 32)
    assert (again.id, again.public) == (KEYS.id, KEYS.public)
    assert again.fingerprint(b"value", PLACE) == "0ae472f632abe703"
    assert again.public.hex() == "92e874b2412bfa716542df938aa6ff3f6a4836296e20d5f6b021dc1cfbf6f720"
    stored = bytes.fromhex(
        "e87910e4a8dce2de877ffce31bf3ac14e5123dfc05f1dbcddb213d9f4e3c22dc81fc37e83a90a2105a"
    )
    assert again.open(stored, PLACE) == b"value"
