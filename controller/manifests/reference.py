"""`python -m controller.manifests.reference docs/reference/manifests.md` renews the generated part of that
page: all kinds with all fields, as the schemas describe them. A test fails while page and schemas differ. The
running controller does not use it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from controller.domain.apps.spec import ComponentKind
from controller.manifests.schema import schema
from controller.yaml_documents import parse

MARKER = "<!-- From here on generated: python -m controller.manifests.reference -->\n"

#: Parts of several kinds, which are described once, with their paths in MLComponent.
_SHARED = {
    "metadata": "metadata",
    "image": "spec.image",
    "env": "spec.env",
    "envFrom": "spec.envFrom",
    "connectedBoxes": "spec.connectedBoxes",
    "resources": "spec.resources",
}
_WIDTH = 100
_PLAIN = re.compile(r"[\w./][\w./@:-]*(?: [\w./-]+)*")
_WORDS = frozenset({"yes", "no", "on", "off"})  # truth values in YAML 1.1
_KINDS_OF_VALUE = {"object": "mapping", "array": "list", "boolean": "true or false"}


def renewed(page: str) -> str:
    """Return the page with the part after the marker regenerated. Raises ValueError if it has no marker."""
    head, marker, _ = page.partition(MARKER)
    if not marker:
        raise ValueError("the page lacks the line that marks the generated part")
    return head + marker + "".join(f"\n{_section(kind)}" for kind in ComponentKind) + f"\n{_shared_section()}"


def _section(kind: ComponentKind) -> str:
    content = schema(kind)
    examples = "---\n".join(to_yaml(example) for example in content["examples"])
    table = _table(_rows(content, "", _SHARED))
    return f"## {kind}\n\n{content['description']}\n\n```yaml\n{examples}```\n\n{table}\n"


def _shared_section() -> str:
    tables = []
    for name, path in _SHARED.items():
        field = schema(ComponentKind.ML_COMPONENT)
        for step in path.split("."):
            field = field["properties"][step]
        rows = [*_rows(field, f"{name}.", {}), *_rows(field.get("items", {}), f"{name}[].", {})]
        tables.append(f"### {name}\n\n{_table(rows)}\n")
    return "## Parts that several kinds have\n\n" + "\n".join(tables)


def _table(rows: Iterable[str]) -> str:
    return "\n".join(["| field | value | default | meaning |", "|---|---|---|---|", *rows])


def _rows(part: Mapping[str, Any], prefix: str, shared: Collection[str]) -> Iterator[str]:
    for name, field in part.get("properties", {}).items():
        path = f"{prefix}{name}"
        if path in ("apiVersion", "kind"):
            continue
        default = f"`{_flow(field['default'])}`" if field.get("default", {}) != {} else ""
        if name in part.get("required", []):
            default = "required"
        meaning = field.get("description", "")
        if name in shared:
            meaning += f" See [{name}](#{name.lower()})."
        cells = (f"`{path}`", _value(field), default, meaning)
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
        if name not in shared:
            yield from _rows(field, f"{path}.", shared)
            yield from _rows(field.get("items", {}), f"{path}[].", shared)


def _value(field: Mapping[str, Any]) -> str:
    """Return a short description of the value: the beginning of its title."""
    if "enum" in field:
        return " or ".join(f"`{option}`" for option in field["enum"])
    if isinstance(field.get("type"), str) and field["type"] in _KINDS_OF_VALUE:
        return _KINDS_OF_VALUE[field["type"]]
    short = re.split(r" such as| \(|[,;:] ", field.get("title", ""))[0]
    return re.sub(r"^an? |^the ", "", short)


def to_yaml(value: Any, indent: int = 0) -> str:
    """Return YAML in block style; short values stay in one line."""
    pad = " " * indent
    text = ""
    for key, item in value.items():
        line = f"{pad}{_scalar(key)}: {_flow(item)}"
        top = indent == 0 and isinstance(item, dict) and key == "spec"
        if len(line) <= _WIDTH and not top and _depth(item) <= 2:
            text += f"{line}\n"
        elif isinstance(item, dict):
            text += f"{pad}{_scalar(key)}:\n{to_yaml(item, indent + 2)}"
        else:
            entries = (_entry(entry, indent + 2) for entry in item)
            text += f"{pad}{_scalar(key)}:\n{''.join(entries)}"
    return text


def _entry(item: Any, indent: int) -> str:
    line = f"{' ' * indent}- {_flow(item)}"
    if len(line) <= _WIDTH or not isinstance(item, dict):
        return f"{line}\n"
    block = to_yaml(item, indent + 2)
    return f"{' ' * indent}- {block[indent + 2 :]}"


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_scalar(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        read = parse("", value.encode()).documents
        if len(read) == 1 and read[0].value == value:
            return value
    return json.dumps(value, ensure_ascii=False)


def _depth(value: Any) -> int:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if children is None else 1 + max(map(_depth, children), default=0)


def main() -> None:
    page = Path(sys.argv[1])
    page.write_text(renewed(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
