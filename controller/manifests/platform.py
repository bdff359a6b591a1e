"""The platform folder becomes a PlatformSpec, or the list of everything that is wrong with it.

The daemon calls `load_platform` for each new state of the folder (or Git repository) that the config names.
Pure except for the files of this host that Secrets name, which are read through one function."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path as HostPath
from pathlib import PurePosixPath
from typing import Any

from controller.config import DefaultLimits, Settings
from controller.domain.apps.age_keys import encrypted_files
from controller.domain.apps.branch_previews import part_of
from controller.domain.apps.deploy_gate import DeployRules, DeployWindow
from controller.domain.apps.spec import (
    CommitStatusSpec,
    ComponentKind,
    GitRef,
    GivenSecrets,
    HookProvider,
    Limits,
    PlatformAppSpec,
    PlatformSpec,
    PreviewRules,
    RefKind,
    Registry,
    RepositorySpec,
    SecretSpec,
    StatusProvider,
)
from controller.domain.errors import ManifestInvalid, ManifestProblem
from controller.domain.forges import NoForge, address_of, takes
from controller.domain.localizable import Localizable
from controller.domain.names import AppName, RepositoryName
from controller.domain.notifications.spec import Channel
from controller.domain.secret import Secret, scrub, without_line_end
from controller.domain.units import parse_duration, parse_size
from controller.manifests import components
from controller.manifests.checks import MOST_NOTIFICATIONS, duplicates
from controller.manifests.components import spec_of
from controller.manifests.encrypted import decrypted_values, misplaced, names_files
from controller.manifests.pipeline_checks import dependency_cycles
from controller.manifests.reader import SUFFIXES, ManifestDocument, in_order, nearest, read
from controller.manifests.schema import check, with_defaults
from controller.ports import SourceFile
from controller.sops import FileKeys
from controller.yaml_documents import Node, Path, parse

_SYSTEM_KINDS = (
    ComponentKind.SECRET,
    ComponentKind.REPOSITORY,
    ComponentKind.PLATFORM_APP,
    ComponentKind.NOTIFICATION,
)
_MAX_SECRET_FILE = 2**20
_CUT_OFF = (
    Localizable("is not valid YAML"),
    Localizable("is not UTF-8"),
)  # problems of the reader that no sound file has

#: Which keys of a Secret log in where.
_LOGINS: Mapping[str, tuple[frozenset[str], ...]] = {
    "http": (frozenset({"username", "password"}), frozenset({"token"})),
    "ssh": (frozenset({"sshPrivateKey", "knownHosts"}),),
}

#: Where a Repository names Secrets.
_SECRETS: tuple[Path, ...] = (
    ("spec", "credentials"),
    ("spec", "webhook", "secret"),
    ("spec", "commitStatus", "credentials"),
    ("spec", "verify", "signers"),
)

ReadFile = Callable[[str], bytes]


def read_host_file(path: str) -> bytes:
    """Read at most one byte more than a Secret may hold, so that the caller can tell. Raises OSError."""
    with open(path, "rb") as file:
        return file.read(_MAX_SECRET_FILE + 1)


@dataclass(frozen=True)
class LoadedPlatform:
    """The valid documents of the platform folder, and the values of its Secrets by document."""

    documents: tuple[ManifestDocument, ...]
    secrets: Mapping[tuple[str, str | None], SecretSpec | None]  # None: there, but wrong
    declared: Mapping[ComponentKind, frozenset[str]]
    allowed_paths: tuple[str, ...]

    def of(self, kind: ComponentKind) -> tuple[ManifestDocument, ...]:
        return tuple(document for document in self.documents if document.kind is kind)

    def known_secrets(self, scopes: Iterable[str | None]) -> set[str]:
        wanted = set(scopes)
        return {name for name, scope in self.secrets if scope in wanted}

    def secret(self, name: str, scopes: Iterable[str | None]) -> SecretSpec | None:
        return next((s for scope in scopes if (s := self.secrets.get((name, scope)))), None)


def load_platform(
    files: Iterable[SourceFile],
    settings: Settings,
    read_file: ReadFile = read_host_file,
    keys: FileKeys | None = None,
) -> PlatformSpec:
    """Return the repositories, apps and Secrets that `files` declare. Repositories on this host must lie
    below a folder that `settings` allow. `read_file` returns a file of this host or raises OSError; `keys` decrypt, and
    without them placeholders stand for encrypted values. Raises ManifestInvalid with all problems."""
    spec, problems = examine_platform(files, settings, read_file, keys)
    if problems:
        raise ManifestInvalid(problems)
    return spec


def load_secret_values(path: HostPath) -> tuple[tuple[str, Secret], ...]:
    """Return the mapping in a YAML file with the `stringData` of a Secret. Raises ManifestInvalid."""
    try:
        parsed = parse(str(path), read_host_file(str(path)))
    except OSError as error:
        problem = ManifestProblem(
            str(path), 0, 0, "", Localizable("cannot be read: {strerror}", strerror=error.strerror)
        )
        raise ManifestInvalid((problem,)) from error
    root = parsed.documents[0] if len(parsed.documents) == 1 else Node(None, 1, 1)
    problems = list(parsed.problems)
    if not isinstance(root.value, dict) or not root.value:
        problems.append(
            ManifestProblem(
                str(path), root.line, root.column, "", Localizable("must be one mapping of keys to texts")
            )
        )
    wrong = [key for key in root.keys if not isinstance(root.children[key].value, str)]
    problems += [
        ManifestProblem(str(path), *root.keys[key], key, Localizable("must be text: write it in quotes"))
        for key in wrong
    ]
    if problems:
        raise ManifestInvalid(tuple(problems))
    values = {key: without_line_end(str(root.children[key].value)) for key in root.keys}
    return tuple(sorted((key, Secret(value)) for key, value in values.items()))


def examine_platform(
    files: Iterable[SourceFile],
    settings: Settings,
    read_file: ReadFile = read_host_file,
    keys: FileKeys | None = None,
) -> tuple[PlatformSpec, tuple[ManifestProblem, ...]]:
    """Return what is declared validly, and all problems."""
    files = tuple(files)
    reading = read(files, keys)
    broken = (problem for file in files for problem in _broken(file))
    problems = [*reading.problems, *duplicates(reading.documents), *broken]
    sound: list[ManifestDocument] = []
    for document in reading.documents:
        found = [*check(document), *_placement(document), *misplaced(document)]
        problems += found
        if not found:
            sound.append(with_defaults(document))
    secrets: dict[tuple[str, str | None], SecretSpec | None] = {}
    for document in reading.documents:
        if document.kind is ComponentKind.SECRET:
            secrets[document.name, _scope(document)] = None
    for document in sound:
        if document.kind is ComponentKind.SECRET:
            secret = _secret(document, read_file, problems)
            secrets[document.name, _scope(document)] = secret
    declared = {
        kind: frozenset(d.name for d in reading.documents if d.kind is kind) for kind in ComponentKind
    }
    allowed = tuple(str(path) for path in (*settings.git.allowed_paths, settings.repositories))
    platform = LoadedPlatform(tuple(sound), secrets, declared, allowed)
    for rule in _CHECKS:
        problems += rule(platform)
    hidden = tuple({value for document in reading.documents for value in decrypted_values(document)})
    told = in_order(replace(each, message=scrub(each.message, hidden)) for each in problems)
    spec = _build(platform, reading.warnings, settings)
    return replace(spec, encrypted=encrypted_files(reading.encrypted)), told


def _scope(document: ManifestDocument) -> str | None:
    namespace = document.get("metadata", "namespace")
    return namespace if isinstance(namespace, str) else None


def _placement(document: ManifestDocument) -> Iterator[ManifestProblem]:
    if document.kind not in _SYSTEM_KINDS:
        message = Localizable(
            "{kind} belongs into the repository of its module, not into the platform folder",
            kind=document.kind,
        )
        yield document.problem(["kind"], message)
    if document.kind is ComponentKind.SECRET and names_files(document):
        field = "envs" if document.get("envs") is not None else "fromFiles"
        message = Localizable(
            "only Secrets in the repository of a module have it: name files of this host with 'files'"
        )
        yield document.problem([field], message)
    namespace = _scope(document)
    if document.kind is ComponentKind.REPOSITORY and namespace is not None:
        yield document.problem(
            ["metadata", "namespace"], Localizable("a Repository belongs to no app: remove it")
        )
    if document.kind is ComponentKind.NOTIFICATION and namespace is not None:
        message = Localizable(
            "a Notification of the platform folder belongs to no app: name apps under spec.apps"
        )
        yield document.problem(["metadata", "namespace"], message)
    if document.kind is ComponentKind.PLATFORM_APP and namespace not in (None, document.name):
        message = Localizable(
            "must be the app's own name, {document!r}, or be left out", document=document.name
        )
        yield document.problem(["metadata", "namespace"], message)


def _broken(file: SourceFile) -> Iterator[ManifestProblem]:
    """Report files without a manifest. In a module's repository they belong to other tools; here such a file is a
    truncated manifest, and must not disconnect what it declared."""
    if not file.path.endswith(SUFFIXES):
        return
    if not file.content.strip(b"\0 \t\r\n"):
        yield ManifestProblem(
            file.path, 0, 0, "", Localizable("is empty: write what it is to declare, or remove it")
        )
        return
    for problem in parse(file.path, file.content).problems:
        if problem.message.startswith(_CUT_OFF):  # tags and other features that only other tools use
            yield problem


# --- Secrets ----------------------------------------------------------------------------------------------------


def _secret(
    document: ManifestDocument, read_file: ReadFile, problems: list[ManifestProblem]
) -> SecretSpec | None:
    """Return the Secret with the content of its files; None if one cannot be read."""
    files = document.get("files")
    contents: dict[str, str] = {}
    for key, path in (files if isinstance(files, dict) else {}).items():
        try:
            contents[key] = _content(read_file(str(path)))
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            problems.append(
                document.problem(
                    ["files", key], Localizable("cannot read {path}: {reason}", path=path, reason=reason)
                )
            )
    if isinstance(files, dict) and len(contents) < len(files):
        return None
    scope = _scope(document)
    return components.secret(document, AppName(scope) if scope else None, contents)


def _content(raw: bytes) -> str:
    if len(raw) > _MAX_SECRET_FILE:
        raise ValueError(
            Localizable("it is larger than {max_secret_file} MiB", max_secret_file=_MAX_SECRET_FILE // 2**20)
        )
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(Localizable("it is not UTF-8 text")) from error


# --- checks -----------------------------------------------------------------------------------------------------


def _repositories(platform: LoadedPlatform) -> Iterator[ManifestProblem]:
    for document in platform.of(ComponentKind.REPOSITORY):
        yield from _local_path(document, platform.allowed_paths)
        owners = [
            app.name
            for app in platform.of(ComponentKind.PLATFORM_APP)
            if spec_of(app)["repository"] == document.name
        ]
        scopes = [None, *owners]
        for path in _SECRETS:
            yield from _secret_reference(document, path, platform, scopes)
        yield from _credentials(document, platform, scopes)
        yield from _hook_secret(document, platform, scopes)
        yield from _commit_status(document, platform, scopes)


def _local_path(document: ManifestDocument, allowed_paths: Sequence[str]) -> Iterator[ManifestProblem]:
    url = str(document.get("spec", "url"))
    path = url.removeprefix("file://")
    if not path.startswith("/"):
        return
    whole = PurePosixPath(posixpath.normpath(path))
    if not any(whole.is_relative_to(posixpath.normpath(allowed)) for allowed in allowed_paths):
        known = ", ".join(allowed_paths) or "none"
        message = Localizable(
            "a path on this host must lie below a folder of the config's git.allowedPaths (now: {known})",
            known=known,
        )
        yield document.problem(("spec", "url"), message)


#: Whose Secrets a kind may name besides those of the platform.
_OTHER_OWNERS: Mapping[ComponentKind, str] = {
    ComponentKind.REPOSITORY: Localizable(" or of an app that uses it"),
    ComponentKind.PLATFORM_APP: Localizable(" or of this app"),
}


def _secret_reference(
    document: ManifestDocument, path: Path, platform: LoadedPlatform, scopes: Sequence[str | None]
) -> Iterator[ManifestProblem]:
    name = document.get(*path)
    known = platform.known_secrets(scopes)
    if isinstance(name, str) and name not in known:
        owners = _OTHER_OWNERS.get(document.kind, "")
        message = Localizable(
            "there is no Secret {name!r} of the platform{owners}{nearest}",
            name=name,
            owners=owners,
            nearest=nearest(name, known),
        )
        yield document.problem(path, message)


def _credentials(
    document: ManifestDocument, platform: LoadedPlatform, scopes: Sequence[str | None]
) -> Iterator[ManifestProblem]:
    name, url = document.get("spec", "credentials"), str(document.get("spec", "url"))
    secret = platform.secret(str(name), scopes)
    if secret is None:
        return
    path, scheme = ("spec", "credentials"), url_scheme(url)
    if scheme not in _LOGINS:
        where = Localizable("a path on this host takes") if scheme == "file" else "git:// takes"
        yield document.problem(
            path, Localizable("{where} no credentials: remove them or use https or ssh", where=where)
        )
        return
    yield from _keys(document, path, secret, _LOGINS[scheme], Localizable("this url"))
    yield from _unsendable(document, path, secret)


def _keys(
    document: ManifestDocument,
    path: Path,
    secret: SecretSpec,
    logins: tuple[frozenset[str], ...],
    place: str,
) -> Iterator[ManifestProblem]:
    keys = {key for key, value in secret.values if value.reveal().strip()}
    if not any(needed <= keys for needed in logins):
        options = " or ".join(" and ".join(sorted(needed)) for needed in logins)
        message = Localizable(
            "the Secret {secret!r} needs the keys {options} for {place}; it has {keys}",
            secret=secret.name,
            options=options,
            place=place,
            keys=_list(keys),
        )
        yield document.problem(path, message)


_ONE_LINE = ("username", "password", "token", "secret")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _unsendable(document: ManifestDocument, path: Path, secret: SecretSpec) -> Iterator[ManifestProblem]:
    """Return the part that no HTTP header, login or file of a program can hold."""
    for key, value in secret.values:
        if key in _ONE_LINE and _CONTROL.search(value.reveal()):
            message = Localizable(
                "{key} of the Secret {secret!r} holds a line break or another control character",
                key=key,
                secret=secret.name,
            )
            yield document.problem(
                path,
                Localizable("{message}, with which nobody can log in: correct the Secret", message=message),
            )
        elif "\0" in value.reveal():
            yield document.problem(
                path,
                Localizable(
                    "{key} of the Secret {secret!r} holds NUL: is it a binary file?",
                    key=key,
                    secret=secret.name,
                ),
            )


def url_scheme(url: str) -> str:
    """Return `http`, `ssh`, `git` or `file`; https counts as http, git's `user@host:path` as ssh."""
    if url.startswith("/"):
        return "file"
    scheme, separator, _ = url.partition("://")
    if not separator:
        return "ssh"
    return "http" if scheme == "https" else scheme


