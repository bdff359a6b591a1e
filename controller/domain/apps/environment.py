"""Decides which keys and values of Secrets can become environment variables of containers; some are reserved
for the platform. Others are refused before a container is created, because an engine would repeat the value
in its error message. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from controller.domain.apps.spec import SecretSpec
from controller.domain.errors import Stalled
from controller.domain.localizable import Localizable, joined
from controller.domain.reasons import Reason
from controller.domain.secret import Secret
from controller.domain.text import is_storable

RESERVED = ("UNIP_", "PRICHAL_")  # how the names of the platform's own variables begin
#: A key of a Secret must not decide which program runs and what is loaded into it.
_STEERING = re.compile(r"PYTHON[A-Z0-9_]*|LD_[A-Z0-9_]+|PATH|GCONV_PATH|GLIBC_TUNABLES")
#: With these the platform's own server would not start, not end, or not find the function or its docstring.
_INTERPRETER = frozenset({"PYTHONHOME", "PYTHONPLATLIBDIR", "PYTHONEXECUTABLE", "PYTHONINSPECT"})
#: By these NVIDIA's runtime and CUDA choose GPUs.
VISIBLE_GPUS = "NVIDIA_VISIBLE_DEVICES"
VISIBLE_TO_CUDA = "CUDA_VISIBLE_DEVICES"
MAX_VALUE = 100_000  # bytes; Linux starts no program with one of more than 128 KiB
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def unusable(secret: SecretSpec) -> Iterator[str]:
    """Return why it cannot become environment variables, without any of its values."""
    for key, value in secret.values:
        if why := _why(key, value.reveal()):
            yield Localizable(
                "the Secret {secret!r} cannot become environment variables: {why}",
                secret=secret.name,
                why=why,
            )


def variables(secret: SecretSpec) -> Mapping[str, Secret]:
    """Return the variables of the Secret. Raises Stalled `SecretInvalid`."""
    for why in unusable(secret):
        raise Stalled(Reason.SECRET_INVALID, why)
    return dict(secret.values)


def _why(key: str, value: str) -> str:
    if not _NAME.fullmatch(key):
        return Localizable(
            "the key {key!r} is not the name of a variable (letters, digits and _, no digit first)", key=key
        )
    if key.startswith(RESERVED):
        return Localizable(
            "names that begin with {names} are set by the platform; rename the key {key!r}",
            names=" or ".join(RESERVED),
            key=key,
        )
    if _STEERING.fullmatch(key):
        return Localizable(
            "{key} says which programs run and what they load: set it in env, where it is seen, or rename the key",
            key=key,
        )
    if not is_storable(value):
        return Localizable(
            "the value of {key!r} holds NUL, which no environment can; is it a binary file?", key=key
        )
    if len(value.encode()) > MAX_VALUE:
        return Localizable(
            "the value of {key!r} has more than {max_value} bytes; pass it as a file in a box",
            key=key,
            max_value=MAX_VALUE,
        )
    return ""


def without_effect(name: str, value: str, gpus: int) -> str:
    """Return why a variable does not do what its author may expect in a container with so many GPUs; "" if it does."""
    if name == VISIBLE_GPUS:
        return Localizable(
            "has no effect: the platform sets {name} to the GPUs that the container gets by `resources.gpus`",
            name=name,
        )
    if name != VISIBLE_TO_CUDA or not _hides(value, gpus):
        return ""
    has = (
        Localizable("which are numbered from 0 to {gpus} in it", gpus=gpus - 1)
        if gpus > 1
        else Localizable("which is number 0 in it")
    )
    own: str = Localizable("no GPU: see `resources.gpus`")
    if gpus:
        own = joined((f"{gpus} GPU{'s' if gpus > 1 else ''}", has), ", ")
    return Localizable("CUDA finds no GPU by {value!r}: the container has {own}", value=value[:40], own=own)


def _hides(value: str, gpus: int) -> bool:
    """Return True if CUDA would look for a GPU that the container does not have."""
    asked = [part.strip() for part in value.split(",")]
    return any(part.isascii() and part.isdigit() and (len(part) > 3 or int(part) >= gpus) for part in asked)


def misleading(name: str, value: str) -> str:
    """Return why a variable must not be set where the platform's own server runs; "" if it may be."""
    if name in _INTERPRETER:
        return Localizable(
            "{name} leads Python away from the platform's server: leave it out, or bring a server of your own",
            name=name,
        )
    if name == "PYTHONOPTIMIZE" and value not in ("", "0", "1"):
        return Localizable(
            "PYTHONOPTIMIZE of more than 1 takes the docstring away, which is the specification of the API"
        )
    return ""
