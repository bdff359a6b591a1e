"""Reads the manifests of commits: for passes, which find most of them in a cache, and for people. Encrypted files are
decrypted with the keys of their app alone.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable

from controller.age import AgeKeys
from controller.config.settings import DefaultLimits
from controller.domain.apps.followed_images import without_write_back
from controller.domain.apps.history import ManifestText, shown_manifests
from controller.domain.apps.policies import NO_POLICIES, Policies
from controller.domain.apps.spec import AppSpec, PlatformAppSpec
from controller.domain.names import AppName
from controller.domain.secret import Secret
from controller.manifests import load_app
from controller.manifests.encrypted import NO_ACCESS, FileAccess
from controller.manifests.reader import may_be_ours
from controller.ports import Revision, SourceFile
from controller.reconcile.deps import ReconcilerDeps
from controller.sops import FileKeys
from controller.sops.files import MAX_FILE

SUFFIXES = (".yaml", ".yml")
CACHE_ENTRIES = (
    4096  # more than apps: if a round of passes used more of them, each would read its manifests again
)
CACHE_BYTES = 64 * 2**20  # of the manifests that are kept
_NO_KEY = (
    "it is a preview, which may not decrypt what was encrypted for its app: spec.previews.secrets: inherit"
)


class ReadManifests:
    """A cache of parsed manifests: most passes read what the previous one has read, and parsing and checking
    are half of a pass that changes nothing.

    It keeps the entries used last, within a limit in bytes, and only files that can be manifests: each commit
    of an app is another entry. Thread-safe.
    """

    def __init__(self, most: int = CACHE_BYTES) -> None:
        self._most = most
        self._held = 0
        self._lock = threading.Lock()
        self._known: OrderedDict[Hashable, tuple[int, AppSpec]] = OrderedDict()

    def load(
        self,
        files: Iterable[SourceFile],
        declared: PlatformAppSpec,
        limits: DefaultLimits,
        access: FileAccess = NO_ACCESS,
        revision: Revision | None = None,
        policies: Policies = NO_POLICIES,
    ) -> AppSpec:
        """`access` reads other files of `revision`, which count where a manifest may name some."""
        kept = tuple(file for file in files if file.passed_over or may_be_ours(file.content))
        names_files = any(word in file.content for file in kept for word in (b"envs", b"fromFiles"))
        key = (kept, declared, limits, access.keys, policies, revision if names_files else None)
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key][1]
        spec = load_app(kept, declared, True, limits, access, policies)
        self._keep(key, sum(len(file.content) for file in kept), spec)
        return spec

    def _keep(self, key: Hashable, size: int, spec: AppSpec) -> None:
        with self._lock:
            if key not in self._known:
                self._known[key] = size, spec
                self._held += size
            while self._held > self._most or len(self._known) > CACHE_ENTRIES:
                self._held -= self._known.popitem(last=False)[1][0]


_manifests = ReadManifests()


def read_manifests(
    deps: ReconcilerDeps,
    revision: Revision,
    declared: PlatformAppSpec,
    policies: Policies = NO_POLICIES,
) -> AppSpec:
    """Return what a commit declares. Its encrypted files are decrypted with the keys of this app alone. `policies` hold
    for commits that are not in force yet."""
    files = deps.sources.files(revision, declared.path, SUFFIXES)
    access = FileAccess(_age_keys(deps, declared), lambda path: deps.sources.read(revision, path, MAX_FILE))
    spec = _manifests.load(files, declared, deps.settings.limits, access, revision, policies)
    return without_write_back(spec) if declared.preview else spec


def _age_keys(deps: ReconcilerDeps, declared: PlatformAppSpec) -> FileKeys:
    """Return the keys of an app. A preview has no key of its own, and that of its app only with all its Secrets: who
    may decrypt one value may decrypt a copy of every other one."""
    if declared.preview is None:
        return deps.store.age_keys.of(declared.name)
    if declared.preview.secrets.all:
        return deps.store.age_keys.of(declared.preview.app)
    return AgeKeys(declared.name, problem=_NO_KEY)


def spec_at(deps: ReconcilerDeps, app: AppName, revision: str) -> AppSpec | None:
    """Return what a commit of the app's repository declares; None if the app is not connected."""
    declared = deps.catalog.spec.app(app)
    if declared is None:
        return None
    return read_manifests(deps, Revision(declared.repository, revision, ""), declared)


def manifests_of(
    deps: ReconcilerDeps, revision: Revision, declared: PlatformAppSpec, hidden: tuple[Secret, ...]
) -> tuple[ManifestText, ...]:
    """Return the manifests of a commit for people."""
    return shown_manifests(deps.sources.files(revision, declared.path, SUFFIXES), hidden)
