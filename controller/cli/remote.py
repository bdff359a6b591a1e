"""Options of commands that talk to a platform over HTTP from any machine: which server, and which user.
Neither a configuration file nor a daemon is needed there. Passwords and tokens are never taken from the
command line, which every user of the machine can read.
"""

from __future__ import annotations

import base64
import functools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import click

from controller.cli.session import Session
from controller.domain.runs.addresses import PipelineAddress, RunAddress, parse_pipeline, parse_run
from controller.domain.secret import Secret
from controller.domain.storage.addresses import AddressInvalid, BoxAddress, parse_address

if TYPE_CHECKING:
    from controller.client.files import FilesClient
    from controller.client.runs import RunsClient

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


@dataclass(frozen=True)
class Remote:
    """The values of the options. Usage errors are raised only where a missing value is needed."""

    session: Session
    server: str | None
    user: str | None
    token_file: Path | None
    developer: bool = False

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
        from controller.client.files import FilesClient

        return FilesClient(self._authorization)

    def runs(self) -> RunsClient:
        from controller.client.runs import RunsClient

        return RunsClient(self._authorization)

    def _located(self, pipeline: PipelineAddress) -> PipelineAddress:
        return pipeline if pipeline.server else pipeline.on(self._server(pipeline.app))

    def _server(self, app: str) -> str:
        named = self.server or self._configured(app)
        if not named:
            raise click.UsageError("the server is missing: give --server URL, or set PRICHAL_SERVER")
        parts = urlsplit(named)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or "@" in parts.netloc:
            raise click.UsageError(f"--server must be http(s)://HOST[:PORT], not {named!r}")
        return named.rstrip("/")

    def _configured(self, app: str) -> str:
        """Return the URL under which the platform on this machine, if one is configured, serves the app."""
        settings = self.session.settings()
        if settings.source is None:
            return ""
        from controller.daemon.hosted import local_url

        server = settings.web.public_url or local_url(settings)
        if not settings.web.app_domain:
            return server
        parts = urlsplit(server)
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.scheme}://{app}.{settings.web.app_domain}{port}"

    @functools.cached_property
    def _authorization(self) -> Secret:
        """The value of the header; empty for anonymous requests. The password is asked for once per command."""
        if self.user is not None and self.token_file is not None:
            raise click.UsageError("give only one of --user and --token-file")
        if self.user is not None:
            return _basic(self.user)
        token = (
            _read_token(self.token_file) if self.token_file else os.environ.get("PRICHAL_TOKEN", "").strip()
        )
        if token and not (token.isascii() and token.isprintable()):
            raise click.UsageError(
                "the token has characters that are not allowed in tokens; check the file or PRICHAL_TOKEN"
            )
        return Secret(f"Bearer {token}" if token else "")


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


def _read_token(file: Path) -> str:
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
        remote = Remote(context.ensure_object(Session), server, user, token_file)
        return command(remote, *arguments, **named)

    return called  # type: ignore[return-value]


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