def _commit_status(
    document: ManifestDocument, platform: LoadedPlatform, scopes: Sequence[str | None]
) -> Iterator[ManifestProblem]:
    wanted = _status_spec(spec_of(document))
    if wanted is None:
        return
    try:
        address_of(wanted, str(document.get("spec", "url")))
    except NoForge as error:
        yield document.problem(("spec", "commitStatus"), str(error))
    path = ("spec", "commitStatus", "credentials")
    secret = platform.secret(wanted.credentials, scopes)
    if secret is not None:
        yield from _keys(document, path, secret, takes(wanted.provider), wanted.provider)
        yield from _unsendable(document, path, secret)


def _status_spec(spec: Mapping[str, Any]) -> CommitStatusSpec | None:
    raw = spec.get("commitStatus")
    if raw is None:
        return None
    return CommitStatusSpec(StatusProvider(raw["provider"]), raw["credentials"], raw.get("url", ""))


def _hook_secret(
    document: ManifestDocument, platform: LoadedPlatform, scopes: Sequence[str | None]
) -> Iterator[ManifestProblem]:
    name = document.get("spec", "webhook", "secret")
    secret = platform.secret(str(name), scopes) if name else None
    if secret is None:
        return
    value = secret.get("secret")
    if value is None or not value.reveal().strip():
        state = Localizable("has none") if value is None else Localizable("is empty there")
        message = Localizable(
            "the Secret {name!r} must hold the webhook's secret under the key 'secret'; it {state}",
            name=name,
            state=state,
        )
        yield document.problem(("spec", "webhook", "secret"), message)
        return
    yield from _unsendable(document, ("spec", "webhook", "secret"), secret)


