"""`prichal login` and `logout`: servers that commands use from this machine."""

from __future__ import annotations

import os
import platform as platform_module
import sys
import time
import webbrowser
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.cli.exits import Exit
from controller.cli.formats import Format, output_option
from controller.cli.output import Column, echo, print_message, show_view, table_of
from controller.cli.remote import checked_token, read_token
from controller.cli.session import config_option
from controller.cli.waiting import Persistence
from controller.domain.errors import ControllerError, Stalled
from controller.domain.people.accounts import LABEL, Scope
from controller.domain.reasons import Reason
from controller.domain.secret import Secret

if TYPE_CHECKING:
    from controller.client.logins import Login, LoginFile, Logins


MOST_WAIT = 3600.0  # seconds that a server can make this program wait


@click.command(
    epilog="\b\nExamples:\n"
    "  prichal login https://models.example.org\n"
    "  prichal login https://models.example.org --token-file ~/token\n"
    "  prichal login\n"
    "  prichal login https://models.example.org --use"
)
@click.argument("url", required=False)
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="File with a token in its first line; - for standard input.  [default: ask in a browser]",
)
@click.option(
    "--scope",
    type=click.Choice([scope.value for scope in Scope]),
    default=Scope.DEPLOY.value,
    show_default=True,
    help="What to ask for in the browser: to see; also to steer apps; all that you may.",
)
@click.option("--use", "is_known", is_flag=True, help="Use the server of an earlier login from now on.")
@click.option(
    "--ca-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Trust only these certificate authorities for this server.",
)
@output_option
@config_option
def login(
    url: str | None, token_file: Path | None, scope: str, is_known: bool, ca_file: Path | None, output: Format
) -> int:
    """Log in to a server, which commands then use.

    You confirm it in a browser, on any machine. The token is kept in a file that only you may read. Without
    URL, the servers are listed.
    """
    from controller.client.logins import LoginFile

    file = LoginFile()
    logins = file.load()
    if url is None:
        return _list(logins, output)
    server = _url(url)
    if is_known:
        return _use(file, logins, server)
    authorities = str(ca_file.absolute()) if ca_file else ""
    if token_file is None:
        token = _from_browser(server, scope, authorities)
    else:
        _warn_of_plain(server)
        token = _token(token_file)
    made = _verified(server, Secret(token), authorities)
    file.save(file.load().with_login(made))
    output.show(_document(made, True), lambda: echo(f"logged in to {made.url} as {made.user}"), (made.url,))
    return Exit.OK


@click.command(epilog="\b\nExamples:\n  prichal logout\n  prichal logout https://models.example.org")
@click.argument("url", required=False)
@config_option
def logout(url: str | None) -> int:
    """Log out of a server, by default the current one.

    The token is revoked there and removed here. If the server cannot be reached, it is only removed.
    """
    from controller.client.logins import LoginFile

    file = LoginFile()
    logins = file.load()
    server = _url(url) if url else logins.current
    found = next((each for each in logins.all if each.url == server), None)
    if found is None:
        raise _no_login(server, logins)
    file.save(logins.without(server))
    try:
        _revoke(found)
    except ControllerError as error:
        print_message(f"the token is removed here, but could not be revoked there: {error.message}")
    echo(f"logged out of {server}")
    return Exit.OK


def _url(text: str) -> str:
    from controller.client.logins import server_url

    try:
        return server_url(text)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _warn_of_plain(server: str) -> None:
    from controller.client.logins import is_private

    if not is_private(server):
        print_message(f"warning: {server} is not HTTPS, so others on the way can read the token")


