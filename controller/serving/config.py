"""Settings of one serving process, from the variable ``PRICHAL_SERVING`` (JSON, the platform) or from options
(people).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, Optional

VARIABLE = "PRICHAL_SERVING"
MIB = 1024 * 1024


class ConfigError(Exception):
    """The settings are invalid; the text says why."""


@dataclasses.dataclass(frozen=True)
class ServingSettings:
    """Times in seconds, sizes in bytes. ``concurrency`` and ``queue`` count calls of the whole container."""

    inference: str
    app: str = "local"
    component: str = "component"
    loader: Optional[str] = None
    openai: Optional[str] = None  # "chat": the function answers chat completions of OpenAI's API, too
    model_path: Optional[str] = None
    port: int = 8002
    concurrency: int = 4
    queue: int = 40
    timeout: float = 60.0
    setup_timeout: float = 120.0
    max_body: int = 16 * MIB
    processes: int = 1
    preload: bool = False
    batch_size: Optional[int] = None  # the most calls that go to the function together; None: each goes alone
    batch_delay: float = 0.01  # how long the first call of a batch waits for others
    batch_queue: int = 100  # in place of ``queue``: calls that wait for a batch
    batch_concurrency: int = 1  # in place of ``concurrency``: batches at once in each worker
    pass_user: bool = False
    files_root: Optional[str] = None
    boxes: bool = True  # whether boxes are connected, so that files can come and go with calls
    idle_timeout: float = 75.0  # between two requests of a connection; a proxy in front should close first
    read_timeout: float = 20.0  # for the rest of a request's head, and for each piece of its body
    replace_after: float = 5.0  # how long overdue calls may hold every slot before the worker is replaced

    @property
    def most_waiting(self) -> int:
        """How many calls may wait in the whole container."""
        return self.queue if self.batch_size is None else self.batch_queue

    def slots_of(self, index: int) -> int:
        """How many calls at once the worker may run, of those counted from 1 on. Of batches: one runs while another
        one gathers."""
        if self.batch_size is not None:
            return 2 * self.batch_size * self.batch_concurrency
        share, rest = divmod(self.concurrency, self.processes)
        return share + (index <= rest)


_KINDS: dict[str, Any] = {
    "inference": str, "app": str, "component": str, "loader": str, "openai": str, "model_path": str, "files_root": str,
    "port": int, "concurrency": int, "queue": int, "max_body": int, "processes": int,
    "batch_size": int, "batch_delay": float, "batch_queue": int, "batch_concurrency": int,
    "timeout": float, "setup_timeout": float, "replace_after": float,
    "idle_timeout": float, "read_timeout": float, "pass_user": bool, "boxes": bool, "preload": bool,
}  # fmt: skip
OPENAI = ("chat",)
_NULLABLE = {"loader", "openai", "model_path", "files_root", "batch_size"}
_LEAST = {
    "concurrency": 1, "queue": 0, "max_body": 1, "processes": 1, "batch_size": 1, "batch_queue": 0,
    "batch_concurrency": 1,
}  # fmt: skip
_MAY_BE_ZERO = {"batch_delay"}


def read(environ: Mapping[str, str], arguments: Sequence[str]) -> ServingSettings:
    """Settings from the options if there are any, else from the variable. Raises ConfigError."""
    if arguments:
        return from_arguments(arguments)
    text = environ.get(VARIABLE)
    if not text:
        raise ConfigError(
            f"nothing to serve: set {VARIABLE} to a JSON object or give --inference module:function"
        )
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{VARIABLE} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{VARIABLE} must be a JSON object, not {type(values).__name__}")
    return from_mapping(values)


def from_mapping(values: Mapping[str, Any]) -> ServingSettings:
    """Settings from plain values; all problems at once in one ConfigError."""
    problems = [
        f"{key}: unknown; known are {', '.join(sorted(_KINDS))}" for key in values if key not in _KINDS
    ]
    if values.get("inference") is None:
        problems.append("inference: missing; give module:function")
    known = {key: value for key, value in values.items() if key in _KINDS}
    problems += [problem for key, value in known.items() for problem in _problems(key, value)]
    if problems:
        raise ConfigError("; ".join(problems))
    settings = ServingSettings(**known)
    if settings.batch_size is None and settings.processes > settings.concurrency:
        raise ConfigError("processes: more than concurrency, some could never be given a call")
    if settings.batch_size is not None and settings.batch_delay >= settings.timeout:
        raise ConfigError(
            "batch_delay: not below timeout, each call could time out while it waits for others"
        )
    return settings


def _problems(key: str, value: Any) -> list[str]:
    kind = _KINDS[key]
    if value is None and key in _NULLABLE:
        return []
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return (
            []
            if 0 < value < 1e9 or (value == 0 and key in _MAY_BE_ZERO)
            else [f"{key}: {value} is not a time, give seconds above 0"]
        )
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        return [f"{key}: {value!r} is not a {kind.__name__}"]
    if key == "port" and not 0 <= value <= 65535:
        return [f"port: {value} is not within 0..65535"]
    if key == "openai" and value not in OPENAI:
        return [f"{key}: {value!r} is not known; there is {', '.join(OPENAI)}"]
    if key in _LEAST and value < _LEAST[key]:
        return [f"{key}: {value} is below {_LEAST[key]}"]
    if key in ("inference", "loader") and not all(
        part for part in (value.partition(":")[0], value.partition(":")[2])
    ):
        return [f"{key}: {value!r} is not of the form module:function"]
    return []


def from_arguments(arguments: Sequence[str]) -> ServingSettings:
    """Settings from command-line options, named like the JSON keys with dashes. Exits with 2 on a bad option,
    as argparse does.
    """
    import argparse  # here: the platform's own way in does not pay for it

    parser = argparse.ArgumentParser(
        prog="python3 -m prichal_serving", description="Serve one inference function over HTTP."
    )
    for key, kind in _KINDS.items():
        option = "--" + key.replace("_", "-")
        if kind is bool:
            parser.add_argument(option, action="store_true", default=argparse.SUPPRESS)
        else:
            parser.add_argument(option, type=kind, default=argparse.SUPPRESS, required=key == "inference")
    return from_mapping(vars(parser.parse_args(list(arguments))))
