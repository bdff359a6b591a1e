"""Files of the real program are decrypted; whatever is changed in them afterwards is found, with its place."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from controller.age import AgeKeys
from controller.sops import PLACEHOLDER, OpenedDocuments, SopsError, is_encrypted, open_documents
from controller.yaml_documents import parse
from tests.support.sops_files import FIXTURES, encrypted_document, recorded_keys, some_keys

KEYS = recorded_keys()
KINDS = {
    "int": 1,
    "float": 2.5,
    "exponent": 1000,
    "hex": 31,
    "octal": 511,
    "octal2": 15,
    "under": 1000,
    "bool": True,
    "word": "yes",
    "nothing": None,
    "tilde": None,
    "date": "2001-12-14T00:00:00Z",
    "time": "2001-12-14T21:59:43.1-05:00",
    "space": "2001-12-14T21:59:43Z",
    "empty": "",
    "digits": "1",
    "point": 0.5,
    "large": 1e22,
    "huge": 1.2345678901234568e29,
    "binary": 5,
    "small": 1e-7,
    "list": ["one", {"x": 1, "y": ["a", "b", {"c": "d"}]}, "", 3],
    "deep": {"anchor": "value", "alias": "value", "x_unencrypted": "plain"},
    "folded": "a b c",
    "quoted": "tab\t nl\n 😀",
}
CERT = "-----BEGIN CERTIFICATE-----\nline: é漢😀\n-----END CERTIFICATE-----\n"


def recorded(name: str) -> str:
    return (FIXTURES / name).read_text()


def opened(text: str, keys: AgeKeys | None = KEYS) -> OpenedDocuments:
    parsed = parse("f.yaml", text.encode())
    assert parsed.problems == ()
    assert is_encrypted(parsed.documents)
    return open_documents(parsed.documents, keys)


def refused(text: str, keys: AgeKeys | None = KEYS) -> str:
    with pytest.raises(SopsError) as caught:
        opened(text, keys)
    return f"{'.'.join(map(str, caught.value.path))}: {caught.value.message}"


# --- what the program has written ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "kinds.yaml",
        "kinds-plain.yaml",
        "kinds-suffix.yaml",
        "kinds-unencrypted.yaml",
        "comment.yaml",
        "uncomment.yaml",
    ],
)
def test_values_of_all_kinds(name: str) -> None:
    first, second = opened(recorded(name)).documents
    assert first.value == KINDS
    assert second.value == {"second": {"doc": [1, "two"]}}


@pytest.mark.parametrize("name", ["secret.yaml", "whole.yaml", "mac-only.yaml"])
def test_a_secret(name: str) -> None:
    found = opened(recorded(name))
    secret, box = (document.value for document in found.documents)
    assert isinstance(secret, dict)
    assert secret["stringData"] == {"TOKEN": "hunter2-horse", "EMPTY": "", "CERT": CERT}
    assert secret["data"] == {"BASE64": "Y29ycmVjdC1ob3JzZQ=="}
    assert isinstance(box, dict)
    assert box["kind"] == "DataBox"
    assert ("stringData", "TOKEN") in found.encrypted[0]
    assert ("stringData", "EMPTY") not in found.encrypted[0]
    assert (found.encrypted[1] == frozenset()) is (name != "whole.yaml")


def test_positions_are_those_of_the_file() -> None:
    text = recorded("secret.yaml")
    line = next(i for i, each in enumerate(text.splitlines(), 1) if "TOKEN" in each)
    assert opened(text).documents[0].place(("stringData", "TOKEN"))[0] == line


def test_without_keys_the_structure_remains() -> None:
    found = opened(recorded("secret.yaml"), None)
    secret = found.documents[0].value
    assert isinstance(secret, dict)
    assert secret["stringData"] == {"TOKEN": PLACEHOLDER, "EMPTY": "", "CERT": PLACEHOLDER}
    assert secret["data"] == {"BASE64": "bm90IGRlY3J5cHRlZA=="}
    assert "sops" not in secret
    assert not found.is_decrypted


# --- what was changed since ----------------------------------------------------------------------------------------


def swapped(text: str) -> str:
    """Two encrypted values in each other's place."""
    first, second = re.findall(r"ENC\[[^\]]+\]", text)[:2]
    return text.replace(first, "\0").replace(second, first).replace("\0", second)


