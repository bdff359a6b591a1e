"""Decides which keys and values of Secrets can become environment variables of containers; some are reserved
for the platform. Others are refused before a container is created, because an engine would repeat the value
in its error message. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from controller.domain.apps.spec import SecretSpec
from controller.domain.errors import Stalled
from controller.domain.reasons import Reason
from controller.domain.secret import Secret
from controller.domain.text import is_storable

RESERVED = ("UNIP_", "PRICHAL_")  # how the names of the platform's own variables begin
#: A key of a Secret must not decide which program runs and what is loaded into it.
_STEERING = re.compile(r"PYTHON[A-Z0-9_]*|LD_[A-Z0-9_]+|PATH|GCONV_PATH|GLIBC_TUNABLES")
#: With these the platform's own server would not start, not end, or not find the function or its docstring.
_INTERPRETER = frozenset({"PYTHONHOME", "PYTHONPLATLIBDIR", "PYTHONEXECUTABLE", "PYTHONINSPECT"})
MAX_VALUE = 100_000  # bytes; Linux starts no program with one of more than 128 KiB
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def unusable(secret: SecretSpec) -> Iterator[str]:
    """Return why it cannot become environment variables, without any of its values."""
    for key, value in secret.values:
        if why := _why(key, value.reveal()):
            yield f"the Secret {secret.name!r} cannot become environment variables: {why}"


def variables(secret: SecretSpec) -> Mapping[str, Secret]:
    """Return the variables of the Secret. Raises Stalled `SecretInvalid`."""
    for why in unusable(secret):
        raise Stalled(Reason.SECRET_INVALID, why)
    return dict(secret.values)


def _why(key: str, value: str) -> str:
    if not _NAME.fullmatch(key):
        return f"the key {key!r} is not the name of a variable (letters, digits and _, no digit first)"
    if key.startswith(RESERVED):
        return (
            f"names that begin with {' or '.join(RESERVED)} are set by the platform; rename the key {key!r}"
        )
    if _STEERING.fullmatch(key):
        return f"{key} says which programs run and what they load: set it in env, where it is seen, or rename the key"
    if not is_storable(value):
        return f"the value of {key!r} holds NUL, which no environment can; is it a binary file?"
    if len(value.encode()) > MAX_VALUE:
        return f"the value of {key!r} has more than {MAX_VALUE} bytes; pass it as a file in a box"
    return ""


def misleading(name: str, value: str) -> str:
    """Return why a variable must not be set where the platform's own server runs; "" if it may be."""
    if name in _INTERPRETER:
        return f"{name} leads Python away from the platform's server: leave it out, or bring a server of your own"
    if name == "PYTHONOPTIMIZE" and value not in ("", "0", "1"):
        return "PYTHONOPTIMIZE of more than 1 takes the docstring away, which is the specification of the API"
    return ""
