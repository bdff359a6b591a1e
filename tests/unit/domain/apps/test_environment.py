"""Which Secrets can become environment variables, and that what is said of the others shows no value."""

from __future__ import annotations

import pytest

from controller.domain.apps.environment import MAX_VALUE, unusable, variables
from controller.domain.apps.spec import SecretSpec
from controller.domain.errors import Stalled
from controller.domain.secret import Secret

STEERING = (
    "PATH",
    "LD_PRELOAD",
    "LD_LIBRARY_PATH",
    "LD_AUDIT",
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONSTARTUP",
    "PYTHON_GIL",
)


def secret(key: str, value: str) -> SecretSpec:
    return SecretSpec("keys", ((key, Secret(value)),))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("API_KEY", "x"),
        ("_a1", ""),
        ("PEM", "line one\nline two\n"),
        ("NAME", "пароль"),
        ("BIG", "x" * MAX_VALUE),
        ("PATH_TO_IT", "/x"),
        ("OLD_PATH", "/x"),
        ("Python", "/x"),
    ],
)
def test_what_can_be_one(key: str, value: str) -> None:
    assert {name: found.reveal() for name, found in variables(secret(key, value)).items()} == {key: value}


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("API_KEY", "correct-horse\0battery", "holds NUL"),
        ("API_KEY", "correct-horse\ud83d", "holds NUL"),
        ("tls.key", "correct-horse", "not the name of a variable"),
        ("1ST", "correct-horse", "not the name of a variable"),
        ("A=B", "correct-horse", "not the name of a variable"),
        ("ключ", "correct-horse", "not the name of a variable"),
        ("UNIP_S3_ENDPOINT", "correct-horse", "set by the platform"),
        ("PRICHAL_SERVING", "correct-horse", "set by the platform"),
        ("BIG", "correct-horse" * MAX_VALUE, "more than"),
        *((key, "correct-horse", "which programs run") for key in STEERING),
    ],
)
def test_what_cannot_is_refused_without_its_value(key: str, value: str, why: str) -> None:
    with pytest.raises(Stalled) as caught:
        variables(secret(key, value))
    assert caught.value.reason == "SecretInvalid"
    assert why in caught.value.message
    assert "horse" not in caught.value.message
    assert list(unusable(secret(key, value))) == [caught.value.message]
