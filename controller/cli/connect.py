"""`prichal repo`: connect and disconnect modules in the platform folder, and host repositories here."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from controller.cli.completion import app_argument
from controller.cli.exits import GOOD_OUTCOMES, Exit
from controller.cli.formats import Format, output_option
from controller.cli.groups import Group
from controller.cli.output import Column, echo, print_message, show_view, table_of
from controller.cli.session import Session, config_option, dry_run_option, wait_options, with_session
from controller.cli.waiting import last_event, wait_for
from controller.domain.apps.requests import Trigger
from controller.domain.apps.spec import GitRef, HookProvider, RefKind
from controller.domain.errors import ControllerError
from controller.domain.names import PLATFORM, AppName
from controller.domain.secret import Secret

if TYPE_CHECKING:
    from controller.config import Settings
    from controller.daemon.connect import ConnectOptions
    from controller.daemon.hosted import Hosted


@click.group(cls=Group)
@config_option
def repo() -> None:
    """Connect Git repositories, and host them here."""


@dataclass(frozen=True)
class ListedRepository:
    """A repository that is hosted here, connected, or both. `path` is "" if it is hosted elsewhere, `url` where it is
    not served over HTTP."""

    name: str
    path: str = ""
    url: str = ""
    apps: tuple[AppName, ...] = ()
    ref: str = ""

    def document(self) -> dict[str, object]:
        return {
            "name": self.name,
            "path": self.path or None,
            "url": self.url or None,
            "apps": list(self.apps),
            "ref": self.ref or None,
        }


COLUMNS: tuple[Column[ListedRepository], ...] = (
    Column("NAME", lambda each: each.name),
    Column("APPS", lambda each: ", ".join(each.apps) or "-"),
    Column("REF", lambda each: each.ref or "-", is_wide=True),
    Column("PATH", lambda each: each.path or "-"),
    Column("URL", lambda each: each.url or "-"),
)


@repo.command(epilog="\b\nExamples:\n  prichal repo ls\n  prichal repo ls -o name")
@output_option
@config_option
@with_session
def ls(session: Session, output: Format) -> int:
    """List repositories and the apps that follow them.

    PATH and URL are those of repositories hosted here.
    """
    found = _repositories(session)
    view = (table_of(COLUMNS, found, output.is_wide),) if found else ()
    output.show([each.document() for each in found], lambda: show_view(view), [each.name for each in found])
    if not found:
        print_message("There is no repository yet. Create one with: prichal repo create NAME --connect")
    return Exit.OK


def _repositories(session: Session) -> list[ListedRepository]:
    from controller.daemon.hosted import repositories

    settings = session.settings()
    found = {
        hosted.name: ListedRepository(hosted.name, str(hosted.path), settings.clone_url(hosted.name))
        for hosted in repositories(settings)
    }
    try:
        with session.store() as store:
            records = store.repositories.all()
    except ControllerError:  # there is no state yet, so nothing is connected
        records = ()
    for record in records:
        hosted = found.get(record.name, ListedRepository(record.name))
        found[record.name] = replace(hosted, apps=record.apps, ref=record.ref)
    return sorted(found.values(), key=lambda each: each.name)


def ref_options(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command what is followed, `ref`, by one of four options."""

    @click.option("--branch", help="Follow this branch.  [default: main]")
    @click.option("--tag", help="Stay at this tag.")
    @click.option("--commit", help="Stay at this commit.")
    @click.option("--semver", help='Follow the highest tag in this range, e.g. ">=1.2 <2".')
    @functools.wraps(command)
    def with_ref(
        *arguments: object,
        branch: str | None,
        tag: str | None,
        commit: str | None,
        semver: str | None,
        **options: object,
    ) -> int:
        given = {RefKind.BRANCH: branch, RefKind.TAG: tag, RefKind.COMMIT: commit, RefKind.SEMVER: semver}
        chosen = [GitRef(kind, value) for kind, value in given.items() if value]
        if len(chosen) > 1:
            raise click.UsageError("give only one of --branch, --tag, --commit and --semver")
        ref = chosen[0] if chosen else GitRef(RefKind.BRANCH, "main")
        return command(*arguments, ref=ref, **options)

    return with_ref


