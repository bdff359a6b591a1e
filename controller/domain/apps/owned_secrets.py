"""Secrets that people set for an app with `prichal secret`, beside those in manifests: what may be set, what a change
comes to, and which values a pass gets. Pure; how values are encrypted is in controller/encryption.py.

A change carries its values sealed for the daemon. The daemon applies it as a whole or not at all.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from controller.domain.apps.age_keys import KeyAction
from controller.domain.apps.environment import MAX_VALUE
from controller.domain.apps.spec import SecretSpec
from controller.domain.errors import Stalled
from controller.domain.localizable import Localizable
from controller.domain.names import PLATFORM, AppName, is_dns_label
from controller.domain.reasons import Reason
from controller.domain.secret import Secret
from controller.domain.text import is_storable, printable

MAX_KEYS: Final = 100  # of a Secret
MAX_SECRETS: Final = 50  # of an app
MAX_BYTES: Final = 128 * 2**10  # of all values of an app, as they are stored
MAX_WAITING: Final = 20  # changes of an app that the daemon has not applied yet
KEEP_CHANGES: Final = 1000  # of an app, which were applied or refused: each counts once
LONGEST_WAIT: Final = 7 * 86400.0  # seconds; an older change is refused, so that nobody repeats it later
MAX_AUTHOR: Final = 200  # characters
_KEY: Final = re.compile(r"[^\s\x00-\x1f\x7f]{1,253}")
_ID: Final = re.compile(r"[0-9a-f]{32}")


class CannotOpen(ValueError):
    """`is_foreign`: it was sealed with another key; otherwise it is damaged, or was put in another place."""

    def __init__(self, is_foreign: bool) -> None:
        super().__init__("it was sealed with another key" if is_foreign else "it is damaged")
        self.is_foreign = is_foreign


@dataclass(frozen=True)
class SecretChange:
    """`values` by key; None removes a key. Without any, the whole Secret is removed. `by` is who asked for it, as they
    say, at this Unix time. With an `action` it is a change of the app's age keys, and of no Secret; `force` deletes
    keys that a commit in force needs."""

    id: str
    app: AppName
    secret: str
    values: tuple[tuple[str, Secret | None], ...]
    by: str
    at: float
    action: KeyAction | None = None
    force: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(key for key, _ in self.values)


class ChangeState(StrEnum):
    WAITING = "waiting"
    APPLIED = "applied"
    UNCHANGED = "unchanged"
    REFUSED = "refused"


@dataclass(frozen=True)
class ChangeRecord:
    """What became of a change. `request` is the pass that it asked for, 0 if none. A waiting one tells nothing else:
    it is sealed."""

    id: str
    app: AppName
    state: ChangeState
    at: float
    secret: str = ""
    by: str = ""
    message: str = ""
    request: int = 0


@dataclass(frozen=True)
class OwnedKey:
    """What people may know of a value. `size` in bytes, as it is stored."""

    secret: str
    key: str
    fingerprint: str
    size: int
    by: str
    at: float


@dataclass(frozen=True)
class OwnedSecrets:
    """The Secrets of an app with their values; of `unreadable` ones, why."""

    readable: tuple[SecretSpec, ...] = ()
    unreadable: Mapping[str, str] = field(default_factory=dict)

    def get(self, name: str) -> SecretSpec | None:
        """Raises Stalled `SecretUnreadable`."""
        if name in self.unreadable:
            raise Stalled(Reason.SECRET_UNREADABLE, self.unreadable[name])
        return next((secret for secret in self.readable if secret.name == name), None)

    @property
    def names(self) -> frozenset[str]:
        return frozenset((*(secret.name for secret in self.readable), *self.unreadable))

    @property
    def values(self) -> tuple[Secret, ...]:
        return tuple(value for secret in self.readable for _, value in secret.values)

    def only(self, wanted: Callable[[str], bool]) -> OwnedSecrets:
        """Return those whose names are wanted."""
        readable = tuple(secret for secret in self.readable if wanted(secret.name))
        return OwnedSecrets(readable, {name: why for name, why in self.unreadable.items() if wanted(name)})

    def over(self, others: OwnedSecrets) -> OwnedSecrets:
        """Return these together with others, of which one of the same name does not count."""
        more = others.only(lambda name: name not in self.names)
        return OwnedSecrets((*self.readable, *more.readable), {**self.unreadable, **more.unreadable})


@dataclass(frozen=True)
class Decision:
    """What a change comes to: a refusal, or the keys to store and to remove, neither of which may mean no change."""

    refusal: str = ""
    stored: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    done: str = ""  # what became of the age keys

    @property
    def state(self) -> ChangeState:
        if self.refusal:
            return ChangeState.REFUSED
        is_applied = self.stored or self.removed or self.done
        return ChangeState.APPLIED if is_applied else ChangeState.UNCHANGED


def change_problem(change: SecretChange) -> str:
    """Return why nobody may ask for this change, whatever the app has; "" if they may."""
    if change.action is not None:
        is_app = change.app == PLATFORM or is_dns_label(change.app)
        return "" if is_app and not change.secret and not change.values else "it is not a change of age keys"
    if not is_dns_label(change.app):
        return Localizable("{app} is not an app, so it has no Secrets of its own", app=change.app)
    if not is_dns_label(change.secret):
        return Localizable(
            "{name!r} cannot be the name of a Secret: use small letters, digits and hyphens",
            name=change.secret[:80],
        )
    if len(change.values) > MAX_KEYS:
        return Localizable("a Secret has at most {most} keys", most=MAX_KEYS)
    if len(set(change.keys)) < len(change.values):
        return Localizable("a key is given twice")
    return next((why for key, value in change.values if (why := _value_problem(key, value))), "")


def _value_problem(key: str, value: Secret | None) -> str:
    if not _KEY.fullmatch(key) or not is_storable(key) or printable(key) != key:
        return Localizable(
            "{key!r} cannot be a key: use 1 to 253 characters without blanks", key=printable(key[:80])
        )
    if value is None:
        return ""
    text = value.reveal()
    if not text:
        return Localizable("the value of {key} is empty; to remove the key: prichal secret rm", key=key)
    if not is_storable(text):
        return Localizable(
            "the value of {key} is not text: it has NUL or no UTF-8; store a binary file in Base64", key=key
        )
    if len(text.encode()) > MAX_VALUE:
        return Localizable(
            "the value of {key} has more than {most} bytes, which no environment of a container takes; "
            "pass it as a file in a box",
            key=key,
            most=MAX_VALUE,
        )
    return ""


def decide(
    change: SecretChange, known: Iterable[OwnedKey], fingerprints: Mapping[str, str], sizes: Mapping[str, int]
) -> Decision:
    """Return what a change comes to. `known` has all keys of the app; `fingerprints` and `sizes` those of the values
    to be stored, by key."""
    known = tuple(known)
    mine = {each.key: each for each in known if each.secret == change.secret}
    if not change.values:
        return Decision(removed=tuple(mine)) if mine else _unknown(change, known)
    removed = tuple(key for key, value in change.values if value is None)
    if lacking := [key for key in removed if key not in mine]:
        return (
            Decision(
                Localizable("the Secret {secret!r} has no key {key!r}", secret=change.secret, key=lacking[0])
            )
            if mine
            else _unknown(change, known)
        )
    stored = tuple(
        key
        for key, value in change.values
        if value is not None and not (key in mine and mine[key].fingerprint == fingerprints[key])
    )
    kept = [each for each in known if each.secret != change.secret or each.key not in (*stored, *removed)]
    names = {each.secret for each in kept} | {change.secret}
    size = sum(each.size for each in kept) + sum(sizes[key] for key in stored)
    keys = sum(each.secret == change.secret for each in kept) + len(stored)
    for found, most, what in (
        (keys, MAX_KEYS, Localizable("keys in the Secret {secret!r}", secret=change.secret)),
        (len(names), MAX_SECRETS, Localizable("Secrets of the app {app}", app=change.app)),
        (size, MAX_BYTES, Localizable("bytes in all Secrets of the app {app}", app=change.app)),
    ):
        if stored and found > most:
            return Decision(
                Localizable(
                    "there would be {found} {what}, and at most {most} are allowed: remove others first",
                    what=what,
                    found=found,
                    most=most,
                )
            )
    return Decision(stored=stored, removed=removed)


def _unknown(change: SecretChange, known: tuple[OwnedKey, ...]) -> Decision:
    names = ", ".join(sorted({each.secret for each in known})) or Localizable("none")
    return Decision(
        Localizable(
            "nobody has set a Secret {secret!r} for {app}; set are: {names}",
            secret=change.secret,
            app=change.app,
            names=names,
        )
    )


# --- as it is sealed -----------------------------------------------------------------------------------------------

_BLOCK = 256  # bytes: sealed texts tell their length only roughly


def padded(document: object) -> bytes:
    """Return JSON whose length says little about the document."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % _BLOCK)


