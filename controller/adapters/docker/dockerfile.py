"""What a Dockerfile asks of the builder beyond its own context: images by name, and addresses that the engine
itself would fetch from. Parsed as by the classic builder. Pure.

The engine runs on the host, so it fetches with the host's rights, and can reach services that containers
cannot. It also accepts any image name that it knows, including builds of other apps. So this module returns
the names, and `images` checks them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from controller.domain.errors import Stalled
from controller.domain.reasons import Reason

_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(\S+)\s*$")
_VARIABLE = re.compile(r"\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)(?::([-+])([^{}$]*))?\})")


@dataclass(frozen=True)
class Instruction:
    """An instruction from line `first` to `last`, counted from 1. `keyword` is in upper case; `text` is the
    rest, in one line.
    """

    first: int
    last: int
    keyword: str
    text: str

    @property
    def words(self) -> list[str]:
        """The words without flags such as `--chown=…`, whether they are written as words or as a JSON array."""
        plain = self.text.split()
        while plain and plain[0].startswith("--"):
            plain.pop(0)
        if plain and plain[0].startswith("["):
            try:
                listed = json.loads(self.text[self.text.index("[") :])
            except (ValueError, RecursionError):
                return plain
            if isinstance(listed, list):
                return [str(word) for word in listed]
        return plain

    def flag(self, name: str) -> str | None:
        flags = [word for word in self.text.split() if word.startswith(f"--{name}=")]
        return flags[0].partition("=")[2] if flags else None


def instructions(content: bytes) -> tuple[list[Instruction], str]:
    """Return the instructions and the escape character."""
    found: list[Instruction] = []
    escape, at_top = "\\", True
    parts: list[str] = []
    first = 0
    for number, line in enumerate(content.decode("utf-8", "surrogateescape").split("\n"), start=1):
        text = line.removeprefix("\ufeff").strip()
        directive = _DIRECTIVE.match(text) if at_top else None
        at_top = directive is not None
        if directive and directive[1].lower() == "escape":
            escape = directive[2]
        if not text or text.startswith("#"):
            continue  # does not end a continued instruction either
        first = first or number
        continued = text.endswith(escape)
        whole = line.rstrip() if parts else text  # continued text keeps its indentation
        parts.append(whole.removesuffix(escape) if continued else whole)
        if not continued:
            found.append(_instruction(first, number, "".join(parts)))
            first, parts = 0, []
    if parts:
        found.append(_instruction(first, first, "".join(parts)))
    return found, escape


def _instruction(first: int, last: int, text: str) -> Instruction:
    keyword, *rest = text.split(None, 1) or [""]
    return Instruction(first, last, keyword.upper(), "".join(rest))


def images_of(content: bytes, given: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of all images that a build starts from or copies from, except its own stages; `given`
    has the values of its arguments. Raises Stalled `BuildRefused` for what the engine would fetch from
    elsewhere, and for unknown names.
    """
    found, escape = instructions(content)
    variables: dict[str, str] = {}
    stages: set[str] = set()
    images: dict[str, None] = {}
    for instruction in found:
        match instruction.keyword:
            case "ARG" if not stages:
                for word in instruction.words:
                    name, _, value = word.partition("=")
                    variables[name] = given.get(name, _expanded(value.strip("\"'"), variables, instruction))
            case "FROM":
                image, *named = instruction.words or [""]
                image = _expanded(image.strip("\"'"), variables, instruction)
                # The builder refuses one without a name, with the best message.
                if image and image.lower() not in stages and image.lower() != "scratch":
                    images[image] = None
                stages |= {f"line {instruction.first}", *(name.lower() for name in named[1:2])}
            case "ONBUILD":
                inner = _instruction(instruction.first, instruction.last, instruction.text or "NONE")
                images |= dict.fromkeys(_copied(inner, stages, escape))
            case _:
                images |= dict.fromkeys(_copied(instruction, stages, escape))
    return tuple(images)


def _copied(instruction: Instruction, stages: set[str], escape: str) -> Iterator[str]:
    if instruction.keyword == "ADD":
        _refuse_remote(instruction, escape)
    if instruction.keyword not in ("ADD", "COPY") or (source := instruction.flag("from")) is None:
        return
    if "$" in source:
        raise _refused(instruction, "write the image of `--from` without variables")
    if source.lower() not in stages and not source.isdecimal():
        yield source


def _refuse_remote(instruction: Instruction, escape: str) -> None:
    for word in instruction.words[:-1]:
        plain = word.replace(escape, "").replace('"', "").replace("'", "")
        if "://" in plain:
            why = "ADD would fetch it with the rights of this host; fetch it in a RUN, or commit the file"
            raise _refused(instruction, f"{word[:200]} is remote: {why}")
        if "$" in plain:
            raise _refused(
                instruction,
                f"{word[:200]} may be a URL: use COPY, or write the source of ADD without variables",
            )


def _expanded(text: str, variables: Mapping[str, str], instruction: Instruction) -> str:
    """Expand arguments that are declared before the first FROM, as the builder does."""

    def value(match: re.Match[str]) -> str:
        found = variables.get(match[1] or match[2], "")
        if match[3] == "-":
            return found or match[4]
        return (match[4] if found else "") if match[3] == "+" else found

    expanded = _VARIABLE.sub(value, text)
    if "$" in expanded or "\\" in expanded or "`" in expanded:
        raise _refused(
            instruction, f"cannot determine the image of `{text[:200]}`: write it without such variables"
        )
    return expanded


def _refused(instruction: Instruction, why: str) -> Stalled:
    return Stalled(
        Reason.BUILD_REFUSED, f"line {instruction.first} of the Dockerfile, {instruction.keyword}: {why}"
    )