def _apps(platform: LoadedPlatform) -> Iterator[ManifestProblem]:
    repositories, apps = (
        platform.declared[ComponentKind.REPOSITORY],
        platform.declared[ComponentKind.PLATFORM_APP],
    )
    for document in platform.of(ComponentKind.PLATFORM_APP):
        spec = spec_of(document)
        if spec["repository"] not in repositories:
            message = Localizable(
                "there is no Repository {spec!r}{nearest}",
                spec=spec["repository"],
                nearest=nearest(spec["repository"], repositories),
            )
            yield document.problem(("spec", "repository"), message)
        for i, name in enumerate(spec.get("dependsOn", [])):
            if name not in apps:
                message = Localizable(
                    "there is no PlatformApp {name!r}{nearest}", name=name, nearest=nearest(name, apps)
                )
                yield document.problem(("spec", "dependsOn", i), message)
        for field in ("registries", "packageRegistries"):
            yield from _registries(document, field, platform)
        yield from _preview_rules(document, platform)


#: The forges whose webhooks report pull requests.
_REPORT_PULLS = (HookProvider.GITHUB, HookProvider.GITLAB, HookProvider.GITEA, HookProvider.FORGEJO)


def _preview_rules(document: ManifestDocument, platform: LoadedPlatform) -> Iterator[ManifestProblem]:
    spec = spec_of(document)
    if "pullRequests" not in spec.get("previews", {}):
        return
    repositories = platform.of(ComponentKind.REPOSITORY)
    followed = next((each for each in repositories if each.name == spec["repository"]), None)
    provider = followed.get("spec", "webhook", "provider") if followed else None
    if followed and provider not in _REPORT_PULLS:
        known = ", ".join(_REPORT_PULLS)
        message = f"needs a Repository with spec.webhook of a forge that reports them: {known}"
        yield document.problem(("spec", "previews", "pullRequests"), message)


