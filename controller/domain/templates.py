"""Templates that new apps begin from: what a person may fill in, and how the files of the app are made of it. Pure.

The language is one replacement, `{{ name }}`: no loops, conditions, includes or expressions. So a template can execute
nothing where it is rendered, and what it makes is bounded by its own size. What a variable takes is bounded, too: its
pattern may have neither groups nor alternatives, and few repetitions, so that matching a value takes a bounded time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from controller.domain.apps.spec import Limits
from controller.domain.localizable import Localizable, joined
from controller.domain.names import DNS_LABEL, is_dns_label

DESCRIPTION: Final = "template.yaml"
FILES: Final = "files/"
#: The variable that every template has: the name of the app.
APP: Final = "app"
MOST_FILES, MOST_FILE, MOST_BYTES = 200, 2**20, 4 * 2**20  # of one template, and of what it makes
MOST_VARIABLES: Final = 20
LONGEST_VALUE: Final = 100  # characters
LONGEST_PATH: Final = 200
LONGEST_PATTERN, MOST_REPETITIONS = 200, 3
NO_LIMITS: Final = Limits()
WHOLE_NUMBERS = range(-(10**15), 10**15 + 1)

_NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")
_PLACE = re.compile(r"\{\{ ?([a-z][a-z0-9_]*) ?\}\}")
_STEP = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.+-]*")
_CLASS = re.compile(r"\[(?:[^\[\]\\]|\\.)+\]")
_ESCAPED = re.compile(r"\\[.+*?{}()|\[\]^$/\\-]")
_REPEATED = re.compile(r"[*+?]|\{[0-9]{1,3}(?:,[0-9]{0,3})?\}")
_RESERVED = frozenset({".git", ".", ".."})


class VariableType(StrEnum):
    TEXT = "text"
    NAME = "name"  # a DNS label
    NUMBER = "number"  # a whole one
    CHOICE = "choice"


@dataclass(frozen=True)
class Words:
    """A text in the languages of the web pages."""

    en: str
    ru: str

    def in_language(self, language: str) -> str:
        return self.ru if language == "ru" else self.en


@dataclass(frozen=True)
class TemplateVariable:
    """`pattern` is of `text` alone, `options` of `choice`."""

    name: str
    type: VariableType
    title: Words
    default: str = ""
    pattern: str = ""
    options: tuple[str, ...] = ()

    def problem(self, value: str) -> str:
        """Return what is wrong with a value, or ""."""
        if len(value) > LONGEST_VALUE:
            return Localizable("may have at most {most} characters", most=LONGEST_VALUE)
        match self.type:
            case VariableType.NAME:
                return "" if is_dns_label(value) else Localizable("must be 1 to 63 of a-z, 0-9 and hyphens")
            case VariableType.NUMBER:
                whole = re.fullmatch(r"-?[0-9]{1,16}", value, re.ASCII)
                return "" if whole and int(value) in WHOLE_NUMBERS else Localizable("must be a whole number")
            case VariableType.CHOICE:
                names = ", ".join(self.options)
                return "" if value in self.options else Localizable("must be one of {names}", names=names)
        if not value.isprintable():
            return Localizable("must be one line of text without control characters")
        sound = not self.pattern or re.fullmatch(self.pattern, value)
        return "" if sound else Localizable("must match {pattern}", pattern=self.pattern)


@dataclass(frozen=True)
class TemplateFile:
    """`path` is relative to the new repository."""

    path: str
    content: bytes
    executable: bool = False


@dataclass(frozen=True)
class Template:
    """`limits` are what an app of it is proposed to get. `manifests` is the folder of its manifests."""

    name: str
    title: Words
    text: Words
    variables: tuple[TemplateVariable, ...]
    limits: Limits = NO_LIMITS
    manifests: str = "."


@dataclass(frozen=True)
class TemplateRecord:
    """A template that an admin has added, as others may see it. `url` has no credentials; `commit` is the one that is
    used, and `problem` says why there is no newer one, or none at all. `fetched` is when it was fetched last without a
    problem, in Unix seconds; 0 if it never was."""

    name: str
    template: Template | None
    url: str = ""
    commit: str = ""
    problem: str = ""
    fetched: float = 0.0


def is_template_name(text: str) -> bool:
    return DNS_LABEL.fullmatch(text) is not None


def variable_problem(variable: TemplateVariable) -> str:
    """Return what is wrong with a variable as its template declares it, or ""."""
    if not _NAME.fullmatch(variable.name) or variable.name == APP:
        return Localizable(
            "{variable!r} cannot be the name of a variable: 1 to 31 of a-z, 0-9 and _, but not {app!r}",
            variable=variable.name,
            app=APP,
        )
    if bool(variable.options) != (variable.type is VariableType.CHOICE):
        return Localizable("options belong to the type 'choice', which needs them")
    if variable.pattern and variable.type is not VariableType.TEXT:
        return Localizable("only the type 'text' has a pattern")
    if variable.pattern and (problem := pattern_problem(variable.pattern)):
        return Localizable("its pattern {problem}", problem=problem)
    if problem := variable.problem(variable.default):
        return Localizable("its default {default!r} {problem}", default=variable.default, problem=problem)
    return ""


def pattern_problem(pattern: str) -> str:
    """Return why a pattern is not taken, or "". What is taken is a row of characters and classes, at most three of
    them repeated: matching tries at most the cube of a value's length."""
    if len(pattern) > LONGEST_PATTERN:
        return Localizable("may have at most {longest_pattern} characters", longest_pattern=LONGEST_PATTERN)
    rest = _CLASS.sub("x", _ESCAPED.sub("x", pattern))
    if len(_REPEATED.findall(rest)) > MOST_REPETITIONS:
        return Localizable(
            "may repeat at most {most_repetitions} of its parts", most_repetitions=MOST_REPETITIONS
        )
    if set(_REPEATED.sub("", rest)) & set("()|[]{}\\*+?^$"):
        return Localizable(
            "may have neither groups nor alternatives, and matches the whole value without ^ and $"
        )
    try:
        re.compile(pattern)
    except re.error as error:
        return Localizable("is not a regular expression: {error}", error=error)
    return ""


