"""Which builder builds a Dockerfile, and the Dockerfile that BuildKit is given. Pure.

The classic builder has a network for builds in which the firewall's rules hold; BuildKit has only the engine's default
network or none. BuildKit runs any image that a Dockerfile names as its frontend, mounts the caches and secrets that it
names, and knows more instructions. So it is used where nothing is lost by it, or where a Dockerfile needs it, and what
it is given is judged first.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum

from controller.adapters.docker.dockerfile import (
    Instruction,
    instructions,
    is_no_instruction,
    mount_options,
    refused,
    triggered,
)
from controller.domain.errors import Stalled
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason


class Builder(StrEnum):
    CLASSIC = "classic"
    BUILDKIT = "buildkit"


@dataclass(frozen=True)
class Need:
    """What only BuildKit builds, and the line that has it."""

    line: int
    what: str


#: Since which engine the frontend that is part of it knows heredocs.
HEREDOCS_SINCE = 23
_NEW_FLAGS = {
    "RUN": {"mount", "network", "security", "device"},
    "COPY": {"chmod", "link", "parents", "exclude"},
    "ADD": {"chmod", "link", "exclude", "checksum", "keep-git-dir", "unpack"},
}
_HEREDOC_IN = ("RUN", "COPY", "ADD", "ONBUILD")
_MARKER = re.compile(r"""(?:^|(?<=\s))\d*<<(-?)(["']?)([A-Za-z_][A-Za-z0-9_.-]*)\2(?=\s|$)""")
#: What cannot begin a heredoc: a text in the shell (`<<<`), and a shift within a word.
_NO_HEREDOC = re.compile(r"(?<!<)<<<(?!<)|(?<=[A-Za-z_)(+=])\d*<<(?!<)")
_UNCLEAR = re.compile(r"""['"\\`$#{}]""")
_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*$")
_OTHER_SYNTAX = ("//", "{", "#!")
_FRONTEND = re.compile(
    r"(?:docker\.io/)?docker/dockerfile(?:-upstream)?(?::[\w.-]+)?(?:@sha256:[0-9a-f]{64})?"
)


def needs(content: bytes) -> tuple[Need, ...]:
    """Return what a Dockerfile has that the classic builder does not know."""
    found, _ = instructions(content)
    return tuple(need for one in found for need in _needs(one))


def _needs(one: Instruction) -> Iterator[Need]:
    keyword, flags = one.keyword, [name for name, _ in one.flags]
    if keyword == "ONBUILD":
        yield from _needs(triggered(one))
    for name in flags:
        if name in _NEW_FLAGS.get(keyword, ()):
            yield Need(one.first, f"{keyword} --{name}")
    if keyword in _HEREDOC_IN[:3] and _MARKER.search(one.text):
        yield Need(one.first, Localizable("{keyword} with a heredoc (<<)", keyword=keyword))


def choose(wanted: str, network: str, needed: tuple[Need, ...]) -> Builder:
    """Return the builder, by `docker.builder` and `docker.buildNetwork`. Raises Stalled `BuildRefused` that names what
    the classic builder, if it is the only one permitted, does not know."""
    if wanted == Builder.BUILDKIT:
        return Builder.BUILDKIT
    if wanted == Builder.CLASSIC:
        if needed:
            first = Localizable(
                "line {line} of the Dockerfile: {what}", line=needed[0].line, what=needed[0].what
            )
            raise Stalled(
                Reason.BUILD_REFUSED,
                Localizable("{first} needs BuildKit, and docker.builder is classic", first=first),
            )
        return Builder.CLASSIC
    return Builder.BUILDKIT if needed or network != "own" else Builder.CLASSIC


@dataclass(frozen=True)
class Prepared:
    """`content` has the same lines as the developer's Dockerfile, and what is to be judged by `images_of` in
    `judged`, which is without the texts of heredocs. `runs`: it has steps that run something."""

    content: bytes
    judged: bytes
    runs: bool


def prepare(content: bytes, engine: int, secrets: Collection[str]) -> Prepared:
    """Return the Dockerfile for the BuildKit of an engine of this major version. Raises Stalled `BuildRefused` for what
    would take more than a build may. `secrets` has the ids that the manifest declares."""
    plain = _without_directives(content)
    judged = _without_heredocs(plain, engine >= HEREDOCS_SINCE)
    found, _ = instructions(judged)
    for one in found:
        _judge(one, secrets)
    runs = any(one.keyword == "RUN" for one in found)
    return Prepared(plain, judged, runs)


def refused_argument(names: Collection[str]) -> str | None:
    """Return a build argument by which BuildKit would run another frontend, or change how it builds."""
    return next((name for name in names if name.upper().startswith("BUILDKIT_")), None)


def _judge(one: Instruction, secrets: Collection[str]) -> None:
    if one.keyword == "ONBUILD":
        _judge(triggered(one), secrets)
    if one.keyword != "RUN":
        return
    for name, value in one.flags:
        if name == "security" and value != "sandbox":
            raise refused(one, Localizable("`--security` would give the step the rights of the host"))
        if name == "network" and value not in ("none", "default"):
            raise refused(
                one,
                Localizable(
                    "`--network` can be none or default: the step must not have the network of the host"
                ),
            )
        if name == "device":
            raise refused(one, Localizable("`--device` would give the step a device of the host"))
        if name == "mount":
            _judge_mount(one, value, secrets)


def _judge_mount(one: Instruction, value: str, secrets: Collection[str]) -> None:
    options = mount_options(one, value)
    kind = options.get("type", "bind").lower()
    if kind == "ssh" or "$" in kind:
        raise refused(
            one,
            Localizable(
                "`--mount` of type {kind} is not supported; use bind, cache, tmpfs or secret", kind=kind[:20]
            ),
        )
    if kind == "secret":
        id = options.get("id") or options.get("source") or options.get("target", "").rpartition("/")[2]
        if id not in secrets:
            raise refused(
                one,
                Localizable(
                    "secret {id!r} is not declared: add it to `build.secrets` of the manifest", id=id[:100]
                ),
            )


def _without_directives(content: bytes) -> bytes:
    """Blank out all lines before the first instruction: `# syntax=…` in one of them makes the engine run an image as
    its frontend, and the engine's own one is used. Raises Stalled `BuildRefused` for another frontend than Docker's.
    """
    _, escape = instructions(content)
    lines = content.decode("utf-8", "surrogateescape").removeprefix("\ufeff").split("\n")
    if lines[0].lstrip().startswith(_OTHER_SYNTAX):
        first = Instruction(1, 1, lines[0].strip()[:20], "")
        raise refused(first, Localizable("begin with an instruction, or with a comment"))
    is_directive = True
    for number, line in enumerate(lines):
        if not is_no_instruction(line):
            break
        match = _DIRECTIVE.match(line.strip()) if is_directive else None
        is_directive = match is not None
        if match and match[1].lower() == "syntax" and not _FRONTEND.fullmatch(match[2]):
            place = Instruction(number + 1, number + 1, "syntax", "")
            raise refused(
                place,
                Localizable(
                    "{image} would run on the engine; only docker/dockerfile can be named",
                    image=match[2][:200],
                ),
            )
        lines[number] = "#"
    if escape != "\\":
        lines[0] = f"# escape={escape}"
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def _without_heredocs(content: bytes, known: bool) -> bytes:
    """Return the content with empty lines in place of the texts of heredocs. What BuildKit might read differently is
    refused: an instruction could hide in it."""
    lines = content.split(b"\n")
    begun = {
        one.last: one for one in instructions(content)[0] if one.keyword in _HEREDOC_IN and "<<" in one.text
    }
    number = 0
    while number < len(lines):
        number += 1
        if (one := begun.get(number)) is None:
            continue
        markers = _markers(one, known)
        for dash, name in markers:
            while number < len(lines):
                line = lines[number].removesuffix(b"\r").decode("utf-8", "surrogateescape")
                lines[number] = b""
                number += 1
                if (line.lstrip("\t") if dash else line) == name:
                    break
            else:
                raise refused(one, Localizable("the heredoc has no line {name}", name=name))
    return b"\n".join(lines)


def _markers(one: Instruction, known: bool) -> list[tuple[str, str]]:
    found = list(_MARKER.finditer(one.text))
    if found and not known:
        raise refused(
            one,
            Localizable(
                "heredocs (<<) need Docker Engine {version} or newer; write a RUN with &&",
                version=HEREDOCS_SINCE,
            ),
        )
    if not known:
        return []
    rest = _NO_HEREDOC.sub("", _MARKER.sub("", one.text))
    before = _MARKER.sub("", one.text[: found[-1].end()] if found else "")
    if "<<" in rest or _UNCLEAR.search(before):
        raise refused(
            one, Localizable("write heredocs as `<<NAME`, before quotes, variables and escapes in the line")
        )
    return [(match[1], match[3]) for match in found]
