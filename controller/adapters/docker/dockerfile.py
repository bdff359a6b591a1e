"""What a Dockerfile asks of the builder beyond its own context: images by name, and addresses that the engine
itself would fetch from. Pure.

The engine runs on the host, so it fetches with the host's rights, and can reach services that containers
cannot. It also accepts any image name that it knows, including builds of other apps. So this module returns
the names, and `images` checks them. Flags and continued lines are read exactly as by the builders: what both
sides read differently could hide a name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from controller.adapters.docker.dockerfile_arguments import GlobalArguments, UnclearArgument
from controller.domain.errors import Stalled
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason

#: White space for Python alone, not for the builders.
_SEPARATORS = "\x1c\x1d\x1e\x1f"
#: A line ends with an escape character that continues it, unless another one is before it.
_CONTINUED = {escape: re.compile(rf"(?<!{re.escape(escape)}){re.escape(escape)}[ \t]*\Z") for escape in "\\`"}
_ESCAPE = re.compile(r"#[ \t]*escape[ \t]*=[ \t]*([\\`])[ \t]*\r?", re.IGNORECASE)
_LIKE_ESCAPE = re.compile(r"#\s*escape\s*=", re.IGNORECASE)
_SYNTAX = re.compile(r"#[ \t]*syntax[ \t]*=[ \t]*[^\s=]+[ \t]*\r?", re.IGNORECASE)
#: Letters that builders take for ASCII ones in the name of an instruction, and Python does not.
_SMALL = str.maketrans({"\u0130": "i", "\u212a": "k"})
#: `ADD` of a Git repository as SSH writes it, without `://`.
_SSH_PLACE = re.compile(r"[^/\s]+@[^/\s]+:")


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
        rest = self._flags_and_rest[1]
        plain = rest.split()
        if plain and plain[0].startswith("["):
            try:
                listed = json.loads(rest)
            except (ValueError, RecursionError):
                return plain
            if isinstance(listed, list):
                return [str(word) for word in listed]
        return plain

    @property
    def flags(self) -> list[tuple[str, str]]:
        """Names and values of flags such as `--chown=1:1`, without quotes and escapes."""
        return [(name, value) for name, _, value in (flag.partition("=") for flag in self._flags_and_rest[0])]

    @cached_property
    def _flags_and_rest(self) -> tuple[list[str], str]:
        """Split as the builders do: quotes may be anywhere in a flag, and `--` alone ends the flags. The escape
        character does not matter: it is always a backslash here."""
        found: list[str] = []
        text, at = self.text, 0
        while (match := _FLAG.match(text, at)) is not None:
            at = match.end()
            flag = _unquoted(match[1])
            if flag == "--":
                break
            found.append(flag.removeprefix("--"))
        return found, text[at:].lstrip()


#: A word of flags: plain characters, escaped ones, and quoted parts, of which the last one may not end.
_FLAG = re.compile(
    r"""\s*(--(?:[^\s\\'"]|\\.|\\$|'(?:[^'\\]|\\.)*(?:'|\\?$)|"(?:[^"\\]|\\.)*(?:"|\\?$))*)""", re.DOTALL
)
_QUOTED = re.compile(r"""\\(.?)|'((?:[^'\\]|\\.)*)'?|"((?:[^"\\]|\\.)*)"?""", re.DOTALL)


def _unquoted(word: str) -> str:
    def plain(match: re.Match[str]) -> str:
        if match[1] is not None:
            return match[1]
        return re.sub(r"\\(.)", r"\1", match[2] if match[2] is not None else match[3], flags=re.DOTALL)

    return _QUOTED.sub(plain, word)


def instructions(content: bytes) -> tuple[list[Instruction], str]:
    """Return the instructions and the escape character. Raises Stalled `BuildRefused` for a file that builders of
    several versions read differently."""
    lines = content.decode("utf-8", "surrogateescape").removeprefix("\ufeff").split("\n")
    _refuse_separators(lines)
    escape = _escape(lines)
    found: list[Instruction] = []
    parts: list[str] = []
    first = 0
    for number, line in enumerate(lines, start=1):
        if is_no_instruction(line):
            continue  # does not end a continued instruction either
        first = first or number
        whole = line.removesuffix("\r")
        whole = whole if parts else whole.lstrip()  # continued text keeps its indentation
        continued = _CONTINUED[escape].search(whole)
        parts.append(whole[: continued.start()] if continued else whole)
        if not continued:
            found.append(_instruction(first, number, "".join(parts)))
            first, parts = 0, []
    if parts:
        found.append(_instruction(first, first, "".join(parts)))
    return found, escape


def _refuse_separators(lines: list[str]) -> None:
    for number, line in enumerate(lines, start=1):
        if line.endswith("\r\r") or any(separator in line for separator in _SEPARATORS):
            place = Instruction(number, number, "control character", "")
            raise refused(
                place, Localizable("remove it: builders and prichal may not agree where the line ends")
            )


def _escape(lines: list[str]) -> str:
    """Return the escape character that the first lines set. Builders take different comments with `=` for directives,
    below which they look for others: between these, only such are permitted that all builders read in the same way.
    """
    escape, is_clear = "\\", True
    for number, line in enumerate(lines, start=1):
        if not is_no_instruction(line) or "=" not in line:
            break
        match = _ESCAPE.fullmatch(line)
        if match is not None and is_clear:
            escape = match[1]
        elif _LIKE_ESCAPE.match(line.strip()):
            place = Instruction(number, number, "# escape", "")
            raise refused(
                place, Localizable("write it in the first line or below `# syntax=`, with nothing after it")
            )
        is_clear = is_clear and bool(match or _SYNTAX.fullmatch(line))
    return escape


def is_no_instruction(line: str) -> bool:
    """Return whether a line is empty or a comment for all builders."""
    text = line.strip()
    return not text or text.startswith("#")


def _instruction(first: int, last: int, text: str) -> Instruction:
    keyword, *rest = text.strip().split(None, 1) or [""]
    return Instruction(first, last, keyword.translate(_SMALL).upper(), "".join(rest))


def triggered(one: Instruction) -> Instruction:
    """Return the instruction in an `ONBUILD`."""
    return _instruction(one.first, one.last, one.text or "NONE")


def images_of(content: bytes, given: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of all images that a build starts from or copies from, except its own stages; `given`
    has the values of its arguments. Raises Stalled `BuildRefused` for what the engine would fetch from
    elsewhere, and for unknown names.
    """
    found, escape = instructions(content)
    arguments = GlobalArguments(given, escape)
    stages: set[str] = set()
    images: dict[str, None] = {}
    own: set[str] = set()  # names of the stage under way: the classic builder does not know it before its end
    for instruction in found:
        match instruction.keyword:
            case "ARG" if not own:
                try:
                    arguments.declare(instruction.text)
                except UnclearArgument as error:
                    raise refused(instruction, error.message) from None
            case "FROM":
                stages |= own
                image, *named = instruction.words or [""]
                try:
                    image = arguments.expanded(image)
                except UnclearArgument as error:
                    raise refused(instruction, error.message) from None
                # The builder refuses one without a name, with the best message.
                if image and image.lower() not in stages and image.lower() != "scratch":
                    images[image] = None
                own = {f"line {instruction.first}", *(name.lower() for name in named[1:2])}
            case "ONBUILD":
                images |= dict.fromkeys(_copied(triggered(instruction), stages, escape))
            case _:
                images |= dict.fromkeys(_copied(instruction, stages, escape))
    return tuple(images)


def _copied(instruction: Instruction, stages: set[str], escape: str) -> Iterator[str]:
    if instruction.keyword == "ADD":
        _refuse_remote(instruction, escape)
    for source in _sources(instruction):
        if "$" in source:
            raise refused(instruction, Localizable("write the image of `--from` without variables"))
        is_number = source.isascii() and source.isdecimal() and len(source) < 10  # of a stage
        if source and source.lower() not in stages and not is_number:
            yield source


def _sources(instruction: Instruction) -> Iterator[str]:
    """Yield the images and stages that an instruction reads files of."""
    for name, value in instruction.flags:
        if instruction.keyword in ("ADD", "COPY") and name == "from":
            yield value
        if instruction.keyword == "RUN" and name == "mount":
            yield mount_options(instruction, value).get("from", "")


def mount_options(instruction: Instruction, text: str) -> Mapping[str, str]:
    """Return the options of a `--mount`; their names are in lower case. Raises Stalled `BuildRefused` for an option in
    quotes, and for one that is given twice: builders disagree on which of them counts."""
    found: dict[str, str] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        name = _SHORT_OPTIONS.get(name.lower(), name.lower())
        if '"' in part or name != name.strip() or name in found:
            raise refused(
                instruction,
                Localizable("write `{part}` of `--mount` once, without quotes and spaces", part=part[:200]),
            )
        found[name] = value
    return found


_SHORT_OPTIONS = {
    "src": "source",
    "dst": "target",
    "destination": "target",
    "readonly": "ro",
    "readwrite": "rw",
}


def _refuse_remote(instruction: Instruction, escape: str) -> None:
    words = instruction.words
    # Some builders ignore what follows a list, which is none here: it may all be in one word.
    for word in words if words and words[0].startswith("[") else words[:-1]:
        plain = word.replace(escape, "").replace('"', "").replace("'", "")
        if "://" in plain or _SSH_PLACE.match(plain):
            why = Localizable(
                "ADD would fetch it with the rights of this host; fetch it in a RUN, or commit the file"
            )
            raise refused(instruction, Localizable("{word} is remote: {why}", word=word[:200], why=why))
        if "$" in plain:
            raise refused(
                instruction,
                Localizable(
                    "{word} may be a URL: use COPY, or write the source of ADD without variables",
                    word=word[:200],
                ),
            )


def refused(instruction: Instruction, why: str) -> Stalled:
    return Stalled(
        Reason.BUILD_REFUSED,
        Localizable(
            "line {first} of the Dockerfile, {keyword}: {why}",
            first=instruction.first,
            keyword=instruction.keyword,
            why=why,
        ),
    )