def _registries(
    document: ManifestDocument, field: str, platform: LoadedPlatform
) -> Iterator[ManifestProblem]:
    scopes = [document.name, None]
    seen: set[str] = set()
    for i, raw in enumerate(spec_of(document).get(field, [])):
        path = ("spec", field, i)
        if raw["name"] in seen:
            yield document.problem(
                (*path, "name"), Localizable("{raw!r} is there already: names must differ", raw=raw["name"])
            )
        seen.add(raw["name"])
        yield from _secret_reference(document, (*path, "credentials"), platform, scopes)
        secret = platform.secret(raw.get("credentials", ""), scopes)
        keys = (
            {key for key, value in secret.values if value.reveal().strip()}
            if secret
            else {"username", "password"}
        )
        if not {"username", "password"} <= keys:
            message = Localizable(
                "the Secret {raw!r} needs the keys username and password; it has {keys}",
                raw=raw["credentials"],
                keys=_list(keys),
            )
            yield document.problem((*path, "credentials"), message)
        elif secret:
            yield from _unsendable(document, (*path, "credentials"), secret)


#: Keys that the Secret of a receiver needs.
_RECEIVER_KEYS: Mapping[Channel, str] = {Channel.WEBHOOK: "secret", Channel.APPRISE: "url"}


def _notifications(platform: LoadedPlatform) -> Iterator[ManifestProblem]:
    found = platform.of(ComponentKind.NOTIFICATION)
    for document in found[MOST_NOTIFICATIONS:]:
        yield document.problem(
            ["kind"],
            Localizable(
                "the platform may have {most_notifications} Notifications at most",
                most_notifications=MOST_NOTIFICATIONS,
            ),
        )
    for document in found:
        wanted = components.notification(document)
        if not wanted.secret:
            continue
        path = ("spec", wanted.channel, "secret")
        yield from _secret_reference(document, path, platform, [None])
        secret = platform.secret(wanted.secret, [None])
        if secret is None:
            continue
        keys = {_RECEIVER_KEYS[wanted.channel]}
        if wanted.channel is Channel.WEBHOOK and not wanted.url:
            keys.add("url")
        yield from _keys(document, path, secret, (frozenset(keys),), Localizable("this receiver"))
        yield from _unsendable(document, path, secret)