@repo.command(
    epilog="\b\nExamples:\n"
    "  prichal connect https://git.example.org/team/demo.git --path manifests --wait\n"
    "  prichal connect https://git.example.org/team/demo.git --semver '>=1.2 <2'"
)
@click.argument("url")
@click.option("--app", help="Name of the app.  [default: from the URL]")
@click.option("--name", help="Name of the Repository.  [default: that of the app]")
@ref_options
@click.option("--path", default=".", show_default=True, help="Folder of the manifests in the repository.")
@click.option("--interval", help="Time between polls, e.g. 30s; 0s: webhooks only.  [default: 60s]")
@click.option(
    "--credentials-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="YAML with username and password, token, or sshPrivateKey and knownHosts.",
)
@click.option(
    "--webhook",
    type=click.Choice([provider.value for provider in HookProvider]),
    help="Accept webhooks of this provider; prints a new secret.",
)
@click.option("--print", "print_only", is_flag=True, help="Print the manifests instead of writing them.")
@wait_options
@output_option
@dry_run_option
@config_option
@with_session
def connect(
    session: Session,
    url: str,
    app: str | None,
    name: str | None,
    ref: GitRef,
    path: str,
    interval: str | None,
    credentials_file: Path | None,
    webhook: str | None,
    print_only: bool,
    wait: bool,
    timeout: float,
    output: Format,
) -> int:
    """Connect the module in a Git repository.

    Writes a Repository and a PlatformApp into the platform folder. Existing documents are not overwritten.
    Secrets are written to a separate file that only its owner may read.
    """
    from controller.daemon.connect import ConnectOptions, app_name, documents

    app = app or name or app_name(url)
    connection = ConnectOptions(
        url=url,
        repository=name or app,
        app=app,
        ref=ref,
        path=path,
        interval=interval,
        credentials=_credentials(credentials_file),
        hook=HookProvider(webhook) if webhook else None,
        hook_secret=_draw_secret() if webhook else None,
    )
    if print_only:
        echo("---\n".join(draft.text for draft in documents(connection)), nl=False)
        return Exit.OK
    files = _write(session, connection)
    _show_connected(output, connection, files, _webhook(session.settings(), connection))
    return _tell_daemon(session, AppName(app), wait, timeout)


def _show_connected(
    output: Format, connection: ConnectOptions, files: tuple[Path, ...], hook: dict[str, str] | None
) -> None:
    names = {"app": connection.app, "repository": connection.repository}
    document = {**names, "files": [str(path) for path in files], "webhook": hook}
    lines = (f"webhook: {hook['url']}", f"secret: {hook['secret']}") if hook else ()
    output.show(document, lambda: show_view(lines), (connection.app,))


def _webhook(settings: Settings, connection: ConnectOptions) -> dict[str, str] | None:
    """Return what the Git server has to be told, if webhooks are accepted."""
    if connection.hook is None or connection.hook_secret is None:
        return None

    base = settings.web.url
    secret = connection.hook_secret.reveal()
    return {"url": f"{base}/-/hooks/{connection.repository}", "secret": secret}


def _credentials(file: Path | None) -> tuple[tuple[str, Secret], ...]:
    if file is None:
        return ()
    from controller.manifests.secret_files import load_secret_values

    return load_secret_values(file)


def _draw_secret() -> Secret:
    import secrets

    return Secret(secrets.token_urlsafe(32))


def _write(session: Session, connection: ConnectOptions) -> tuple[Path, ...]:
    from controller.daemon.connect import connect as write

    files = write(session.settings(), connection, dry_run=session.dry_run)
    for path in files:
        print_message(f"wrote {path}")
    return files


def _tell_daemon(session: Session, app: AppName, wait: bool, timeout: float, done: str = "connected") -> int:
    """Request a pass at once; the daemon would notice the change of the folder only after some seconds."""
    if not session.settings().database.exists():
        print_message(f"{app} is {done}; this takes effect when the daemon runs: prichal up")
        return Exit.OK
    from controller.web.api.platform.stored import StoredPlatform

    with session.store() as store:
        platform = StoredPlatform(store, session.settings())
        seen = last_event(platform, None)
        request = platform.enqueue(PLATFORM, Trigger.PLATFORM)
        if not wait or session.dry_run:
            print_message(f"{app} is {done}; see: prichal events {app} -f")
            return Exit.OK
        found = wait_for(platform, request, timeout, seen)
        if found["outcome"] in GOOD_OUTCOMES:
            found = wait_for(platform, platform.enqueue(app, Trigger.PLATFORM), timeout, seen)
    print_message(f"{app}: {found['outcome']} {found['message']}".rstrip())
    return Exit.OK if found["outcome"] in GOOD_OUTCOMES else Exit.FAILED


