"""`prichal files`: boxes of a platform from any machine, through its files API.

One rule tells addresses from paths, in all commands: what has a colon before its first slash is an address
(`controller.domain.addresses`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from controller.cli.exits import Exit
from controller.cli.output import complain, say, show_json, show_table
from controller.cli.progress import progress
from controller.cli.remote import Remote, area_option, remote_options
from controller.cli.session import config_option, output_option
from controller.domain.addresses import Address, AddressInvalid, is_address
from controller.domain.units import about_size

if TYPE_CHECKING:
    from controller.adapters.files_client import Box, File, FilesClient, Job, Listing, Totals


@click.group()
def files() -> None:
    """Files in boxes, from any machine.

    An ADDRESS is APP:BOX/GROUP/FILE, or the URL of a file or group. One that ends in a slash, or has no
    more than a group, is a group; APP: alone stands for all boxes. A file of this machine whose name has
    a colon is written ./NAME.
    """


@files.command()
@click.argument("address")
@click.option("-l", "--long", "detailed", is_flag=True, help="With size and time of change.")
@click.option("-R", "--recursive", is_flag=True, help="With the files of all groups below.")
@output_option
@remote_options
@area_option
@config_option
def ls(remote: Remote, address: str, detailed: bool, recursive: bool, output: str) -> int:
    """List the boxes of an app, a group, or show a file."""
    place = remote.address(address)
    with remote.files() as client:
        if not place.box:
            _show_boxes(client.boxes(place), output)
        elif place.path.is_group:
            _show(client.pages(place, recursive), detailed, output)
        else:
            _show([_only(client.find(place))], detailed, output)
    return Exit.OK


def _only(file: File) -> Listing:
    from controller.adapters.files_client import Listing

    return Listing((file,), ())


def _show_boxes(boxes: Iterable[Box], output: str) -> None:
    if output == "json":
        show_json({"boxes": [asdict(box) for box in boxes]})
        return
    show_table(
        ("BOX", "USED", "PENDING", "CAPACITY", "FILES"),
        [
            (b.name, about_size(b.used), about_size(b.pending), about_size(b.capacity), str(b.files))
            for b in boxes
        ],
    )


def _show(pages: Iterable[Listing], detailed: bool, output: str) -> None:
    if output == "json":
        found = list(pages)
        listed = [asdict(file) for page in found for file in page.files]
        show_json({"files": listed, "groups": [name for page in found for name in page.groups]})
    elif detailed:
        show_table(("SIZE", "MODIFIED", "NAME"), [row for page in pages for row in _rows(page)])
    else:
        for page in pages:
            for *_, name in _rows(page):
                click.echo(name)


def _rows(page: Listing) -> list[tuple[str, str, str]]:
    """Sorted by name; those of groups end in a slash."""
    rows = [(about_size(file.size), file.modified or "-", file.name) for file in page.files]
    return sorted([*rows, *(("-", "-", f"{name}/") for name in page.groups)], key=lambda row: row[2])


@files.command()
@click.argument("address")
@click.argument("local", type=click.Path(path_type=Path), default=".")
@output_option
@remote_options
@area_option
@config_option
def get(remote: Remote, address: str, local: Path, output: str) -> int:
    """Fetch a file.

    Into the folder LOCAL, by default this one, or as the file LOCAL, which is replaced. Called again, it
    goes on where it was interrupted.
    """
    source = _file(remote.address(address), "is a group: prichal files cp -r fetches it")
    target = _local_target(local, source.name)
    with remote.files() as client:
        _tell(_download(client, source, target), str(target), output)
    return Exit.OK


@files.command()
@click.argument("local", type=click.Path(path_type=Path))
@click.argument("address")
@output_option
@remote_options
@area_option
@config_option
def put(remote: Remote, local: Path, address: str, output: str) -> int:
    """Store a file.

    The file LOCAL, in a group under its own name or as the file that ADDRESS names, which is replaced. Files
    of 64 MiB and more go in parts; called again, it goes on where it was interrupted.
    """
    target = _remote_target(remote.address(address), local.name)
    with remote.files() as client:
        _tell(_upload(client, local, target), str(target), output)
    return Exit.OK


@files.command()
@click.argument("address")
@click.option("-r", "--recursive", is_flag=True, help="A group with all that is in it.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@output_option
@remote_options
@area_option
@config_option
def rm(remote: Remote, address: str, recursive: bool, yes: bool, output: str) -> int:
    """Remove a file, or a group."""
    place = remote.address(address)
    if place.path.is_group:
        place = _group(place)
    if place.path.is_group and not recursive:
        raise click.UsageError(f"{place} is a group: add -r to remove all that is in it")
    if place.path.is_group and not yes:
        click.confirm(f"Remove all that is in {place}?", abort=True, err=True)
    with remote.files() as client:
        removed = client.remove_group(place) if place.path.is_group else _remove(client, place)
    if output == "json":
        show_json({"removed": removed})
    else:
        click.echo(f"{place}: {_count(removed)} removed")
    return Exit.OK


def _remove(client: FilesClient, file: Address) -> int:
    client.remove(file)
    return 1


@files.command()
@click.argument("source")
@click.argument("target")
@click.option("-r", "--recursive", is_flag=True, help="A folder or group with all that is in it.")
@output_option
@remote_options
@area_option
@config_option
def cp(remote: Remote, source: str, target: str, recursive: bool, output: str) -> int:
    """Copy between this machine and a box, or between boxes.

    With -r all that is in the folder or group SOURCE comes into TARGET; what is there already, with the same
    content, is passed over, so that a copy which was interrupted goes on. Nothing is removed. A copy between
    boxes goes through this machine.
    """
    if not is_address(source) and not is_address(target):
        raise click.UsageError("neither is an address APP:BOX/GROUP/FILE: use cp for files of this machine")
    origin = remote.address(source) if is_address(source) else Path(source)
    goal = remote.address(target) if is_address(target) else Path(target)
    is_tree = origin.path.is_group if isinstance(origin, Address) else origin.is_dir()
    if is_tree and not recursive:
        raise click.UsageError(f"{source} is a folder or group: add -r to copy all that is in it")
    with remote.files() as client:
        if is_tree:
            return _copy_tree(client, origin, goal, output)
        _copy(client, origin, goal, output)
    return Exit.OK


def _copy(client: FilesClient, source: Address | Path, target: Address | Path, output: str) -> None:
    match source, target:
        case Path(), Address():
            target = _remote_target(target, source.name)
            found = _upload(client, source, target)
        case Address(), Path():
            target = _local_target(target, source.name)
            found = _download(client, source, target)
        case Address(), Address():
            target = _remote_target(target, source.name)
            with progress(source.name, 2 * client.find(source).size) as moved:
                found = client.relay(source, target, moved)
        case _:
            raise AssertionError("one of them is an address")
    _tell(found, str(target), output)


def _copy_tree(client: FilesClient, source: Address | Path, target: Address | Path, output: str) -> int:
    from controller.adapters.files_client import tree

    jobs = _jobs(client, source, target)
    total = sum(job.size for job in jobs)
    with progress(f"{len(jobs)} files", total) as moved:
        totals = tree.run(client, jobs, moved)
    _tell_totals(totals, output)
    return Exit.FAILED if totals.failed else Exit.OK


def _jobs(client: FilesClient, source: Address | Path, target: Address | Path) -> list[Job]:
    from controller.adapters.files_client import tree

    match source, target:
        case Path(), Address():
            return tree.uploads(client, source, _group(target))
        case Address(), Path():
            return tree.downloads(client, _group(source), target)
        case Address(), Address():
            return tree.relays(client, _group(source), _group(target))
    raise AssertionError("one of them is an address")


def _tell_totals(totals: Totals, output: str) -> None:
    for name, error in totals.failed:
        complain(error.reason, f"{name}: {error.message}")
    if output == "json":
        failed = [{"name": name, "reason": e.reason, "message": e.message} for name, e in totals.failed]
        numbers = {"copied": totals.copied, "bytes": totals.bytes, "skipped": totals.skipped}
        show_json({**numbers, "failed": failed})
        return
    parts = [f"{_count(totals.copied)} copied ({about_size(totals.bytes)})"]
    parts += [f"{totals.skipped} there already"] if totals.skipped else []
    parts += [f"{len(totals.failed)} failed"] if totals.failed else []
    click.echo(", ".join(parts))
    if totals.failed:
        say("Called again, it copies what is missing.")


def _download(client: FilesClient, source: Address, target: Path) -> File:
    with progress(source.name, client.find(source).size) as moved:
        return client.download(source, target, moved)


def _upload(client: FilesClient, source: Path, target: Address) -> File:
    size = source.stat().st_size if source.is_file() else 0
    with progress(source.name, size) as moved:
        return client.upload(source, target, moved)


def _tell(file: File, place: str, output: str) -> None:
    if output == "json":
        show_json({"place": place, "size": file.size, "etag": file.etag})
    else:
        click.echo(f"{place}: {about_size(file.size)}")


def _count(number: int) -> str:
    return f"{number} file{'s' if number != 1 else ''}"


# --- where ------------------------------------------------------------------------------------------------------


def _file(address: Address, otherwise: str) -> Address:
    if address.path.is_group:
        raise click.UsageError(f"{address} {otherwise}")
    return address


def _group(address: Address) -> Address:
    if not address.box:
        raise click.UsageError(f"{address} names no box: write APP:BOX/GROUP/")
    return address.as_group()


def _local_target(path: Path, name: str) -> Path:
    return path / name if path.is_dir() else path


def _remote_target(address: Address, name: str) -> Address:
    if not address.path.is_group:
        return address
    try:
        return _group(address).below(name)
    except AddressInvalid as error:
        raise click.UsageError(str(error)) from error


commands = (files,)