def _dependencies(platform: LoadedPlatform) -> Iterator[ManifestProblem]:
    for document, cycle in dependency_cycles(platform.of(ComponentKind.PLATFORM_APP)):
        message = Localizable("apps wait for each other: {names}; none of them would ever start", names=cycle)
        yield document.problem(("spec", "dependsOn"), message)


def _list(keys: Iterable[str]) -> str:
    return ", ".join(sorted(keys)) or "none"


_CHECKS: tuple[Callable[[LoadedPlatform], Iterator[ManifestProblem]], ...] = (
    _repositories,
    _apps,
    _dependencies,
    _notifications,
)


# --- the spec ---------------------------------------------------------------------------------------------------


def _build(platform: LoadedPlatform, warnings: tuple[str, ...], settings: Settings) -> PlatformSpec:
    repositories = [repository(document) for document in platform.of(ComponentKind.REPOSITORY)]
    apps = [app(document, settings.limits) for document in platform.of(ComponentKind.PLATFORM_APP)]
    secrets = [secret for secret in platform.secrets.values() if secret]
    notifications = [components.notification(d) for d in platform.of(ComponentKind.NOTIFICATION)]
    return PlatformSpec(
        repositories=tuple(sorted(repositories, key=lambda r: r.name)),
        apps=tuple(sorted(apps, key=lambda a: a.name)),
        secrets=tuple(sorted(secrets, key=lambda s: (s.app or "", s.name))),
        notifications=tuple(sorted(notifications, key=lambda n: n.name)),
        warnings=warnings,
    )


