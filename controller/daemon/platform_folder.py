"""Where the system components are read from: a folder on this host, or a Git repository."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from controller.config import Settings
from controller.domain.errors import Stalled
from controller.domain.names import PLATFORM, RepositoryName
from controller.domain.spec import GitRef, PlatformSpec, RefKind, RepositorySpec, SecretSpec
from controller.manifests import load_platform
from controller.manifests.platform import load_secret_values
from controller.ports import SourceFile, Sources

SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class PlatformFolder:
    settings: Settings
    sources: Sources

    def read(self) -> tuple[PlatformSpec, str]:
        """The validated content, with the commit when it comes from Git."""
        files, revision = self._from_git() if self.settings.platform.url else (self._from_disk(), "")
        return load_platform(files, self.settings), revision

    def mark(self) -> tuple[tuple[str, int, int], ...]:
        """Changes when a file of the folder does; cheap enough to be asked every other second."""
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
            advice = "create it, or name another one under platform.path in the configuration"
            raise Stalled("PlatformFolderMissing", f"the platform folder {root} is not there; {advice}")
        try:
            return tuple(SourceFile(p.relative_to(root).as_posix(), p.read_bytes()) for p in self._paths())
        except OSError as error:
            raise Stalled("PlatformFolderUnreadable", f"{error.filename}: {error.strerror}") from error

    def _from_git(self) -> tuple[tuple[SourceFile, ...], str]:
        chosen = self.settings.platform
        repository = RepositorySpec(
            name=RepositoryName(PLATFORM), url=chosen.url or "", ref=GitRef(RefKind.BRANCH, chosen.branch)
        )
        revision = self.sources.fetch(repository, self._credentials(), None)
        path = "." if chosen.path.startswith("/") else chosen.path
        return self.sources.files(revision, path, SUFFIXES), revision.commit

    def _credentials(self) -> SecretSpec | None:
        path = self.settings.platform.credentials
        return SecretSpec("platform", load_secret_values(path)) if path else None
