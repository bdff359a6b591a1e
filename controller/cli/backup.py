"""Commands about backups of the whole installation. They work on the host, as root or as the daemon's user."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from controller.cli.exits import Exit
from controller.cli.formats import Format, nameless_output_option, output_option
from controller.cli.groups import Group
from controller.cli.output import Column, date, echo, print_message, show_view, table_of
from controller.cli.session import Session, config_option, with_session
from controller.domain.errors import Stalled
from controller.domain.reasons import Reason
from controller.domain.units import about_size, rfc3339

if TYPE_CHECKING:
    from controller.backup.restore import Proof
    from controller.config import Settings
    from controller.domain.backups import Backup
    from controller.domain.secret import Secret


COLUMNS: tuple[Column[Backup], ...] = (
    Column("NAME", lambda backup: backup.name),
    Column("CREATED", lambda backup: date(backup.created)),
    Column("SIZE", lambda backup: about_size(backup.size)),
)
identity_option = click.option(
    "--identity",
    required=True,
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    metavar="FILE",
    help="File with the private key, as age-keygen or `prichal backup keygen` writes it; - for standard input.",
)
backup_argument = click.argument("backup", metavar="BACKUP")


@click.group(cls=Group, verbs=("keygen", "create", "list", "verify", "restore", "run"))
@config_option
def backup() -> None:
    """Back up the whole installation, and restore it."""


@backup.command(
    epilog="\b\nExamples:\n  prichal backup create\n  prichal backup create --without-boxes -o name"
)
@click.option("--without-boxes", is_flag=True, help="Leave out the files of boxes.")
@output_option
@config_option
@with_session
def create(session: Session, without_boxes: bool, output: Format) -> int:
    """Make a backup now, and remove old ones.

    It goes to `backup.to` of the configuration, encrypted for `backup.recipients`, while the platform runs. Old ones
    are removed as `backup.keepCount` and `backup.keepAge` say.
    """
    from controller.backup.create import maker

    making = maker(session.settings())
    try:
        made = making.create(not without_boxes)
    finally:
        making.place.close()
    text = f"{made.name} ({about_size(made.size)}) is in {making.place}"
    output.show(_document(made), lambda: echo(text), (made.name,))
    return Exit.OK


@backup.command("list")
@output_option
@config_option
@with_session
def list_backups(session: Session, output: Format) -> int:
    """List the complete backups, the newest first."""
    from controller.backup.places import place_of
    from controller.domain.backups import newest_first

    place = place_of(session.settings())
    try:
        found = newest_first(place.all())
    finally:
        place.close()
    view = (table_of(COLUMNS, found, output.is_wide),) if found else ()
    output.show([_document(each) for each in found], lambda: show_view(view), [each.name for each in found])
    if not found:
        print_message(f"There are no backups in {place}.")
    return Exit.OK


def _document(found: Backup) -> dict[str, object]:
    return {"name": found.name, "created": rfc3339(found.created), "size": found.size}


@backup.command(epilog="\b\nExamples:\n  prichal backup verify latest --identity backup.key")
@backup_argument
@identity_option
@nameless_output_option
@config_option
@with_session
def verify(session: Session, backup: str, identity: Path, output: Format) -> int:
    """Read a backup as a whole, and prove that it can be restored.

    BACKUP is a name in `backup.to`, `latest`, or the path of a file. Nothing is changed.
    """
    from controller.backup.restore import verify

    proof = verify(_opener(session.settings(), backup), _identities(identity))
    output.show(_proof_document(proof), lambda: echo(f"good: {_told(proof)}"))
    return Exit.OK


@backup.command(epilog="\b\nExamples:\n  prichal backup restore latest --identity backup.key")
@backup_argument
@identity_option
@click.option("--without-boxes", is_flag=True, help="Do not restore the files of boxes.")
@nameless_output_option
@config_option
@with_session
def restore(session: Session, backup: str, identity: Path, without_boxes: bool, output: Format) -> int:
    """Restore a backup onto this host, on which prichal is stopped and has nothing yet.

    BACKUP is a name in `backup.to`, `latest`, or the path of a file. It is proved first. Then start the platform: it
    builds images and starts containers as the state says. A restore that was interrupted can be made again.
    """
    from controller.backup.restore import restore

    settings = session.settings()
    identities = _identities(identity)
    proof = restore(settings, _opener(settings, backup), identities, not without_boxes)
    lines = (
        f"restored: {_told(proof)}",
        f"Its configuration is in {settings.private / 'restored-config'}, for comparison. Start prichal now.",
    )
    output.show(_proof_document(proof), lambda: show_view(lines))
    if proof.moved:
        files = ", ".join(proof.moved)
        print_message(
            f"Repositories that are hosted here now lie in {settings.repositories}: their paths are changed in {files}."
        )
    return Exit.OK


def _told(proof: Proof) -> str:
    head = proof.head
    return (
        f"{proof.members} members, {about_size(proof.size)}, of them {proof.objects} files of boxes; made by prichal "
        f"{head.prichal} of the instance {head.instance} at {date(head.created)}"
    )


def _proof_document(proof: Proof) -> dict[str, object]:
    head = proof.head
    return {
        "instance": head.instance,
        "created": rfc3339(head.created),
        "version": head.prichal,
        "members": proof.members,
        "size": proof.size,
        "boxFiles": proof.objects,
    }


def _opener(settings: Settings, name: str) -> Any:
    """Return what opens an archive: a file of this host, or one in the place of backups."""
    from controller.backup.places import place_of, unknown
    from controller.domain.backups import newest_first

    if os.sep in name or (name != "latest" and Path(name).is_file()):
        return partial(_open_file, Path(name))
    place = place_of(settings)
    if name == "latest":
        found = newest_first(place.all())
        if not found:
            raise unknown(name, str(place))
        name = found[0].name
    return partial(place.open, name)


def _open_file(path: Path) -> AbstractContextManager[BinaryIO]:
    try:
        return path.open("rb")
    except OSError as error:
        raise Stalled(Reason.UNKNOWN_BACKUP, f"cannot read {path}: {error.strerror}") from error


def _identities(path: Path) -> tuple[Secret, ...]:
    from controller.age import AgeFailed, read_identities

    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text()
        return read_identities(text)
    except (OSError, UnicodeDecodeError, AgeFailed) as error:
        problem = error.strerror if isinstance(error, OSError) else error
        message = f"cannot use the private key in {path}: {problem}"
        raise Stalled(Reason.BACKUP_KEY_WRONG, message) from error


@backup.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@config_option
def keygen(file: Path) -> int:
    """Make a key pair for backups: the private key into FILE, the public one on standard output.

    The public key belongs in `backup.recipients`. Keep FILE elsewhere than on this host: without it no backup can be
    restored.
    """
    from controller.age import new_key

    key = new_key()
    try:
        descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except OSError as error:
        raise click.UsageError(f"cannot write {file}: {error.strerror}") from error
    with open(descriptor, "w") as out:
        out.write(f"# public key: {key.recipient}\n{key.identity.reveal()}\n")
    echo(key.recipient)
    return Exit.OK


@backup.command()
@config_option
@with_session
def run(session: Session) -> int:
    """Make backups at the times of `backup.schedule`.

    This is the service prichal-backup of systemd, and a child of `prichal up`.
    """
    from controller.backup.schedule import run
    from controller.logging_setup import configure

    settings = session.settings()
    configure(settings.log_level, settings.log_format)
    return run(settings)


commands = (backup,)
