from __future__ import annotations

import pytest

from controller.web.preferences import NONE, Preferences, idempotency_key
from controller.web.problems import RequestRefused


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], NONE),
        (["respond-async"], Preferences(True)),
        (["Respond-Async"], Preferences(True)),
        (["respond-async, wait=10"], Preferences(True, 10.0)),
        (["wait=10, respond-async"], Preferences(True, 10.0)),
        (["wait=10", "respond-async"], Preferences(True, 10.0)),
        (['respond-async;foo=bar, wait="5"'], Preferences(True, 5.0)),
        (["wait=5"], Preferences(False, 5.0)),
        (["Wait = 1"], Preferences(False, 1.0)),
        (["handling=lenient; wait=1"], Preferences(False, 1.0)),
        (["a, wait=1, b"], Preferences(False, 1.0)),
        (["await=60"], NONE),
        (["wait"], NONE),
        (['wait="'], NONE),
        (["wait=-1"], NONE),
        (["wait=1.5"], NONE),
        (["wait=99999999"], NONE),
        (["respond-async=1"], NONE),
        (["no-respond-async"], NONE),
        (['x="a, respond-async, b"'], NONE),
        (["return=minimal; respond-async"], NONE),
        ([""], NONE),
        (["\xff"], NONE),
    ],
)
def test_prefer(values: list[str], expected: Preferences) -> None:
    headers = [(b"prefer", value.encode("latin-1")) for value in values]
    assert Preferences.of([(b"accept", b"*/*"), *headers]) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [(None, ""), ("k", "k"), ('"k"', "k"), ('"with space"', "with space"), ("k" * 255, "k" * 255)],
)
def test_keys(text: str | None, expected: str) -> None:
    assert idempotency_key(text) == expected


@pytest.mark.parametrize("text", ["", "a b", '"', '"a', "k" * 256, "ü", "a\nb"])
def test_invalid_keys(text: str) -> None:
    with pytest.raises(RequestRefused):
        idempotency_key(text)
