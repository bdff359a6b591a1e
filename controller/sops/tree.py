"""Decrypts the values of documents, and checks that none was changed.

Each value is bound to its place by the names of the fields on the way to it (positions in lists do not count), and
the MAC covers all values in their order. A value that has to be encrypted and is not stops the file: it was added by
hand, and anybody could have read it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from controller.sops.errors import SopsError
from controller.sops.keys import CannotDecrypt, FileKeys
from controller.sops.metadata import KEY, Metadata, data_key, metadata_of
from controller.sops.values import (
    EncryptedText,
    Plain,
    Time,
    decrypted_value,
    encrypted_text,
    mac_bytes,
    plain_value,
)
from controller.yaml_documents import Node

#: Stands in for values that were not decrypted.
PLACEHOLDER: Final = "not decrypted"
_PLACEHOLDER_DATA: Final = base64.b64encode(PLACEHOLDER.encode()).decode()
#: SHA-256 of "sops", with which a MAC begins that covers encrypted values alone.
_ONLY_ENCRYPTED: Final = hashlib.sha256(b"sops").digest()
_COMMENT: Final = "comment"

Place = tuple[str | int, ...]


@dataclass(frozen=True)
class OpenedDocuments:
    """The documents without their metadata, and for each the places of the values that were encrypted. `recipients` are
    those keys of ours, public, for which the file was encrypted."""

    documents: tuple[Node, ...]
    encrypted: tuple[frozenset[Place], ...]
    is_decrypted: bool
    recipients: tuple[str, ...] = ()


def is_encrypted(documents: Sequence[Node]) -> bool:
    """Return True if sops has written the documents. Its metadata are at the top of the first one."""
    return bool(documents) and isinstance(documents[0].value, dict) and KEY in documents[0].children


def open_documents(documents: Sequence[Node], keys: FileKeys | None) -> OpenedDocuments:
    """Decrypt all documents of a file. Without keys check the structure, and put placeholders in place of the values.
    Raises SopsError."""
    metadata = metadata_of(documents[0].children[KEY].value)
    opener = _Opener(metadata, keys)
    opened = []
    for number, document in enumerate(documents):
        try:
            opened.append(opener.document(document))
        except SopsError as error:
            error.document = number
            raise
    opener.check_mac()
    known = keys.recipients if keys else ()
    return OpenedDocuments(
        tuple(node for node, _ in opened),
        tuple(frozenset(places) for _, places in opened),
        keys is not None,
        tuple(recipient for recipient, _ in metadata.recipients if recipient in known),
    )


@dataclass
class _Opener:
    metadata: Metadata
    keys: FileKeys | None
    _key: bytes = field(init=False, default=b"")
    _places: list[Place] = field(init=False, default_factory=list)
    _known: dict[str, bool] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._names: Callable[[str], bool] = self.metadata.names(self.keys)
        self._mac = hashlib.sha512(_ONLY_ENCRYPTED if self.metadata.is_mac_of_encrypted else b"")
        if self.keys is not None:
            self._key = data_key(self.metadata, self.keys)

    def document(self, node: Node) -> tuple[Node, list[Place]]:
        """Return the document without metadata, and the places of encrypted values."""
        self._places = []
        if isinstance(node.value, dict):
            children = {name: child for name, child in node.children.items() if name != KEY}
            node = replace(
                node,
                value={str(name): child.value for name, child in children.items()},
                children=children,
                keys={name: place for name, place in node.keys.items() if name != KEY},
            )
        opened = self._node(node, (), (), False)
        return (opened or node), self._places

    def check_mac(self) -> None:
        """Raise SopsError if the values are not those that sops has encrypted."""
        if self.keys is None:
            return
        place = (KEY, "mac")
        try:
            found = self._decrypted(encrypted_text(self.metadata.mac), self.metadata.modified)
        except (CannotDecrypt, ValueError):
            raise SopsError(
                "the MAC is damaged, or lastmodified was changed: encrypt the file again with sops", place
            ) from None
        if not hmac.compare_digest(str(found).encode(), self._mac.hexdigest().upper().encode()):
            message = "the MAC does not match: values were added, removed, moved or changed without sops"
            raise SopsError(f"{message}. Restore the file from Git, and edit it with: sops edit FILE", place)

    def _node(self, node: Node, place: Place, names: tuple[str, ...], is_named: bool) -> Node | None:
        """Return the decrypted node; None for a comment, which an old sops has written as a value."""
        if isinstance(node.value, dict):
            return _rebuilt(node, self._fields(node, place, names, is_named))
        if isinstance(node.value, list):
            found = (
                self._node(node.children[i], (*place, i), names, is_named) for i in range(len(node.children))
            )
            kept = [child for child in found if child is not None]
            return replace(node, value=[child.value for child in kept], children=dict(enumerate(kept)))
        return self._leaf(node, place, names, is_named)

    def _fields(
        self, node: Node, place: Place, names: tuple[str, ...], is_named: bool
    ) -> Iterable[tuple[str | int, Node]]:
        for name, child in node.children.items():
            text = str(name)
            if text not in self._known:
                self._known[text] = self._names(text)
            found = self._node(child, (*place, text), (*names, text), is_named or self._known[text])
            if found is not None:
                yield text, found

    def _leaf(self, node: Node, place: Place, names: tuple[str, ...], is_named: bool) -> Node | None:
        value = plain_value(node.plain) if node.plain is not None else node.value
        assert not isinstance(value, dict | list)
        if value is None:
            return node
        token = encrypted_text(value) if isinstance(value, str) else None
        is_encrypted = self.metadata.is_encrypted(is_named)
        if self.metadata.is_by_comment or self.keys is None:
            is_encrypted = token is not None
        if not is_encrypted:
            self._count(value, place, False)
            return self._left(node, token, place)
        if value == "":  # sops leaves it as it is
            self._count(value, place, True)
            return node
        if token is None:
            message = (
                "is not encrypted, although the rule of the file wants it to be: was it added without sops?"
            )
            raise SopsError(f"{message} Encrypt it with: sops edit FILE", place)
        return self._opened(node, token, place, names)

    def _left(self, node: Node, token: EncryptedText | None, place: Place) -> Node:
        if token is not None:
            message = f"is encrypted, although {self.metadata.rule} of the file leaves it in plain: encrypt it again"
            raise SopsError(message, place)
        return node

    def _opened(self, node: Node, token: EncryptedText, place: Place, names: tuple[str, ...]) -> Node | None:
        if self.keys is None:
            self._places.append(place)
            stands_in = _PLACEHOLDER_DATA if names[:1] == ("data",) else PLACEHOLDER
            return Node(stands_in, node.line, node.column)
        try:
            value = self._decrypted(token, "".join(f"{name}:" for name in names))
        except CannotDecrypt:
            message = "cannot be decrypted: it was changed, or was copied from another place or file"
            raise SopsError(
                f"{message}. Restore it from Git, and edit it with: sops edit FILE", place
            ) from None
        except ValueError as error:
            raise SopsError(f"cannot be decrypted: {_told(error)}", place) from None
        if token.type == _COMMENT:
            return None
        self._places.append(place)
        self._count(value, place, True)
        return Node(value.text if isinstance(value, Time) else value, node.line, node.column)

    def _decrypted(self, token: EncryptedText | None, place: str) -> Plain | Time:
        """Raises CannotDecrypt; ValueError for a value that is not of its type."""
        if token is None or self.keys is None:
            raise CannotDecrypt
        content = self.keys.decrypt(self._key, token.iv, token.data + token.tag, place.encode())
        return None if token.type == _COMMENT else decrypted_value(content, token.type)

    def _count(self, value: Plain | Time, place: Place, is_encrypted: bool) -> None:
        if is_encrypted or not self.metadata.is_mac_of_encrypted:
            try:
                self._mac.update(mac_bytes(value))
            except UnicodeEncodeError:
                raise SopsError("holds half of a character (\\ud83d alone)", place) from None


def _rebuilt(node: Node, fields: Iterable[tuple[str | int, Node]]) -> Node:
    children = dict(fields)
    return replace(
        node, value={str(name): child.value for name, child in children.items()}, children=children
    )


def _told(error: ValueError) -> str:
    """Return the error without the value, which errors of Python quote."""
    if isinstance(error, UnicodeDecodeError):
        return "it is not text in UTF-8; encrypt it in Base64"
    return str(error) if str(error).startswith("its type") else "it is not a value of its type"
