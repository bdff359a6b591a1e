"""`prichal file`: use the boxes of a platform from any machine, through its files API.

All commands tell addresses from local paths by one rule: a colon before the first slash makes it an address
(`controller.domain.storage.addresses`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from controller.cli.completion import address_argument
from controller.cli.exits import Exit
from controller.cli.formats import Format, output_option
from controller.cli.groups import Group
from controller.cli.output import (
    Column,
    echo,
    print_error,
    print_message,
    show_view,
    table_of,
)
from controller.cli.progress import counting, progress
from controller.cli.remote import Remote, area_option, remote_options
from controller.cli.session import config_option, dry_run_option
from controller.domain.storage.addresses import AddressInvalid, BoxAddress, is_address
from controller.domain.units import about_size

if TYPE_CHECKING:
    from controller.client.files import CopyTotals, FileCopy, FilePage, FilesClient, RemoteBox, RemoteFile

STANDARD_INPUT, STANDARD_OUTPUT = Path("/dev/stdin"), Path("/dev/stdout")


@click.group(cls=Group, verbs=("ls", "cp", "get", "put", "mv", "rm"))
@config_option
def file() -> None:
    """List and copy files in boxes, from any machine.

    An ADDRESS is APP:BOX/GROUP/FILE, or the URL of a file or group. If it ends in a slash, or names at most a
    group, it is a group; APP: alone stands for all boxes. A local file whose name has a colon is written
    ./NAME.
    """


@file.command(epilog="\b\nExamples:\n  prichal file ls demo:\n  prichal file ls demo:data/photos/ -l")
@address_argument
@click.option("-l", "--long", "detailed", is_flag=True, help="Show size and time of change.")
@click.option("-R", "--recursive", is_flag=True, help="Also list the files of all groups below.")
@output_option
@remote_options
@area_option
@config_option
def ls(remote: Remote, address: str, detailed: bool, recursive: bool, output: Format) -> int:
    """List the boxes of an app or the files of a group, or show one file."""
    place = remote.address(address)
    with remote.files() as client:
        if not place.box:
            _show_boxes(place, client.boxes(place), output)
        elif place.path.is_group:
            _show(place, client.pages(place, recursive), detailed, output)
        else:
            _show(place, [_only(client.find(place))], detailed, output)
    return Exit.OK


def _only(file: RemoteFile) -> FilePage:
    from controller.client.files import FilePage

    return FilePage((file,), ())


BOX_COLUMNS: tuple[Column[RemoteBox], ...] = (
    Column("BOX", lambda box: box.name),
    Column("USED", lambda box: about_size(box.used)),
    Column("PENDING", lambda box: about_size(box.pending)),
    Column("CAPACITY", lambda box: about_size(box.capacity)),
    Column("FILES", lambda box: str(box.files)),
)


def _show_boxes(place: BoxAddress, boxes: Iterable[RemoteBox], output: Format) -> None:
    boxes = list(boxes)
    view = (table_of(BOX_COLUMNS, boxes, output.is_wide),)
    document = {"boxes": [asdict(box) for box in boxes]}
    output.show(document, lambda: show_view(view), [f"{place.app}:{box.name}/" for box in boxes])


def _show(place: BoxAddress, pages: Iterable[FilePage], detailed: bool, output: Format) -> None:
    """Print files and groups; for people in pages as they come, since there may be many."""
    if output.is_for_people and not (detailed or output.is_wide):
        for page in pages:
            for name, _ in _entries(page):
                echo(name)
        return
    found = list(pages)
    entries = [entry for page in found for entry in _entries(page)]
    document = {
        "files": [asdict(file) for page in found for file in page.files],
        "groups": [name for page in found for name in page.groups],
    }
    view = (table_of(FILE_COLUMNS, entries, output.is_wide),)
    output.show(document, lambda: show_view(view), [_address(place, name) for name, _ in entries])


#: The name of a file or of a group, which ends in a slash, with the file.
Entry = tuple[str, "RemoteFile | None"]

FILE_COLUMNS: tuple[Column[Entry], ...] = (
    Column("SIZE", lambda entry: about_size(entry[1].size) if entry[1] else "-"),
    Column("MODIFIED", lambda entry: (entry[1].modified if entry[1] else None) or "-"),
    Column("ETAG", lambda entry: entry[1].etag if entry[1] else "-", is_wide=True),
    Column("NAME", lambda entry: entry[0]),
)


def _entries(page: FilePage) -> list[Entry]:
    """Return files and groups, sorted by name."""
    groups: list[Entry] = [(f"{name}/", None) for name in page.groups]
    return sorted([*((file.name, file) for file in page.files), *groups], key=lambda entry: entry[0])


def _address(place: BoxAddress, name: str) -> str:
    """Return the address of something in a group, or of the file itself."""
    if not place.path.is_group:
        return str(place)
    return f"{str(place).removesuffix('/')}/{name}"


@file.command()
@address_argument
@click.argument("local", default=".")
@output_option
@remote_options
@area_option
@config_option
def get(remote: Remote, address: str, local: str, output: Format) -> int:
    """Download a file.

    LOCAL is a folder, by default the current one, or a file, which is replaced; `-` is standard output. If
    the download was interrupted, the same command resumes it.
    """
    source = _file(remote.address(address), "is a group: download it with: prichal file cp -r")
    target = _local_target(_local_path(local), source.name)
    with remote.files() as client:
        _report(_download(client, source, target), target, output)
    return Exit.OK


@file.command()
@click.argument("local")
@address_argument
@output_option
@dry_run_option
@remote_options
@area_option
@config_option
def put(remote: Remote, local: str, address: str, output: Format) -> int:
    """Upload a file.

    LOCAL is stored in a group under its own name, or as the file that ADDRESS names, which is replaced; `-`
    is standard input. Files of 64 MiB or more are sent in parts; the same command resumes an interrupted
    upload.
    """
    source = _local_source(local)
    target = _remote_target(remote.address(address), source)
    with remote.files() as client:
        _report(_upload(client, source, target), target, output)
    return Exit.OK


@file.command()
@address_argument
@click.option("-r", "--recursive", is_flag=True, help="Remove a group with all its files.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@output_option
@dry_run_option
@remote_options
@area_option
@config_option
def rm(remote: Remote, address: str, recursive: bool, yes: bool, output: Format) -> int:
    """Remove a file or a group."""
    place = remote.address(address)
    if place.path.is_group:
        place = _group(place)
    if place.path.is_group and not recursive:
        raise click.UsageError(f"{place} is a group: add -r to remove all its files")
    if place.path.is_group and not yes and not remote.session.dry_run:
        click.confirm(f"Remove all files in {place}?", abort=True, err=True)
    with remote.files() as client:
        removed = client.remove_group(place) if place.path.is_group else _remove(client, place)
    output.show({"removed": removed}, lambda: echo(f"{place}: {_count(removed)} removed"), (str(place),))
    return Exit.OK


def _remove(client: FilesClient, file: BoxAddress) -> int:
    client.remove(file)
    return 1


@file.command(
    epilog="\b\nExamples:\n  prichal file mv demo:data/photos/ demo:data/2026/photos/\n"
    "  prichal file mv demo:data/photos/cat.png demo:data/pets/"
)
@click.argument("source")
@click.argument("target")
@output_option
@dry_run_option
@remote_options
@area_option
@config_option
def mv(remote: Remote, source: str, target: str, output: Format) -> int:
    """Move or rename a file or a group within a box.

    The place must be free: nothing is replaced. A file whose TARGET is a group keeps its name. The same
    command continues an interrupted move of a group.
    """
    origin, goal = remote.address(source), remote.address(target)
    if replace(origin, path=goal.path) != goal:
        raise click.UsageError("files move within one area of a box: copy them with: prichal file cp")
    if not origin.path.text:
        raise click.UsageError(f"{origin} names no group: a whole box does not move")
    with remote.files() as client:
        if origin.path.is_group:
            return _move_group(client, origin, goal.as_group(), output)
        goal = _remote_target(goal, Path(origin.name))
        _report(client.move(origin, goal), goal, output)
    return Exit.OK


def _move_group(client: FilesClient, group: BoxAddress, goal: BoxAddress, output: Format) -> int:
    if not goal.path.text:
        raise click.UsageError(f"{goal} names no group: write the new name, APP:BOX/GROUP/")
    with counting(str(group)) as moved:
        step = client.move_group(group, goal, moved)
    numbers = {"place": str(goal), "moved": step.so_far, "left": step.left}
    output.show(numbers, lambda: echo(f"{goal}: {_count(step.so_far)} moved"), (str(goal),))
    if step.left:
        print_message(
            f"{_count(step.left)} stay in {group}: {goal} has others of their names. Rename or remove them."
        )
    return Exit.FAILED if step.left else Exit.OK


@file.command(
    epilog="\b\nExamples:\n  prichal file cp -r photos demo:data/photos/\n  prichal file cp demo:data/photos/cat.png ."
)
@click.argument("source")
@click.argument("target")
@click.option("-r", "--recursive", is_flag=True, help="Copy a folder or group with all its files.")
@output_option
@dry_run_option
@remote_options
@area_option
@config_option
def cp(remote: Remote, source: str, target: str, recursive: bool, output: Format) -> int:
    """Copy between this machine and a box, or between boxes.

    With -r, everything in the folder or group SOURCE is copied into TARGET. Files that are there already with
    the same content are skipped, so the same command resumes an interrupted copy. Nothing is removed. A copy
    between boxes goes through this machine.
    """
    if not is_address(source) and not is_address(target):
        raise click.UsageError("neither is an address APP:BOX/GROUP/FILE: use cp to copy local files")
    origin = remote.address(source) if is_address(source) else _local_source(source)
    goal = remote.address(target) if is_address(target) else _local_path(target)
    is_tree = origin.path.is_group if isinstance(origin, BoxAddress) else origin.is_dir()
    if is_tree and not recursive:
        raise click.UsageError(f"{source} is a folder or group: add -r to copy all its files")
    with remote.files() as client:
        if is_tree:
            return _copy_tree(client, origin, goal, output)
        _copy(client, origin, goal, output)
    return Exit.OK


def _copy(client: FilesClient, source: BoxAddress | Path, target: BoxAddress | Path, output: Format) -> None:
    match source, target:
        case Path(), BoxAddress():
            target = _remote_target(target, source)
            found = _upload(client, source, target)
        case BoxAddress(), Path():
            target = _local_target(target, source.name)
            found = _download(client, source, target)
        case BoxAddress(), BoxAddress():
            target = _remote_target(target, Path(source.name))
            with progress(source.name, 2 * client.find(source).size) as moved:
                found = client.relay(source, target, moved)
        case _:
            raise AssertionError("one of them is an address")
    _report(found, target, output)


def _copy_tree(
    client: FilesClient, source: BoxAddress | Path, target: BoxAddress | Path, output: Format
) -> int:
    from controller.client.files import tree

    jobs = _jobs(client, source, target)
    total = sum(job.size for job in jobs)
    with progress(f"{len(jobs)} files", total) as moved:
        totals = tree.run(client, jobs, moved)
    _tell_totals(totals, target, output)
    return Exit.FAILED if totals.failed else Exit.OK


def _jobs(client: FilesClient, source: BoxAddress | Path, target: BoxAddress | Path) -> list[FileCopy]:
    from controller.client.files import tree

    match source, target:
        case Path(), BoxAddress():
            return tree.uploads(client, source, _group(target))
        case BoxAddress(), Path():
            return tree.downloads(client, _group(source), target)
        case BoxAddress(), BoxAddress():
            return tree.relays(client, _group(source), _group(target))
    raise AssertionError("one of them is an address")


def _tell_totals(totals: CopyTotals, target: BoxAddress | Path, output: Format) -> None:
    for name, error in totals.failed:
        print_error(error.reason, f"{name}: {error.message}")
    failed = [{"name": name, "reason": e.reason, "message": e.message} for name, e in totals.failed]
    numbers = {"copied": totals.copied, "bytes": totals.bytes, "skipped": totals.skipped}
    output.show({**numbers, "failed": failed}, lambda: echo(_summary(totals)), (str(target),))
    if totals.failed and output.is_for_people:
        print_message("Run the same command again to copy the files that failed.")


def _summary(totals: CopyTotals) -> str:
    parts = [f"{_count(totals.copied)} copied ({about_size(totals.bytes)})"]
    parts += [f"{totals.skipped} skipped (already there)"] if totals.skipped else []
    parts += [f"{len(totals.failed)} failed"] if totals.failed else []
    return ", ".join(parts)


def _download(client: FilesClient, source: BoxAddress, target: Path) -> RemoteFile:
    with progress(source.name, client.find(source).size) as moved:
        return client.download(source, target, moved)


def _upload(client: FilesClient, source: Path, target: BoxAddress) -> RemoteFile:
    size = source.stat().st_size if source.is_file() else 0
    with progress(source.name, size) as moved:
        return client.upload(source, target, moved)


def _report(file: RemoteFile, place: BoxAddress | Path, output: Format) -> None:
    """Print the result, or a note on standard error if standard output has the content."""
    from controller.client.files import is_stream

    if isinstance(place, Path) and is_stream(place):
        print_message(f"{about_size(file.size)} written")
        return
    document = {"place": str(place), "size": file.size, "etag": file.etag}
    output.show(document, lambda: echo(f"{place}: {about_size(file.size)}"), (str(place),))


def _count(number: int) -> str:
    return f"{number} file{'s' if number != 1 else ''}"


# --- where ------------------------------------------------------------------------------------------------------


def _file(address: BoxAddress, otherwise: str) -> BoxAddress:
    if address.path.is_group:
        raise click.UsageError(f"{address} {otherwise}")
    return address


def _group(address: BoxAddress) -> BoxAddress:
    if not address.box:
        raise click.UsageError(f"{address} does not name a box: write APP:BOX/GROUP/")
    return address.as_group()


def _local_source(text: str) -> Path:
    return STANDARD_INPUT if text == "-" else Path(text)


def _local_path(text: str) -> Path:
    return STANDARD_OUTPUT if text == "-" else Path(text)


def _local_target(path: Path, name: str) -> Path:
    return path / name if path.is_dir() else path


def _remote_target(address: BoxAddress, local: Path) -> BoxAddress:
    """Return the address of a file; if `address` is a group, the file gets the name of `local`."""
    if not address.path.is_group:
        return address
    if local == STANDARD_INPUT:
        raise click.UsageError(f"standard input has no name: {address} must name a file")
    try:
        return _group(address).below(local.name)
    except AddressInvalid as error:
        raise click.UsageError(str(error)) from error


commands = (file,)
