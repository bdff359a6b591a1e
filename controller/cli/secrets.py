"""Secrets that people set for their apps, and the key that encrypts them. No command shows a value, and none takes
one as an argument: other users of the machine could see it, and the shell would keep it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.cli.completion import app_argument
from controller.cli.exits import Exit
from controller.cli.formats import Format, output_option
from controller.cli.groups import Group
from controller.cli.output import Column, echo, print_message, show_view, table_of
from controller.cli.remote import Remote, remote_options
from controller.cli.session import Session, config_option, dry_run_option, timeout_option, with_session
from controller.domain.apps.age_keys import RECIPIENT, KeyAction, sops_configuration
from controller.domain.apps.environment import MAX_VALUE
from controller.domain.apps.owned_secrets import ChangeState
from controller.domain.errors import Stalled
from controller.domain.names import is_dns_label
from controller.domain.reasons import Reason
from controller.domain.secret import Secret, without_line_end

if TYPE_CHECKING:
    from controller.client.platform import Document, Platform

Row = dict[str, Any]

_LOOK = 1.0  # seconds until what became of a change is looked at again, without news
_COLUMNS: tuple[Column[Row], ...] = (
    Column("SECRET", lambda each: each["secret"]),
    Column("KEY", lambda each: each["name"]),
    Column("FINGERPRINT", lambda each: each["fingerprint"]),
    Column("BY", lambda each: each["by"]),
    Column("SET", lambda each: each["set"]),
)


@click.group(cls=Group)
@config_option
def secret() -> None:
    """Set Secrets of apps.

    What is set is encrypted for the daemon and never shown again.
    """


@secret.command("ls")
@app_argument()
@output_option
@remote_options
@config_option
def list_secrets(remote: Remote, app: str, output: Format) -> int:
    """List the Secrets of an app, without their values.

    A fingerprint changes with the value. Secrets that manifests name and nobody has set, and changes that wait for
    the daemon, are told, too.
    """
    with remote.platform() as platform:
        document = platform.secrets(app)
    rows = [{"secret": each["name"], **key} for each in document["secrets"] for key in each["keys"]]
    names = [str(each["name"]) for each in document["secrets"]]
    output.show(
        document, lambda: show_view((table_of(_COLUMNS, rows, output.is_wide),) if rows else ()), names
    )
    for each in document.get("needed", ()):  # servers of earlier releases do not tell
        users = ", ".join(each["usedBy"])
        print_message(
            f"{each['name']} is not set and needed by {users}: prichal secret set {app} {each['name']} KEY"
        )
    waiting = sum(change["state"] == ChangeState.WAITING for change in document["changes"])
    if waiting:
        print_message(f"{waiting} changes wait for the daemon.")
    elif not rows:
        print_message(f"Nobody has set a Secret of {app}. Set one with: prichal secret set {app} NAME KEY")
    return Exit.OK


@secret.command(
    "set",
    epilog="\b\nExamples:\n"
    "  prichal secret set demo keys TOKEN                        asks for the value\n"
    "  prichal secret set demo tls CERT=cert.pem KEY=key.pem",
)
@app_argument()
@click.argument("name")
@click.argument("keys", nargs=-1, required=True, metavar="KEY[=FILE]...")
@timeout_option(10.0, "Longest time to wait for the daemon.")
@output_option
@dry_run_option
@remote_options
@config_option
def set_(remote: Remote, app: str, name: str, keys: Sequence[str], timeout: float, output: Format) -> int:
    """Set keys of a Secret, and leave others as they are.

    KEY=FILE takes the content of a file, KEY=- that of standard input. KEY alone asks for the value, or takes standard
    input if that is not a terminal. All keys are one change, with one rollout.
    """
    # A dry run on this host locks the state until it is rolled back, and nobody may wait for a person then.
    values = _values(keys) if remote.session.dry_run else None
    with remote.platform() as platform:
        platform.app(app)  # so that nobody is asked for a value in vain
        change = platform.set_secret(app, _name(name), _values(keys) if values is None else values)
        return _applied(remote, platform, app, change, timeout, output)


@secret.command("rm")
@app_argument()
@click.argument("name")
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@timeout_option(10.0, "Longest time to wait for the daemon.")
@output_option
@dry_run_option
@remote_options
@config_option
def remove(remote: Remote, app: str, name: str, keys: Sequence[str], timeout: float, output: Format) -> int:
    """Remove keys of a Secret, or the whole Secret.

    Containers that run keep their environment.
    """
    with remote.platform() as platform:
        return _applied(
            remote, platform, app, platform.remove_secret(app, _name(name), keys), timeout, output
        )


@secret.command(
    "key",
    epilog="\b\nExamples:\n"
    "  prichal secret key demo > .sops.yaml\n"
    "  prichal secret key demo --rotate\n"
    "  prichal secret key @platform",
)
@app_argument()
@click.option(
    "--also", multiple=True, metavar="RECIPIENT", help="Encrypt for this age key, too, as for your own."
)
@click.option("--rotate", is_flag=True, help="Make another key. The older ones still decrypt.")
@click.option("--retire", is_flag=True, help="Delete all keys but the newest.")
@click.option("--force", is_flag=True, help="Delete keys that a commit in force needs, too.")
@click.option("--yes", is_flag=True, help="Do not ask before keys are deleted.")
@timeout_option(10.0, "Longest time to wait for the daemon.")
@output_option
@dry_run_option
@remote_options
@config_option
def age_key(
    remote: Remote,
    app: str,
    also: Sequence[str],
    rotate: bool,
    retire: bool,
    force: bool,
    yes: bool,
    timeout: float,
    output: Format,
) -> int:
    """Print the public age key of an app, as a configuration of sops.

    Files that sops has encrypted for it may lie in the app's repository: only the daemon can decrypt them, and only for
    this app.
    """
    if wrong := next((each for each in also if not RECIPIENT.fullmatch(each)), None):
        raise click.UsageError(f"{wrong[:80]!r} is not the public key of age: it begins with age1")
    if rotate and retire:
        raise click.UsageError("first rotate, encrypt all files for the new key and push them, then retire")
    if force and not retire:
        raise click.UsageError("--force stands beside --retire")
    with remote.platform() as platform:
        if rotate:
            return _applied(
                remote, platform, app, platform.change_age_key(app, KeyAction.ROTATE), timeout, output
            )
        if retire:
            keys = platform.secrets(app).get("ageKeys", [])
            if len(keys) > 1 and not yes and not remote.session.dry_run:
                old = ", ".join(str(key["recipient"]) for key in keys[1:])
                click.confirm(f"Delete {old}? Files for these alone can never be decrypted again", abort=True)
            change = platform.change_age_key(app, KeyAction.RETIRE, force)
            return _applied(remote, platform, app, change, timeout, output)
        keys = platform.secrets(app).get("ageKeys", [])
    return _show_keys(app, keys, also, output)


def _show_keys(app: str, keys: Sequence[Row], also: Sequence[str], output: Format) -> int:
    names = [str(key["recipient"]) for key in keys]
    if not names:
        message = f"{app} has no age key yet: the daemon makes it in its next pass over the platform folder"
        raise Stalled(Reason.NOT_RUNNING, message)
    output.show(
        {"app": app, "ageKeys": list(keys)}, lambda: echo(sops_configuration(names[0], *also).rstrip()), names
    )
    if len(names) > 1:
        print_message(
            f"Older keys still decrypt: {', '.join(names[1:])}. Run sops updatekeys on each file, push, and then: "
            f"prichal secret key {app} --retire"
        )
    return Exit.OK


@click.group(cls=Group)
@config_option
def key() -> None:
    """Replace the key of this instance."""


@key.command("rotate")
@dry_run_option
@config_option
@with_session
def rotate(session: Session) -> int:
    """Replace the key of this instance, and encrypt all Secrets again.

    The daemon must be stopped. Every component is deployed once more after its next start.
    """
    from controller.daemon.instance_key import rotate as replace_key
    from controller.daemon.instance_key import try_rotation

    settings = session.settings()
    if not settings.database.exists():
        message = f"there is no state at {settings.database}: the platform has not run here yet"
        raise Stalled(Reason.STATE_MISSING, message)
    number = (try_rotation if session.dry_run else replace_key)(settings)
    echo(f"the key is replaced, and {number} values of Secrets are encrypted again")
    print_message("Start the daemon, and back up the new key.")
    return Exit.OK


# --- values --------------------------------------------------------------------------------------------------------


def _values(given: Sequence[str]) -> dict[str, Secret]:
    """Return the values by key. Wrong usage ends with a message that quotes no value."""
    pairs = [argument.partition("=") for argument in given]
    keys = [key for key, _, _ in pairs]
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise click.UsageError(f"the key {twice} is given twice")
    from_stdin = [key for key, sign, file in pairs if file == "-" or (not sign and not sys.stdin.isatty())]
    if len(from_stdin) > 1:
        raise click.UsageError(f"only one value can come from standard input, not {' and '.join(from_stdin)}")
    return {key: Secret(_value(key, file if sign else None)) for key, sign, file in pairs}


def _value(key: str, file: str | None) -> str:
    if file is None and sys.stdin.isatty():
        text: str = click.prompt(key, hide_input=True, confirmation_prompt=True, err=True)
        return text
    raw = sys.stdin.buffer.read(MAX_VALUE + 2) if file in (None, "-") else _content(key, Path(str(file)))
    if len(raw) > MAX_VALUE + 1:
        raise click.UsageError(
            f"{key}: more than {MAX_VALUE} bytes, which no environment of a container takes"
        )
    try:
        return without_line_end(raw.decode())
    except UnicodeDecodeError:
        raise click.UsageError(f"{key}: this is not text in UTF-8; store a binary file in Base64") from None


def _content(key: str, path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_VALUE + 2)
    except OSError as error:  # what was meant as a value is not repeated
        advice = "a value is never an argument: give KEY=FILE, or pass it through standard input"
        raise click.UsageError(
            f"{key}: the file after = cannot be read ({error.strerror}); {advice}"
        ) from None


def _name(name: str) -> str:
    if not is_dns_label(name):
        raise click.UsageError(
            f"{name!r} cannot be the name of a Secret: use small letters, digits and hyphens"
        )
    return name


# --- what became of a change ---------------------------------------------------------------------------------------


def _applied(
    remote: Remote, platform: Platform, app: str, change: Document, timeout: float, output: Format
) -> int:
    """Wait until the daemon has applied the change, and tell what became of it."""
    if remote.session.dry_run:
        output.show(change, lambda: echo(f"{app}: asked for"), (str(change["secret"] or app),))
        return Exit.OK
    deadline = time.monotonic() + timeout
    while _is_waiting(change) and (left := deadline - time.monotonic()) > 0:
        if platform.apps()["daemon"] is False:
            break
        platform.wait_for_change(min(left, _LOOK))
        found = platform.secrets(app)["changes"]
        change = next((each for each in found if each["id"] == change["id"]), change)
    if change["state"] == ChangeState.REFUSED:
        raise Stalled(Reason.SECRET_REFUSED, str(change["message"]))
    text = f"{app}: asked for" if _is_waiting(change) else f"{app}: {change['message']}"
    output.show(change, lambda: echo(text), (str(change["secret"] or app),))
    if _is_waiting(change):
        print_message(
            f"The daemon has not applied it yet. It does when it runs; see: prichal secret ls {app}"
        )
    elif change["request"] and change["secret"]:
        print_message(f"What uses it is rolled out; follow it with: prichal events {app} -f")
    return Exit.OK


def _is_waiting(change: Document) -> bool:
    return bool(change["state"] == ChangeState.WAITING)


commands = (secret, key)