def packed(change: SecretChange) -> bytes:
    """Return a change as bytes, to be sealed. App and id are bound to them by the seal."""
    values = {key: value.reveal() if value is not None else None for key, value in change.values}
    document = {"secret": change.secret, "values": values, "by": change.by, "at": change.at}
    if change.action is None:
        return padded(document)
    return padded({**document, "action": change.action, "force": change.force})


def unpacked(id: str, app: AppName, content: bytes) -> SecretChange:
    """Return the change that was sealed. Raises ValueError for what `packed` does not write; `change_problem` says
    whether it may be asked for."""
    try:
        found = json.loads(content)
        values = tuple((key, _secret_or_none(value)) for key, value in found["values"].items())
        action = KeyAction(found["action"]) if "action" in found else None
        by, at, force = _text(found["by"]), _number(found["at"]), found.get("force") is True
        change = SecretChange(id, app, _text(found["secret"]), values, by, at, action, force)
    except (TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        raise ValueError(f"it is not a change of a Secret: {type(error).__name__}") from None
    except ValueError:  # its message may quote a value
        raise ValueError("it is not a change of a Secret") from None
    if len(change.by) > MAX_AUTHOR or printable(change.by) != change.by or not math.isfinite(change.at):
        raise ValueError("it does not say who asked for it and when")
    return change


def is_change_id(text: object) -> bool:
    return isinstance(text, str) and _ID.fullmatch(text) is not None


def _secret_or_none(value: object) -> Secret | None:
    return None if value is None else Secret(_text(value))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def _number(value: object) -> float:
    if type(value) not in (int, float):
        raise TypeError("no number")
    return float(value)  # type: ignore[arg-type]