@repo.command()
@app_argument()
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@wait_options
@output_option
@dry_run_option
@config_option
@with_session
def disconnect(session: Session, app: str, yes: bool, wait: bool, timeout: float, output: Format) -> int:
    """Disconnect an app from its Git repository.

    Removes its documents from the platform folder; then the daemon removes its containers and cancels its
    runs. The data of its boxes is kept (see: prichal box ls --kept), and so is the repository.
    """
    from controller.daemon.disconnect import plan_removal

    removal = plan_removal(session.settings(), app)
    if not yes and not session.dry_run:
        files = ", ".join(map(str, removal.files))
        click.confirm(f"Remove {files}, with all containers and runs of {app}?", abort=True, err=True)
    if not session.dry_run:
        removal.carry_out()
    for file in removal.files:
        print_message(f"removed {file}")
    document = {"app": app, "repository": removal.repository, "removed": [str(f) for f in removal.files]}
    output.show(document, lambda: None, (app,))
    if removal.is_last:
        _approve_empty_folder(session)
    return _tell_daemon(session, AppName(app), wait, timeout, "disconnected")


def _approve_empty_folder(session: Session) -> None:
    """Approve that no app is left, which the daemon takes for a lost mount otherwise. The person was asked."""
    if session.settings().database.exists():
        with session.store() as store:
            store.apps.approve(PLATFORM, "confirmed")


@repo.command(epilog="\b\nExamples:\n  prichal repo create demo --connect --path manifests")
@click.argument("name")
@click.option("--connect", "connected", is_flag=True, help="Also connect it as an app.")
@click.option("--app", help="Name of the app.  [default: that of the repository]")
@click.option("--path", default=".", show_default=True, help="Folder of the manifests in the repository.")
@click.option("--branch", default="main", show_default=True, help="The branch that is deployed.")
@click.option("--group", help="Group whose members may push.  [default: group of the repositories' folder]")
@output_option
@dry_run_option
@config_option
@with_session
def create(
    session: Session,
    name: str,
    connected: bool,
    app: str | None,
    path: str,
    branch: str,
    group: str | None,
    output: Format,
) -> int:
    """Create a repository to push to.

    Prints the path to push to; a push shows the progress until the app is ready. If the repository exists,
    only its hook is renewed.
    """
    from controller.daemon.hosted import create as make
    from controller.daemon.hosted import planned

    if app and not connected:
        raise click.UsageError("--app needs --connect")
    settings = session.settings()
    hosted, secret = (planned if session.dry_run else make)(settings, name, group)
    app = (app or name) if connected else None
    if app:
        _connect_hosted(session, hosted, secret, app, GitRef(RefKind.BRANCH, branch), path)
    url = settings.clone_url(name)
    _tell_addresses(hosted.path, url)
    document = {"name": name, "path": str(hosted.path), "url": url or None, "app": app}
    output.show(document, lambda: echo(str(hosted.path)), (name,))
    return Exit.OK


def _connect_hosted(
    session: Session, hosted: Hosted, secret: Secret, app: str, ref: GitRef, path: str
) -> None:
    from controller.daemon.connect import ConnectOptions

    connection = ConnectOptions(
        url=str(hosted.path),
        repository=hosted.name,
        app=app,
        ref=ref,
        path=path,
        hook=HookProvider.GENERIC,
        hook_secret=secret,
    )
    _write(session, connection)
    _tell_daemon(session, AppName(app), wait=False, timeout=0.0)


def _tell_addresses(path: Path, url: str) -> None:
    print_message(f"Add it to a clone with: git remote add origin {path}")
    print_message(f"From another machine it is ssh://USER@HOST{path}")
    if url:
        print_message(f"For people with an account and a token as the password it is {url}")


commands = (repo, connect, disconnect)
