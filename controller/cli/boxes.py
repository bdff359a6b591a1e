"""Commands about boxes: show what is stored, and decide about data whose box is gone. The commands only
record the decision; the daemon's next pass carries it out.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from controller.cli.completion import box_argument, bucket_argument
from controller.cli.exits import Exit
from controller.cli.formats import Format, output_option
from controller.cli.groups import Group
from controller.cli.output import Column, date, echo, print_message, show_view, table_of
from controller.cli.session import Session, config_option, dry_run_option, is_running, with_session
from controller.domain.apps.requests import Trigger
from controller.domain.errors import Stalled
from controller.domain.names import AppName, ComponentName
from controller.domain.reasons import Reason
from controller.domain.storage.box import BoxState
from controller.domain.units import about_size, rfc3339

if TYPE_CHECKING:
    from controller.domain.storage.box import BoxRecord
    from controller.ports import Store


COLUMNS: tuple[Column[BoxRecord], ...] = (
    Column("APP", lambda record: record.app),
    Column("BOX", lambda record: record.box),
    Column("STATE", lambda record: record.state),
    Column("USED", lambda record: about_size(record.used)),
    Column("CAPACITY", lambda record: about_size(record.capacity)),
    Column("FILES", lambda record: str(record.files)),
    Column("RECLAIM", lambda record: record.reclaim, is_wide=True),
    Column("MEASURED", lambda record: date(record.measured or None), is_wide=True),
    Column("SINCE", lambda record: date(record.since or None), is_wide=True),
    Column("BUCKET", lambda record: record.bucket),
)


@click.group(cls=Group)
@config_option
def box() -> None:
    """Show boxes, and decide about data whose box is gone."""


@box.command(epilog="\b\nExamples:\n  prichal box ls\n  prichal box ls --kept -o name")
@click.option("--kept", is_flag=True, help="Show only data whose box is gone.")
@output_option
@config_option
@with_session
def ls(session: Session, kept: bool, output: Format) -> int:
    """List the boxes of all apps, and data whose box is gone."""
    with session.store() as store:
        found = [r for r in store.boxes.all() if not kept or r.state is BoxState.KEPT]
        documents = [_document(store, record) for record in found]
    view = (table_of(COLUMNS, found, output.is_wide),) if found else ()
    output.show(documents, lambda: show_view(view), [record.bucket for record in found])
    if not found:
        print_message("There are no boxes." if not kept else "No data is kept beyond its box.")
    return Exit.OK


def _document(store: Store, record: BoxRecord) -> dict[str, object]:
    usage = store.boxes.usage(record.bucket, time.time())
    return {
        "app": record.app,
        "box": record.box,
        "state": record.state.value,
        "bucket": record.bucket,
        "capacity": record.capacity,
        "used": record.used,
        "pending": usage.pending,
        "files": record.files,
        "reclaimPolicy": record.reclaim.value,
        "measured": rfc3339(record.measured or None),
        "since": rfc3339(record.since),
    }


@box.command()
@bucket_argument
@box_argument
@output_option
@dry_run_option
@config_option
@with_session
def adopt(session: Session, bucket: str, target: str, output: Format) -> int:
    """Give the data of a BUCKET without a box to a declared box.

    The previous data of that box is kept in a bucket of its own.
    """
    app, _, name = target.partition("/")
    with session.store(own=True) as store, store.transaction():
        kept = _kept(store, bucket)
        taker = store.boxes.get(AppName(app), ComponentName(name))
        if taker is None or taker.state is not BoxState.BOUND:
            message = f"no manifest declares the box {target!r}: push a DataBox called {name!r} first"
            raise Stalled(Reason.UNKNOWN_BOX, message)
        store.boxes.swap(kept, taker)
        store.requests.enqueue(taker.app, Trigger.MANUAL)
        document = _document(store, _of_bucket(store, bucket))
    text = f"{target}: now has the data of bucket {bucket}; its previous data is kept in {taker.bucket}"
    output.show(document, lambda: echo(text), (bucket,))
    return _said(session)


@box.command()
@bucket_argument
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@output_option
@dry_run_option
@config_option
@with_session
def delete(session: Session, bucket: str, yes: bool, output: Format) -> int:
    """Delete a BUCKET whose box is gone, with all its files."""
    with session.store(own=True) as store:
        kept = _kept(store, bucket)
        what = f"{about_size(kept.used)} in {kept.files} files of {kept.app}/{kept.box}"
        if not yes and not session.dry_run:
            click.confirm(f"Delete bucket {bucket} with {what} forever?", abort=True, err=True)
        with store.transaction():
            store.boxes.save(replace(_kept(store, bucket), state=BoxState.DELETING, since=time.time()))
            store.requests.enqueue(kept.app, Trigger.MANUAL)
        document = _document(store, _of_bucket(store, bucket))
    text = f"{bucket}: will be deleted in the next pass; see: prichal events {kept.app}"
    output.show(document, lambda: echo(text), (bucket,))
    return _said(session)


def _kept(store: Store, bucket: str) -> BoxRecord:
    found = _of_bucket(store, bucket)
    # Of one that is being copied, too: what is exchanged for it would be removed with the preview.
    if found.state in (BoxState.BOUND, BoxState.COPYING):
        message = f"bucket {bucket} belongs to the box {found.box} of {found.app}: remove its manifest from Git first"
        raise Stalled(Reason.BUCKET_IN_USE, message)
    return found


def _of_bucket(store: Store, bucket: str) -> BoxRecord:
    found = next((record for record in store.boxes.all() if record.bucket == bucket), None)
    if found is None:
        raise Stalled(Reason.UNKNOWN_BUCKET, f"there is no bucket {bucket!r}; list all with: prichal box ls")
    return found


def _said(session: Session) -> int:
    with session.store() as store:
        if not is_running(store):
            print_message(
                "The daemon does not run; it carries this out once you start it with: prichal daemon"
            )
    return Exit.OK


commands = (box,)
