"""Which platform a command talks to, and as whom: options that many commands share.

`Remote.platform()` gives commands about apps a platform (controller/client/platform): the server that `--server`
names, else the host of a configuration that `--config` names, else the server of PRICHAL_SERVER if there are
credentials for it or nothing runs here, else that of the current login (`prichal login`), else this host. `files()`
and `runs()` always speak HTTP, to this host, too.

Passwords and tokens are never taken from the command line, which every user of the machine can read.
"""

from __future__ import annotations

import base64
import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import click
from click.core import ParameterSource

from controller import __version__
from controller.cli.formats import output_option
from controller.cli.output import print_message
from controller.cli.session import Session, config_option, dry_run_option, host_user, wait_options
from controller.domain.errors import Transient
from controller.domain.runs.addresses import PipelineAddress, RunAddress, parse_pipeline, parse_run
from controller.domain.secret import Secret
from controller.domain.storage.addresses import AddressInvalid, BoxAddress, parse_address

if TYPE_CHECKING:
    from controller.client.files import FilesClient
    from controller.client.logins import Login, Logins
    from controller.client.platform import Platform
    from controller.client.runs import RunsClient

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


@dataclass(frozen=True)
class Remote:
    """The values of the options. Usage errors are raised only where a missing value is needed. `is_chosen`: the
    server stands on the command line, not in the environment."""

    session: Session
    server: str | None
    user: str | None
    token_file: Path | None
    developer: bool = False
    is_chosen: bool = False

    @contextmanager
    def platform(self) -> Iterator[Platform]:
        """Yield the platform that the command is about."""
        url = self.platform_url()
        if not url:
            with self._on_this_host() as platform:
                yield platform
            return
        from controller.client.platform import ServerPlatform
        from controller.client.retry import RetryPolicy

        policy, dry_run = RetryPolicy(told=_tell_outage), self.session.dry_run
        with ServerPlatform(url, self._authorization, self._ca_file(url), policy, dry_run) as server:
            try:
                yield server
            finally:
                _tell_skew(server.version)

    @contextmanager
    def _on_this_host(self) -> Iterator[Platform]:
        from controller.domain.people.roles import administrator
        from controller.web.api.platform.stored import StoredPlatform

        with self.session.store() as store:
            who = administrator(host_user())
            yield StoredPlatform(store, self.session.settings(), who, dry_run=self.session.dry_run)

    def platform_url(self) -> str:
        """Return the URL of the server; "" for this host."""
        if self.server and self.is_chosen:
            return _server_url(self.server)
        if self.session.config is not None:
            return ""
        if self.server and (self._authorization(self.server) or not self._is_here):
            return _server_url(self.server)
        if self.server:  # it is named for files and runs, which need no account, on the host itself
            return ""
        login = self._logins.active
        return login.url if login else ""

    @property
    def _is_here(self) -> bool:
        """Return True if a platform has run on this host."""
        return self.session.settings().database.exists()

    def address(self, text: str) -> BoxAddress:
        """Parse an address of files."""
        found = _parsed(parse_address, text)
        server = found.server or self._server(found.app)
        return replace(found, server=server, developer=found.developer or self.developer)

    def pipeline(self, text: str) -> PipelineAddress:
        return self._located(_parsed(parse_pipeline, text))

    def run(self, text: str) -> RunAddress | PipelineAddress:
        """Parse the address of a run, or of a pipeline whose newest run is meant."""
        found = _parsed(parse_run, text)
        if isinstance(found, RunAddress):
            return replace(found, pipeline=self._located(found.pipeline))
        return self._located(found)

    def files(self) -> FilesClient:
        from controller.client.files import FilesClient, FilesTrial

        client = FilesTrial if self.session.dry_run else FilesClient
        return client(self._authorization, ca_file=self._ca_file(self.server or ""))

    def runs(self) -> RunsClient:
        from controller.client.runs import RunsClient

        return RunsClient(self._authorization, ca_file=self._ca_file(self.server or ""), told=_tell_outage)

    def _located(self, pipeline: PipelineAddress) -> PipelineAddress:
        return pipeline if pipeline.server else pipeline.on(self._server(pipeline.app))

    def _server(self, app: str) -> str:
        if self.server:
            return _server_url(self.server)
        login = self._logins.active if self.session.config is None else None
        found = login.server_of(app) if login else self._configured(app)
        if not found:
            raise click.UsageError(
                "the server is missing: log in with prichal login URL, give --server URL, or set PRICHAL_SERVER"
            )
        return found

    def _configured(self, app: str) -> str:
        """Return the URL under which the platform on this machine, if one is configured, serves the app."""
        settings = self.session.settings()
        if settings.source is None:
            return ""
        server = settings.web.url
        if not settings.web.app_domain:
            return server
        parts = urlsplit(server)
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.scheme}://{app}.{settings.web.app_domain}{port}"

    def _authorization(self, url: str) -> Secret:
        """Return the value of the header for a URL; empty for anonymous requests. The token of a login goes to its
        server alone."""
        given = self._given
        if given or self.user is not None or self.token_file is not None:
            return given
        login = self._logins.find(url)
        return Secret(f"Bearer {login.token.reveal()}") if login else Secret("")

    @functools.cached_property
    def _given(self) -> Secret:
        """What options and environment say. The password is asked for once per command."""
        if self.user is not None and self.token_file is not None:
            raise click.UsageError("give only one of --user and --token-file")
        if self.user is not None:
            return _basic(self.user)
        token = (
            read_token(self.token_file) if self.token_file else os.environ.get("PRICHAL_TOKEN", "").strip()
        )
        return Secret(f"Bearer {checked_token(token)}" if token else "")

    @functools.cached_property
    def _logins(self) -> Logins:
        from controller.client.logins import LoginFile

        return LoginFile().load()

    def _ca_file(self, url: str) -> str:
        """Return the file with the authorities that the login at this server, or the current one, trusts."""
        login: Login | None = self._logins.find(url) if url else self._logins.active
        return login.ca_file if login else ""


