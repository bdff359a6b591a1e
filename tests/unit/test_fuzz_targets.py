"""Some of what `make fuzz` does at length: the kept inputs, and what becomes of them by small changes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent.parent / "fuzz" / "corpus"
KEPT = {name: [path.read_bytes() for path in sorted((CORPUS / name).iterdir())] for name in TARGETS}
SPLICES = [
    *(
        b"\0",
        b"\xff",
        b"\r\n",
        b"\n",
        b": ",
        b"%2f",
        b"%",
        b"../",
        b"//",
        b"\\",
        b"\x1b[",
        b"\xed\xa0\x80",
        b"\xc2\x9b",
    ),
    *(
        b"*",
        b"[",
        b"]",
        b"!",
        b"{",
        b"}",
        b"&a ",
        b"*a",
        b"<<: ",
        b"!!",
        b"9" * 30,
        b"a" * 300,
        b",",
        b";",
        b"=",
        b'"',
    ),
]


@pytest.mark.parametrize("name", TARGETS)
def test_kept_inputs(name: str) -> None:
    assert KEPT[name]
    for data in KEPT[name]:
        TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_what_becomes_of_them(name: str, data: st.DataObject) -> None:
    text = data.draw(st.sampled_from([*KEPT[name], *KEPT[name], b""]))
    for at, much, piece in data.draw(
        st.lists(
            st.tuples(
                st.integers(0, 400), st.integers(0, 20), st.sampled_from(SPLICES) | st.binary(max_size=6)
            ),
            max_size=6,
        )
    ):
        at = min(at, len(text))
        text = text[:at] + piece + text[at + much :]
    TARGETS[name](text)


def test_every_kept_input_has_a_target() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