def _from_browser(server: str, scope: str, ca_file: str) -> str:
    """Return the token for which a person agrees in a browser."""
    from controller.client.logins import is_private
    from controller.client.platform import ServerPlatform

    if not is_private(server):
        raise click.UsageError(
            f"{server} is not HTTPS, so others on the way could read the token: use https, or a tunnel to localhost"
        )
    with ServerPlatform(server, Secret(""), ca_file) as platform:
        begun = platform.begin_login(f"prichal on {platform_module.node()}"[:LABEL], scope)
        url = f"{server}{begun['path']}"
        print_message(f"Open {url} in a browser and confirm the code {begun['code']}.")
        if sys.stdin.isatty():
            webbrowser.open(url)
        deadline = time.monotonic() + min(MOST_WAIT, begun["expiresIn"])
        persistence = Persistence(deadline=deadline)
        while True:
            found = persistence.ask(partial(platform.take_login, str(begun["secret"])))
            if token := found.get("token"):
                return checked_token(str(token))
            if time.monotonic() > deadline:
                raise Stalled(Reason.LOGIN_REFUSED, f"nobody has confirmed the code {begun['code']} in time")
            time.sleep(max(0.1, min(30.0, begun["interval"])))


def _token(file: Path) -> str:
    """Return the token that a person gives; an empty one is wrong usage."""
    if str(file) != "-":
        token = read_token(file)
    elif sys.stdin.isatty():
        token = click.prompt("Token", hide_input=True, err=True)
    else:
        token = sys.stdin.readline().strip()
    if not token:
        raise click.UsageError("the token is empty: make one on the page Tokens of the server")
    return checked_token(token)


def _verified(server: str, token: Secret, ca_file: str) -> Login:
    """Return the login after the server has accepted the token. Raises what `ServerPlatform` raises."""
    from controller.client.logins import Login, domain_of
    from controller.client.platform import ServerPlatform

    authorization = Secret(f"Bearer {token.reveal()}")
    with ServerPlatform(server, authorization, ca_file) as platform:
        me: dict[str, Any] = platform.me()
    user, scope = str(me["user"] or me["via"]), str(me["scope"])
    return Login(server, token, user, scope, "", domain_of(me["appDomain"]), ca_file)


def _revoke(login: Login) -> None:
    from controller.client.platform import ServerPlatform

    authorization = Secret(f"Bearer {login.token.reveal()}")
    with ServerPlatform(login.url, authorization, login.ca_file) as platform:
        platform.end_token()


def _use(file: LoginFile, logins: Logins, server: str) -> int:
    if not any(each.url == server for each in logins.all):
        raise _no_login(server, logins)
    file.save(replace(logins, current=server))
    echo(f"commands use {server}")
    return Exit.OK


def _no_login(server: str, logins: Logins) -> Stalled:
    known = ", ".join(each.url for each in logins.all) or "none"
    return Stalled(
        Reason.NOT_LOGGED_IN, f"there is no login for {server or 'any server'}; known are: {known}"
    )


# --- the list ---------------------------------------------------------------------------------------------------


def _list(logins: Logins, output: Format) -> int:
    documents = [_document(each, each.url == logins.current) for each in logins.all]
    columns: tuple[Column[dict[str, Any]], ...] = (
        Column("SERVER", lambda each: each["server"]),
        Column("USER", lambda each: each["user"]),
        Column("SCOPE", lambda each: each["scope"]),
        Column("CURRENT", lambda each: "yes" if each["current"] else ""),
        Column("CA FILE", lambda each: each["caFile"] or "-", is_wide=True),
    )
    view = (table_of(columns, documents, output.is_wide),) if documents else ()
    output.show(documents, lambda: show_view(view), [each["server"] for each in documents])
    if named := os.environ.get("PRICHAL_SERVER"):
        print_message(f"PRICHAL_SERVER is set, so commands use {named}")
    elif not documents:
        print_message("There is no login. Log in with: prichal login URL")
    return Exit.OK


def _document(login: Login, is_current: bool) -> dict[str, Any]:
    return {
        "server": login.url,
        "user": login.user,
        "scope": login.scope,
        "current": is_current,
        "caFile": login.ca_file,
    }


commands = (login, logout)