def path_problem(path: str) -> str:
    """Return why a file of a template cannot be called so, or ""."""
    steps = path.split("/")
    if len(path) > LONGEST_PATH:
        return Localizable("has a path of more than {longest_path} characters", longest_path=LONGEST_PATH)
    if not all(_STEP.fullmatch(step) for step in steps):
        return Localizable(
            "must have a path of letters, digits, dots, hyphens, + and _, beginning with no hyphen"
        )
    return Localizable("cannot be in a repository") if _RESERVED & {step.lower() for step in steps} else ""


def files_problem(files: Iterable[TemplateFile]) -> str:
    """Return what is wrong with the files of a template as a whole, or ""."""
    files = tuple(files)
    if not files:
        return Localizable("has no file below its folder files/")
    if len(files) > MOST_FILES:
        return Localizable("has more than {most_files} files", most_files=MOST_FILES)
    for file in files:
        if len(file.content) > MOST_FILE:
            return Localizable(
                "{file_path} has more than {most_file} MiB", file_path=file.path, most_file=MOST_FILE // 2**20
            )
        if problem := path_problem(file.path):
            return joined((file.path, problem), " ")
    if sum(len(file.content) for file in files) > MOST_BYTES:
        return Localizable("has more than {most_bytes} MiB", most_bytes=MOST_BYTES // 2**20)
    return ""


def undeclared(template: Template, files: Iterable[TemplateFile]) -> Iterator[tuple[str, int, str]]:
    """Yield file, line and name of each place that no variable fills."""
    known = {APP, *(variable.name for variable in template.variables)}
    for file in files:
        text = _text(file.content)
        for match in _PLACE.finditer(text or ""):
            if match[1] not in known:
                yield file.path, (text or "").count("\n", 0, match.start()) + 1, match[1]


def values_of(template: Template, given: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the value of each variable, with defaults for what is left out, and all problems."""
    known = {variable.name: variable for variable in template.variables}
    values = {name: given.get(name, variable.default) for name, variable in known.items()}
    names = ", ".join(known) or Localizable("none")
    problems: list[str] = [
        Localizable(
            "there is no variable {name!r}; the template {template} has: {names}",
            name=name,
            template=template.name,
            names=names,
        )
        for name in given
        if name not in known
    ]
    for name, variable in known.items():
        if problem := variable.problem(values[name]):
            value = values[name][:LONGEST_VALUE]
            problems.append(
                Localizable("{name} {problem}; it is {value!r}", name=name, problem=problem, value=value)
            )
    return values, tuple(problems)


def with_defaults(template: Template, defaults: Mapping[str, str]) -> Template:
    """Return the template with other defaults, as far as its variables take them."""
    variables = (
        replace(variable, default=defaults[variable.name])
        if variable.name in defaults and not variable.problem(defaults[variable.name])
        else variable
        for variable in template.variables
    )
    return replace(template, variables=tuple(variables))


def render(files: Iterable[TemplateFile], app: str, values: Mapping[str, str]) -> tuple[TemplateFile, ...]:
    """Return the files of the new app. `values` are valid; a file that is not text stays as it is."""
    known = {**values, APP: app}
    return tuple(replace(file, content=_filled(file.content, known)) for file in files)


def _filled(content: bytes, values: Mapping[str, str]) -> bytes:
    text = _text(content)
    if text is None:
        return content
    return _PLACE.sub(lambda match: values.get(match[1], match[0]), text).encode()


def _text(content: bytes) -> str | None:
    try:
        return content.decode() if b"\0" not in content else None
    except UnicodeDecodeError:
        return None
