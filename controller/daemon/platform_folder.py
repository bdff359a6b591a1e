"""Reads the system components from a folder on this host, or from a Git repository. The last valid
content is kept for a start when the folder is broken.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from controller.config import Settings
from controller.daemon.last_good import FolderContent, LastGood, ReadRecorder
from controller.domain.apps.spec import GitRef, PlatformSpec, RefKind, RepositorySpec, SecretSpec
from controller.domain.errors import ControllerError, Stalled
from controller.domain.localizable import Localizable
from controller.domain.names import PLATFORM, RepositoryName
from controller.domain.reasons import Reason
from controller.manifests import load_platform
from controller.manifests.secret_files import load_secret_values
from controller.ports import SourceFile, Sources
from controller.sops import FileKeys

log = logging.getLogger(__name__)

SUFFIXES = (".yaml", ".yml")


@dataclass
class PlatformFolder:
    settings: Settings
    sources: Sources
    keys: Callable[[], FileKeys | None] = lambda: None  # by which its files are decrypted
    _content: FolderContent = field(default=FolderContent(()), init=False)  # of the last valid reading

    def __post_init__(self) -> None:
        self._last_good = LastGood(self.settings.private / "platform.json")

    def read(self) -> tuple[PlatformSpec, str]:
        """Return the validated content, and the commit if it comes from Git."""
        files, revision = self._from_git() if self.settings.platform.url else (self._from_disk(), "")
        recorder = ReadRecorder()
        spec = load_platform(files, self.settings, recorder, self.keys())
        self._content = FolderContent(files, revision, recorder.seen)
        return spec, revision

    def keep(self) -> None:
        """Keep the content that was read last for the next start. If it cannot be written, the previous one
        stays.
        """
        try:
            self._last_good.keep(self._content)
        except OSError as error:
            log.error("cannot keep the content of the platform folder for the next start: %s", error)

    def last(self) -> PlatformSpec | None:
        """Return what this daemon or an earlier one last used; None if there is none or it is no longer
        valid.
        """
        content = self._last_good.read()
        if content is None:
            return None
        try:
            return load_platform(content.files, self.settings, content.read_file, self.keys())
        except ControllerError as error:
            log.error("the last valid content of the platform folder cannot be used any more: %s", error)
            return None

    def mark(self) -> tuple[tuple[str, int, int], ...]:
        """Return a value that changes with the files of the folder; cheap enough to call every two seconds."""
        if self.settings.platform.url:
            return ()
        stats = ((path, path.stat()) for path in self._paths())
        return tuple((str(path), stat.st_mtime_ns, stat.st_size) for path, stat in stats)

    def _paths(self) -> Iterator[Path]:
        root = Path(self.settings.platform.path)
        for path in sorted(root.rglob("*")):
            hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
            if path.suffix in SUFFIXES and not hidden and path.is_file():
                yield path

    def _from_disk(self) -> tuple[SourceFile, ...]:
        root = Path(self.settings.platform.path)
        if not root.is_dir():
            advice = Localizable("create it, or set platform.path in the configuration to another folder")
            raise Stalled(
                Reason.PLATFORM_FOLDER_MISSING,
                Localizable("the platform folder {root} does not exist; {advice}", root=root, advice=advice),
            )
        try:
            return tuple(SourceFile(p.relative_to(root).as_posix(), p.read_bytes()) for p in self._paths())
        except OSError as error:
            raise Stalled(Reason.PLATFORM_FOLDER_UNREADABLE, f"{error.filename}: {error.strerror}") from error

    def _from_git(self) -> tuple[tuple[SourceFile, ...], str]:
        chosen = self.settings.platform
        repository = RepositorySpec(
            name=RepositoryName(PLATFORM),
            url=chosen.url or "",
            ref=GitRef(RefKind.BRANCH, chosen.branch),
            interval=chosen.interval,
        )
        revision = self.sources.fetch(repository, self._credentials(), None)
        path = "." if chosen.path.startswith("/") else chosen.path
        return self.sources.files(revision, path, SUFFIXES), revision.commit

    def _credentials(self) -> SecretSpec | None:
        path = self.settings.platform.credentials
        return SecretSpec("platform", load_secret_values(path)) if path else None
