"""What a SOPS file says of itself: for whom its key is encrypted, which values are encrypted, and the MAC of all."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from controller.sops.errors import SopsError
from controller.sops.keys import CannotDecrypt, FileKeys
from controller.sops.values import encrypted_text

KEY: Final = "sops"
MAX_RECIPIENTS: Final = 100
MAX_ARMORED: Final = 16 * 2**10  # characters of the file's key, as it is encrypted for one recipient
_DATA_KEY: Final = 32  # bytes
_OTHER_KEYS: Final = ("pgp", "kms", "gcp_kms", "azure_kv", "hc_vault", "hckms")
_DEFAULT_SUFFIX: Final = "_unencrypted"
_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[-+]\d\d:\d\d)", re.ASCII)
_SHOWN: Final = 5  # recipients in a message


class Rule(StrEnum):
    """How a file tells which values are encrypted."""

    UNENCRYPTED_SUFFIX = "unencrypted_suffix"
    ENCRYPTED_SUFFIX = "encrypted_suffix"
    UNENCRYPTED_REGEX = "unencrypted_regex"
    ENCRYPTED_REGEX = "encrypted_regex"
    UNENCRYPTED_COMMENT_REGEX = "unencrypted_comment_regex"
    ENCRYPTED_COMMENT_REGEX = "encrypted_comment_regex"


_BY_COMMENT: Final = (Rule.UNENCRYPTED_COMMENT_REGEX, Rule.ENCRYPTED_COMMENT_REGEX)
_UNENCRYPTED: Final = (Rule.UNENCRYPTED_SUFFIX, Rule.UNENCRYPTED_REGEX)
_SUFFIXES: Final = (Rule.UNENCRYPTED_SUFFIX, Rule.ENCRYPTED_SUFFIX)


@dataclass(frozen=True)
class Metadata:
    """`recipients` with the file's key, encrypted for each; `others` names keys that are none of age."""

    recipients: tuple[tuple[str, str], ...]
    others: tuple[str, ...]
    rule: Rule
    pattern: str
    mac: str
    modified: str
    is_mac_of_encrypted: bool  # the MAC covers encrypted values alone

    @property
    def is_by_comment(self) -> bool:
        """Return True if comments decide. The values themselves then tell: the MAC covers each as what it is."""
        return self.rule in _BY_COMMENT

    def names(self, keys: FileKeys | None) -> Callable[[str], bool]:
        """Return a function that tells whether the name of a field is one that the rule names."""
        if self.rule in _SUFFIXES:
            return lambda name: name.endswith(self.pattern)
        if self.is_by_comment or keys is None:
            return lambda name: False
        try:
            return keys.matcher(self.pattern)
        except ValueError as error:
            raise SopsError(f"is not a regular expression: {error}", (KEY, self.rule)) from error

    def is_encrypted(self, is_named: bool) -> bool:
        """Return whether a value is encrypted; `is_named`: the rule names a field on the way to it."""
        return is_named is not (self.rule in _UNENCRYPTED)


def metadata_of(raw: object) -> Metadata:
    """Return the metadata, the value of the field `sops`. Raises SopsError."""
    if not isinstance(raw, dict):
        raise SopsError("must be a mapping: the metadata that sops writes", (KEY,))
    if raw.get("key_groups"):
        message = "the key of the file is split over key groups, which is not supported: use one group of recipients"
        raise SopsError(message, (KEY, "key_groups"))
    rules = [(rule, raw[rule]) for rule in Rule if raw.get(rule)]
    if len(rules) > 1:
        raise SopsError(f"only one of {' and '.join(rule for rule, _ in rules)} may be there", (KEY,))
    rule, pattern = rules[0] if rules else (Rule.UNENCRYPTED_SUFFIX, _DEFAULT_SUFFIX)
    if not isinstance(pattern, str):
        raise SopsError("must be text", (KEY, rule))
    mac, modified = raw.get("mac"), raw.get("lastmodified")
    if not isinstance(mac, str) or encrypted_text(mac) is None:
        raise SopsError("the MAC is missing or damaged: encrypt the file again with sops", (KEY, "mac"))
    time = _TIME.fullmatch(modified) if isinstance(modified, str) else None
    if time is None:
        raise SopsError("must be a time, as sops writes it", (KEY, "lastmodified"))
    return Metadata(
        recipients=_recipients(raw.get("age")),
        others=tuple(name for name in _OTHER_KEYS if raw.get(name)),
        rule=rule,
        pattern=pattern,
        mac=mac,
        modified=time[1] + ("Z" if time[2] in ("+00:00", "-00:00") else time[2]),
        is_mac_of_encrypted=raw.get("mac_only_encrypted") in (True, "true"),
    )


def _recipients(raw: object) -> tuple[tuple[str, str], ...]:
    path = (KEY, "age")
    if raw is None:
        return ()
    if not isinstance(raw, list) or len(raw) > MAX_RECIPIENTS:
        raise SopsError(f"must be a list of at most {MAX_RECIPIENTS} recipients", path)
    found = []
    for i, each in enumerate(raw):
        pair = (each.get("recipient"), each.get("enc")) if isinstance(each, Mapping) else (None, None)
        recipient, armored = pair
        if not isinstance(recipient, str) or not isinstance(armored, str):
            raise SopsError("must have the fields recipient and enc", (*path, i))
        if len(armored) > MAX_ARMORED:
            raise SopsError(f"has more than {MAX_ARMORED} characters", (*path, i, "enc"))
        found.append((recipient, armored))
    return tuple(found)


def data_key(metadata: Metadata, keys: FileKeys) -> bytes:
    """Return the key of the file. Raises SopsError if it is encrypted for others alone."""
    if keys.problem:
        raise SopsError(keys.problem, (KEY, "age"))
    for i, (recipient, armored) in enumerate(metadata.recipients):
        if recipient not in keys.recipients:
            continue
        try:
            key = keys.data_key(recipient, armored)
        except CannotDecrypt:
            message = "the key of the file cannot be decrypted: it is damaged, or was encrypted for another recipient"
            raise SopsError(f"{message}. Run: sops updatekeys FILE", (KEY, "age", i, "enc")) from None
        if len(key) != _DATA_KEY:
            raise SopsError(f"the key of the file does not have {_DATA_KEY} bytes", (KEY, "age", i, "enc"))
        return key
    raise SopsError(_unknown_recipient(metadata, keys), (KEY, "age") if metadata.recipients else (KEY,))


def _unknown_recipient(metadata: Metadata, keys: FileKeys) -> str:
    names = [recipient[:80] for recipient, _ in metadata.recipients]
    shown = [
        *names[:_SHOWN],
        *([f"{len(names) - _SHOWN} more"] if len(names) > _SHOWN else []),
        *metadata.others,
    ]
    advice = f"name {keys.recipients[0]} in .sops.yaml (prichal secret key {keys.owner}) and run: sops updatekeys FILE"
    return f"it is encrypted for {', '.join(shown) or 'nobody'}, which {keys.owner} has no key of: {advice}"
