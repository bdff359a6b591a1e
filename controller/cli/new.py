"""`prichal new`: a new app from a template, on one's own machine. Neither a platform nor an engine is needed."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import click

from controller.cli.exits import Exit
from controller.cli.formats import Format, output_option
from controller.cli.output import Column, print_message, show_view, table_of
from controller.cli.session import config_option
from controller.domain.errors import Stalled
from controller.domain.reasons import Reason

if TYPE_CHECKING:
    from controller.templates.description import LoadedTemplate

COLUMNS: tuple[Column[LoadedTemplate], ...] = (
    Column("NAME", lambda each: each.template.name),
    Column("TITLE", lambda each: each.template.title.en),
    Column("VARIABLES", lambda each: variables_text(each)),
)


def variables_text(loaded: LoadedTemplate) -> str:
    return " ".join(f"{variable.name}={variable.default!r}" for variable in loaded.template.variables)


def set_pairs(texts: tuple[str, ...]) -> dict[str, str]:
    """Return the values of `--set`. Raises click's BadParameter."""
    pairs = [text.partition("=") for text in texts]
    for text, (name, sign, _) in zip(texts, pairs, strict=True):
        if not name or not sign:
            raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--set")
    return {name: value for name, _, value in pairs}


@click.command(
    epilog="\b\nExamples:\n"
    "  prichal new --list\n"
    "  prichal new function greeter\n"
    "  prichal new server shop --set framework=gradio --set path=shop"
)
@click.argument("template", required=False)
@click.argument("folder", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
@click.option("--list", "listed", is_flag=True, help="List the templates and their variables.")
@click.option("--set", "given", multiple=True, metavar="NAME=VALUE", help="Value of a variable.")
@click.option("--app", help="Name of the app, as its files say it.  [default: from DIR]")
@output_option
@config_option
def new(
    template: str | None,
    folder: Path | None,
    listed: bool,
    given: tuple[str, ...],
    app: str | None,
    output: Format,
) -> int:
    """Make the files of a new app from a template.

    Writes into DIR, which must not exist or be empty. Neither a platform nor Docker is needed.
    """
    from controller.templates.builtin import builtin, made, write_files

    known = builtin()
    if listed:
        rows = list(known.values())
        documents = [template_document(each) for each in rows]
        output.show(documents, lambda: show_view((table_of(COLUMNS, rows, output.is_wide),)), list(known))
        return Exit.OK
    if template is None or folder is None:
        raise click.UsageError("give a TEMPLATE and a DIR, or --list")
    loaded = known.get(template)
    if loaded is None:
        raise unknown_template(template, known)
    name = app_name(app or folder.resolve().name)
    files = made(loaded, name, set_pairs(given))
    write_files(folder, files)
    document = {"template": template, "app": name, "files": [file.path for file in files]}
    output.show(document, lambda: None, (name,))
    print_message(
        f"{folder} has the app {name}: see {folder / 'README.md'}; check it with: prichal validate {folder}"
    )
    return Exit.OK


def app_name(text: str) -> str:
    """Return the name of an app. Raises Stalled `NameInvalid` if this can be none."""
    from controller.domain.names import is_dns_label

    name = text.lower().replace("_", "-")
    if not is_dns_label(name):
        message = f"{text!r} cannot be the name of an app: give one of a-z, 0-9 and hyphens with --app"
        raise Stalled(Reason.NAME_INVALID, message)
    return name


def template_document(loaded: LoadedTemplate) -> dict[str, object]:
    template = loaded.template
    variables = [{"name": v.name, "type": str(v.type), "default": v.default} for v in template.variables]
    return {
        "name": template.name,
        "title": template.title.en,
        "text": template.text.en,
        "variables": variables,
    }


def unknown_template(name: str, known: dict[str, LoadedTemplate]) -> Stalled:
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"
    return Stalled(Reason.UNKNOWN_TEMPLATE, f"there is no template {name!r}; {hint}")


commands = (new,)