CHANGES: dict[str, Callable[[str], str]] = {
    "plain value": lambda text: text.replace("name: weights", "name: other"),
    "removed": lambda text: text.replace("metadata:\n    name: weights\n", ""),
    "added in plain": lambda text: text.replace("metadata:", "added: 1\nmetadata:", 1),
    "added to a list": lambda text: text.replace("kind: DataBox", "kind: DataBox\nmore: [1]"),
    "order": lambda text: text.replace(
        "apiVersion: unified-platform.cs.hse.ru/v1\nkind: DataBox", "kind: DataBox\napiVersion: x"
    ),
    "document removed": lambda text: text.split("---\napiVersion")[0],
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_mac_covers_what_is_not_encrypted(change: str) -> None:
    text = CHANGES[change](recorded("secret.yaml"))
    assert text != recorded("secret.yaml")
    assert refused(text).startswith("sops.mac: the MAC does not match")


def test_a_mac_of_encrypted_values_alone_does_not() -> None:
    text = recorded("mac-only.yaml").replace("name: weights", "name: other")
    box = opened(text).documents[1].value
    assert isinstance(box, dict)
    assert box["metadata"] == {"name": "other"}


def test_a_value_in_another_place_is_not_decrypted() -> None:
    assert refused(swapped(recorded("secret.yaml"))).startswith("stringData.TOKEN: cannot be decrypted")


@pytest.mark.parametrize("name", ["secret.yaml", "mac-only.yaml"])
def test_a_value_that_was_added_by_hand_stops_the_file(name: str) -> None:
    text = recorded(name).replace("stringData:\n", "stringData:\n    ADDED: by-hand\n")
    assert refused(text).startswith("stringData.ADDED: is not encrypted, although the rule")


@pytest.mark.parametrize("name", ["secret.yaml", "mac-only.yaml"])
def test_an_encrypted_value_that_was_emptied_is_found(name: str) -> None:
    text = re.sub(r"TOKEN: ENC\[[^\]]+\]", 'TOKEN: ""', recorded(name))
    assert refused(text).startswith("sops.mac: the MAC does not match")


def test_an_encrypted_value_where_the_rule_leaves_plain_ones() -> None:
    found = re.search(r"ENC\[[^\]]+\]", recorded("secret.yaml"))
    assert found
    text = recorded("secret.yaml").replace("name: weights", f"name: {found[0]}")
    assert refused(text).startswith("metadata.name: is encrypted, although encrypted_regex")


METADATA: list[tuple[str, str, str]] = [
    (r"lastmodified: .*", 'lastmodified: "2020-01-01T00:00:00Z"', "sops.mac: the MAC is damaged"),
    (r"lastmodified: .*", "lastmodified: yesterday", "sops.lastmodified: must be a time"),
    (r"    mac: .*\n", "", "sops.mac: the MAC is missing"),
    (r"mac: ENC.*", "mac: ''", "sops.mac: the MAC is missing"),
    (r"encrypted_regex: .*", "encrypted_regex: '('", "sops.encrypted_regex: is not a regular expression"),
    (r"encrypted_regex: .*", "encrypted_regex: [a]", "sops.encrypted_regex: must be text"),
    (
        r"encrypted_regex: .*",
        "encrypted_regex: a\n    unencrypted_suffix: b",
        "sops: only one of unencrypted_suffix and encrypted_regex",
    ),
    (r"encrypted_regex: .*", "encrypted_regex: ^nothing$", "stringData.TOKEN: is encrypted, although"),
    (r"recipient: .*", "recipient: age1somebody", "sops.age: it is encrypted for age1somebody, which demo"),
    (r"(?s)    age:\n.*?(?=    encrypted)", "", "sops: it is encrypted for nobody"),
    (r"(?s)    age:\n.*?(?=    encrypted)", "    age: 1\n", "sops.age: must be a list"),
    (r"(?s)    age:\n.*?(?=    encrypted)", "    age: [1]\n", "sops.age.0: must have the fields"),
    (
        r"    age:\n",
        "    key_groups: [{age: []}]\n    age:\n",
        "sops.key_groups: the key of the file is split",
    ),
    (r"    age:\n", "    pgp: [{fp: x}]\n    age:\n", ""),  # keys of other kinds do not matter
    (r"BEGIN AGE", "BEGIN OLD", "sops.age.0.enc: the key of the file cannot be decrypted"),
]


@pytest.mark.parametrize(("pattern", "by", "told"), METADATA, ids=range(len(METADATA)))
def test_metadata(pattern: str, by: str, told: str) -> None:
    text = re.sub(pattern, lambda _: by, recorded("secret.yaml"))
    assert text != recorded("secret.yaml")
    if told:
        assert refused(text).startswith(told)
    else:
        opened(text)


def test_for_another_key_the_message_says_what_to_do() -> None:
    others = some_keys("other")
    told = refused(recorded("secret.yaml"), others)
    assert KEYS.recipients[0] in told
    assert f"name {others.recipients[0]} in .sops.yaml (prichal secret key other)" in told
    assert "sops updatekeys" in told


def test_only_the_key_that_is_named_is_tried() -> None:
    """A recipient that names our key, with a file key that is encrypted for another."""
    text = encrypted_document({"stringData": {"A": "x"}}, some_keys())
    theirs = json.loads(text)["sops"]["age"][0]
    document = json.loads(encrypted_document({"stringData": {"A": "x"}}, KEYS))
    document["sops"]["age"][0]["enc"] = theirs["enc"]
    assert "cannot be decrypted" in refused(json.dumps(document))


def test_keys_that_cannot_be_read() -> None:
    keys = replace(KEYS, keys=(), problem="the keys are lost")
    assert refused(recorded("secret.yaml"), keys) == "sops.age: the keys are lost"


def test_several_keys_and_several_recipients() -> None:
    keys = some_keys(number=3)
    text = encrypted_document({"stringData": {"A": "x"}}, AgeKeys("demo", keys.keys[1:]))
    for mine in (keys, AgeKeys("demo", keys.keys[2:])):
        assert opened(text, mine).documents[0].value == {"stringData": {"A": "x"}}


# --- bounds --------------------------------------------------------------------------------------------------------


def with_metadata(**changes: Any) -> str:
    document = json.loads(encrypted_document({"stringData": {"A": "x"}}, KEYS))
    document["sops"].update(changes)
    return json.dumps(document)


def test_numbers_and_sizes_are_bounded() -> None:
    entry = {"recipient": "age1x", "enc": "x"}
    assert "at most 100 recipients" in refused(with_metadata(age=[entry] * 101))
    assert "characters" in refused(with_metadata(age=[{"recipient": "age1x", "enc": "x" * 20_000}]))
    assert "RE2" in refused(with_metadata(encrypted_regex="a{1000}{1000}"))
    assert "1000 characters" in refused(with_metadata(encrypted_regex="a" * 1001))


def test_a_regular_expression_takes_linear_time() -> None:
    """With Python's it would take years."""
    text = encrypted_document(
        {"stringData": {"a" * 200: "x"}}, KEYS, rule={"encrypted_regex": "^(a+)+$|^stringData$"}
    )
    assert opened(text).documents[0].value == {"stringData": {"a" * 200: "x"}}


@pytest.mark.parametrize("raw", ["1", "[]", "null", "text", "{}", "{mac: 1}"])
def test_metadata_that_are_none(raw: str) -> None:
    assert refused(f"a: 1\nsops: {raw}\n")