def _server_url(named: str) -> str:
    parts = urlsplit(named)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or "@" in parts.netloc:
        raise click.UsageError(f"--server must be http(s)://HOST[:PORT], not {named!r}")
    return named.rstrip("/")


def _tell_outage(error: Transient) -> None:
    print_message(f"{error.message.rstrip('.')}; trying again")


def _tell_skew(server: str) -> None:
    """Say so if the server's release differs in more than the last number."""
    if server and server.split(".")[:2] != __version__.split(".")[:2]:
        print_message(
            f"note: the server runs prichal {server}, and this is {__version__}; use the command of the server's "
            "release if something is not understood"
        )


def _parsed(parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except AddressInvalid as error:
        raise click.UsageError(str(error)) from error


def _basic(user: str) -> Secret:
    if ":" in user:
        raise click.UsageError("--user must not contain a colon")
    password = os.environ.get("PRICHAL_PASSWORD")
    if password is None:
        if not sys.stdin.isatty():
            raise click.UsageError(
                "the password cannot be asked for without a terminal: set PRICHAL_PASSWORD"
            )
        password = click.prompt(f"Password of {user}", hide_input=True, err=True)
    return Secret("Basic " + base64.b64encode(f"{user}:{password}".encode()).decode())


def checked_token(token: str) -> str:
    """Return a token; one that cannot be sent is wrong usage."""
    if not (token.isascii() and token.isprintable()):
        raise click.UsageError(
            "the token has characters that are not allowed in tokens; check the file or PRICHAL_TOKEN"
        )
    return token


def read_token(file: Path) -> str:
    try:
        return next(iter(file.read_text().splitlines()), "").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"--token-file {file} cannot be read: {error}") from error


def remote_options(command: F) -> F:
    """Add the options, which the command gets as one argument, `remote`."""

    @click.option(
        "--server", envvar="PRICHAL_SERVER", metavar="URL", help="URL of the platform.  [$PRICHAL_SERVER]"
    )
    @click.option("--user", metavar="NAME", help="User name; prompts for the password.  [$PRICHAL_PASSWORD]")
    @click.option(
        "--token-file",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="File with a token in its first line.  [$PRICHAL_TOKEN]",
    )
    @functools.wraps(command)
    def called(
        *arguments: Any, server: str | None, user: str | None, token_file: Path | None, **named: Any
    ) -> Any:
        context = click.get_current_context()
        is_chosen = context.get_parameter_source("server") is ParameterSource.COMMANDLINE
        remote = Remote(context.ensure_object(Session), server, user, token_file, is_chosen=is_chosen)
        return command(remote, *arguments, **named)

    return called  # type: ignore[return-value]


def waiting_options(command: F) -> F:
    """Add the options of a command that asks the platform for something, and can wait until it is done."""
    for add in (config_option, remote_options, dry_run_option, output_option, wait_options):
        command = add(command)
    return command


def area_option(command: F) -> F:
    """Add `--area` to a command. Its decorator stands below that of `remote_options`."""

    @click.option(
        "--area",
        type=click.Choice(["own", "developer"]),
        default="own",
        show_default=True,
        help="Use your own files, or those of the module.",
    )
    @functools.wraps(command)
    def called(remote: Remote, *arguments: Any, area: str, **named: Any) -> Any:
        return command(replace(remote, developer=area == "developer"), *arguments, **named)

    return called  # type: ignore[return-value]
