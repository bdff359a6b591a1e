"""The formats of results: `-o table|wide|json|yaml|name|jsonpath=PATH`, the same for every command."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

import click

from controller.cli.jsonpath import JsonPath
from controller.cli.output import echo, plain, show_json, show_value, show_yaml

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

F = TypeVar("F", bound=Callable[..., Any])


class Kind(StrEnum):
    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"
    JSONPATH = "jsonpath"


@dataclass(frozen=True)
class Format:
    kind: Kind = Kind.TABLE
    path: JsonPath = field(default=JsonPath("", ()))

    @property
    def is_for_people(self) -> bool:
        return self.kind in (Kind.TABLE, Kind.WIDE)

    @property
    def is_wide(self) -> bool:
        return self.kind is Kind.WIDE

    def show(self, document: object, people: Callable[[], object], names: Iterable[str] = ()) -> None:
        """Print a result: `people` prints it for people, `names` are what commands call the things in it."""
        match self.kind:
            case Kind.JSON:
                show_json(document)
            case Kind.YAML:
                show_yaml(document)
            case _:
                self._show_parts(document, people, names)

    def show_next(self, document: object, people: Callable[[], object], names: Iterable[str] = ()) -> None:
        """Print one of many results that follow each other: JSON in one line each, YAML as a document each."""
        match self.kind:
            case Kind.JSON:
                show_json(document, indent=None)
            case Kind.YAML:
                echo("---")
                show_yaml(document)
            case _:
                self._show_parts(document, people, names)

    def _show_parts(self, document: object, people: Callable[[], object], names: Iterable[str]) -> None:
        if self.kind is Kind.NAME:
            for name in names:
                echo(name)
        elif self.kind is Kind.JSONPATH:
            for value in self.path.select(plain(document)):
                show_value(value)
        else:
            people()


class FormatType(click.ParamType):  # type: ignore[type-arg]  # not generic before click 8.4
    """The type of `-o`. Commands whose results have no names do not offer `name`."""

    name = "format"

    def __init__(self, has_names: bool = True) -> None:
        self.choices = [kind.value for kind in Kind if has_names or kind is not Kind.NAME]

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Format:
        if isinstance(value, Format):
            return value
        kind, sign, path = str(value).partition("=")
        if kind not in self.choices or (sign and kind != Kind.JSONPATH):
            self.fail(f"{value!r} is not one of {self._listed()}.", param, ctx)
        if kind != Kind.JSONPATH:
            return Format(Kind(kind))
        if not path:
            self.fail("the path is missing: write, for example, jsonpath=.apps[*].app", param, ctx)
        try:
            return Format(Kind.JSONPATH, JsonPath.parse(path))
        except ValueError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        offered = [f"{kind}=" if kind == Kind.JSONPATH else kind for kind in self.choices]
        return [CompletionItem(text) for text in offered if text.startswith(incomplete)]

    def _listed(self) -> str:
        return ", ".join(f"{kind}=PATH" if kind == Kind.JSONPATH else kind for kind in self.choices)

    def option(self, command: F) -> F:
        return click.option(
            "-o",
            "--output",
            type=self,
            metavar="FORMAT",
            default=Kind.TABLE.value,
            show_default=True,
            help=f"Output format: {self._listed()}.",
        )(command)


output_option = FormatType().option
nameless_output_option = FormatType(has_names=False).option
