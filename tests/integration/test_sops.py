"""The real program and our reader agree: it encrypts, we decrypt; what tests encrypt, it decrypts. Without `sops`
(`make sops`) these tests are skipped."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.sops import SopsError, open_documents, open_file
from controller.yaml_documents import parse
from tests.support.sops_files import Sops, encrypted_document, some_keys

RULES: tuple[dict[str, object], ...] = (
    {},
    {"encrypted_regex": "^(data|stringData)$"},
    {"unencrypted_regex": "^(a|list)$"},
    {"encrypted_suffix": "a"},
    {"unencrypted_suffix": "_u"},
    {"encrypted_regex": "a|b", "mac_only_encrypted": True},
    {"encrypted_comment_regex": "secret"},
    {"unencrypted_comment_regex": "public"},
)
DOCUMENTS = """# public
a: 1
b: 2.50
data: {anchor: &x value, alias: *x, none: null, empty: "", when: 2001-12-14, on: yes, large: 1e22}
list:
  # secret
  - one
  - {x: 0x1F, y: [a, [b, {c: 0o17}]]}
stringData:
  text: |
    two
    lines: é漢😀
  name_u: plain # secret
---
second: [1, two, 3.0, false]
"""


@pytest.fixture(scope="module")
def sops(tmp_path_factory: pytest.TempPathFactory) -> Sops:
    return Sops.of(tmp_path_factory.mktemp("sops"), some_keys(number=2))


def as_json(sops: Sops, name: str, content: bytes) -> Any:
    """What the program itself decrypts, of a file with one document."""
    return json.loads(sops.decrypt(name, content, "--output-type", "json"))


def opened(sops: Sops, content: bytes) -> list[Any]:
    parsed = parse("f.yaml", content)
    assert parsed.problems == ()
    return [document.value for document in open_documents(parsed.documents, sops.keys).documents]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_yaml_under_each_rule(sops: Sops, rule: dict[str, object]) -> None:
    content = sops.encrypt("f.yaml", DOCUMENTS, **rule)
    assert b"ENC[" in content
    again = parse("f.yaml", sops.decrypt("f.yaml", content))
    assert opened(sops, content) == [document.value for document in again.documents]


@pytest.mark.parametrize("name", ["f.json", "f.env", "f.key"])
def test_other_formats(sops: Sops, name: str) -> None:
    plain = '{"A": "1", "B": "é"}' if name == "f.json" else "A=1\nB=é\n# no\nC=a\\nb\n"
    content = sops.encrypt(name, plain)
    found = open_file(name, content, sops.keys)
    assert found.was_encrypted
    written = sops.decrypt(name, content).decode()
    assert found.text == (plain if name == "f.key" else written.replace("# no\n", ""))


def test_the_key_is_rotated_by_the_program(sops: Sops) -> None:
    """Another data key, and the same values."""
    content = sops.encrypt("f.yaml", DOCUMENTS)
    (sops.folder / "f.yaml").write_bytes(content)
    rotated = sops.run("rotate", "f.yaml")
    assert rotated != content
    assert opened(sops, rotated) == opened(sops, content)


def test_a_value_is_changed_by_the_program(sops: Sops) -> None:
    content = sops.encrypt("f.yaml", "stringData: {a: x, b: y}\n", encrypted_regex="^stringData$")
    (sops.folder / "f.yaml").write_bytes(content)
    sops.run("set", "f.yaml", '["stringData"]["a"]', '"changed"')
    assert opened(sops, (sops.folder / "f.yaml").read_bytes()) == [{"stringData": {"a": "changed", "b": "y"}}]


def test_what_tests_encrypt_is_what_the_program_would_have(sops: Sops) -> None:
    document = {"stringData": {"a": "x", "n": 1}, "kind": "Secret", "list": [1, 2.5, True, None, ""]}
    assert as_json(sops, "f.yaml", encrypted_document(document, sops.keys).encode()) == document


NAMES = st.text(string.ascii_letters + "_-.:", min_size=1, max_size=8).filter(lambda name: name != "sops")
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=20)
LEAVES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXTS
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(NAMES, VALUES, min_size=1, max_size=4), st.sampled_from(("f.json", "f.yaml")))
def test_any_document(sops: Sops, document: dict[str, Any], name: str) -> None:
    content = sops.encrypt(name, json.dumps(document, ensure_ascii=False), unencrypted_regex="^[a-m]")
    try:
        found = open_file(name, content, sops.keys).text if name == "f.json" else opened(sops, content)[0]
    except SopsError as error:
        raise AssertionError(error.message) from error
    assert (json.loads(found) if isinstance(found, str) else found) == document


def test_a_file_for_others_alone(tmp_path: Path) -> None:
    content = Sops.of(tmp_path, some_keys()).encrypt("f.env", "A=1\n")
    with pytest.raises(SopsError, match="which demo has no key of"):
        open_file("f.env", content, some_keys())