def repository(document: ManifestDocument) -> RepositorySpec:
    spec = spec_of(document)
    ((kind, value),) = spec["ref"].items()
    webhook = spec.get("webhook")
    return RepositorySpec(
        name=RepositoryName(document.name),
        url=spec["url"],
        ref=GitRef(RefKind(kind), value),
        interval=parse_duration(spec["interval"]),
        credentials=spec.get("credentials"),
        hook_provider=HookProvider(webhook["provider"]) if webhook else None,
        hook_secret=webhook["secret"] if webhook else None,
        signers=spec["verify"]["signers"] if "verify" in spec else None,
        commit_status=_status_spec(spec),
    )


def app(document: ManifestDocument, defaults: DefaultLimits) -> PlatformAppSpec:
    spec = spec_of(document)
    limits = _share(defaults.of_app(_limits(spec.get("limits", {}))), spec.get("owner", ""))
    return PlatformAppSpec(
        name=AppName(document.name),
        repository=RepositoryName(spec["repository"]),
        path=posixpath.normpath(spec["path"]),
        prune=spec["prune"],
        suspend=spec["suspend"],
        deploy=_deploy(spec["deploy"]),
        depends_on=tuple(AppName(name) for name in spec.get("dependsOn", [])),
        limits=limits,
        owner=spec.get("owner", ""),
        registries=tuple(_registry(raw) for raw in spec.get("registries", [])),
        package_registries=tuple(_registry(raw) for raw in spec.get("packageRegistries", [])),
        previews=_previews(spec["previews"], limits) if "previews" in spec else None,
    )


def _previews(raw: Mapping[str, Any], share: Limits) -> PreviewRules:
    branches, secrets, most = raw["branches"], raw["secrets"], int(raw["max"])
    given = {name: n for name, n in vars(_limits(raw.get("limits", {}))).items() if n is not None}
    return PreviewRules(
        branches=(branches,) if isinstance(branches, str) else tuple(branches),
        ttl=parse_duration(raw["ttl"]),
        most=most,
        limits=replace(part_of(share, most), **given),
        pull_requests="pullRequests" in raw,
        forks=raw.get("pullRequests") == "forks",
        copies_boxes=raw["boxes"] == "copy",
        secrets=GivenSecrets(
            all=secrets == "inherit", names=frozenset(() if secrets in ("none", "inherit") else secrets)
        ),
    )


def _deploy(raw: Mapping[str, Any]) -> DeployRules:
    windows = tuple(
        DeployWindow(each["cron"], each["timezone"], parse_duration(each["duration"]))
        for each in raw.get("windows", [])
    )
    return DeployRules(frozen=raw["frozen"], approval=raw["approval"] == "required", windows=windows)


def _limits(raw: Mapping[str, Any]) -> Limits:
    return Limits(
        cpus=float(raw["cpus"]) if "cpus" in raw else None,
        memory=parse_size(raw["memory"]) if "memory" in raw else None,
        storage=parse_size(raw["storage"]) if "storage" in raw else None,
        containers=int(raw["containers"]) if "containers" in raw else None,
        gpus=int(raw["gpus"]) if "gpus" in raw else None,
    )


def _share(limits: Limits, owner: str) -> Limits:
    """What counts against a quota has a bound; nobody is given GPUs by leaving them out."""
    return replace(limits, gpus=0) if owner and limits.gpus is None else limits


def _registry(raw: Mapping[str, Any]) -> Registry:
    return Registry(raw["name"], re.sub(r"/$", "", raw["url"]), raw.get("credentials"))
