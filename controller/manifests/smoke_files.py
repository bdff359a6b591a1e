"""Reads the files of smoke tests from a folder on this machine, for `prichal validate` and `prichal serve-local`. The
daemon reads them from the commit (`controller.reconcile.resolve`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from controller.domain.apps.smoke import MAX_FILE, SmokeCase, SmokeTestInvalid, case_of, too_large
from controller.domain.apps.spec import ComponentKind, SmokeTest
from controller.domain.errors import ManifestProblem
from controller.domain.localizable import Localizable
from controller.manifests.components import smoke_test
from controller.manifests.reader import ManifestDocument

_PLACE = ("spec", "mlService", "smokeTest")


class FileMissing(Exception):
    """There is no such file in the folder, nor in the repository around it."""


def repository_of(folder: Path) -> Path | None:
    """Return the root of the repository that the folder lies in."""
    return next((p for p in (folder, *folder.resolve().parents) if (p / ".git").exists()), None)


def read_case(folder: Path, test: SmokeTest) -> SmokeCase:
    """Return the test with its files. Raises SmokeTestInvalid, FileMissing, OSError."""
    request = _content(folder, test.input)
    return case_of(test, request, None if test.output is None else _content(folder, test.output))


def smoke_problems(folder: Path, documents: Iterable[ManifestDocument]) -> Iterator[ManifestProblem | str]:
    """Yield the problems of smoke tests in valid documents with their defaults; notes, as text, of files that may lie
    outside of the folder, where it is in no repository."""
    for document in documents:
        raw = document.get(*_PLACE) if document.kind is ComponentKind.ML_COMPONENT else None
        if not isinstance(raw, dict):
            continue
        try:
            read_case(folder, smoke_test(raw))
        except FileMissing as error:
            if repository_of(folder) is None:
                yield document.warning(_PLACE, f"{error} in this folder: the repository must have it")
            else:
                yield document.problem(_PLACE, Localizable("{error} in this repository", error=error))
        except (SmokeTestInvalid, OSError) as error:
            yield document.problem(_PLACE, str(error))


def _roots(folder: Path) -> Iterator[Path]:
    """Yield where paths may begin: the repository, else a folder between it and this one, as of an example that becomes
    a repository of its own."""
    repository = repository_of(folder)
    yield from (repository,) if repository else ()
    yield folder
    for outer in folder.resolve().parents:
        if repository is None or outer == repository.resolve():
            return
        yield outer


def find_file(folder: Path, path: str) -> Path:
    """Return a file of the repository that the folder lies in. Raises FileMissing."""
    file = next((root / path for root in _roots(folder) if (root / path).is_file()), None)
    if file is None:
        raise FileMissing(Localizable("there is no file {path}", path=path))
    return file


def _content(folder: Path, path: str) -> bytes:
    file = find_file(folder, path)
    if (size := file.stat().st_size) > MAX_FILE:
        raise too_large(path, size)
    return file.read_bytes()
