"""Checks between the manifests of the platform folder: what they name exists, and fits. `platform.py` runs them on all
documents that are valid in themselves.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from controller.domain.apps.spec import ComponentKind, HookProvider
from controller.domain.errors import ManifestProblem
from controller.domain.forges import NoForge, address_of, takes
from controller.domain.localizable import Localizable
from controller.domain.notifications.spec import Channel
from controller.manifests import components
from controller.manifests.checks import MOST_NOTIFICATIONS
from controller.manifests.components import spec_of
from controller.manifests.pipeline_checks import dependency_cycles
from controller.manifests.platform_documents import LoadedPlatform
from controller.manifests.platform_spec import status_spec
from controller.manifests.reader import ManifestDocument, nearest
from controller.manifests.secret_references import list_keys, missing_keys, unknown_secret, unsendable_values
from controller.yaml_documents import Path

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
            yield from unknown_secret(document, path, platform, scopes)
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
    yield from missing_keys(document, path, secret, _LOGINS[scheme], Localizable("this url"))
    yield from unsendable_values(document, path, secret)


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
    wanted = status_spec(spec_of(document))
    if wanted is None:
        return
    try:
        address_of(wanted, str(document.get("spec", "url")))
    except NoForge as error:
        yield document.problem(("spec", "commitStatus"), str(error))
    path = ("spec", "commitStatus", "credentials")
    secret = platform.secret(wanted.credentials, scopes)
    if secret is not None:
        yield from missing_keys(document, path, secret, takes(wanted.provider), wanted.provider)
        yield from unsendable_values(document, path, secret)


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
    yield from unsendable_values(document, ("spec", "webhook", "secret"), secret)


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
        yield from unknown_secret(document, (*path, "credentials"), platform, scopes)
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
                keys=list_keys(keys),
            )
            yield document.problem((*path, "credentials"), message)
        elif secret:
            yield from unsendable_values(document, (*path, "credentials"), secret)


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
        yield from unknown_secret(document, path, platform, [None])
        secret = platform.secret(wanted.secret, [None])
        if secret is None:
            continue
        keys = {_RECEIVER_KEYS[wanted.channel]}
        if wanted.channel is Channel.WEBHOOK and not wanted.url:
            keys.add("url")
        yield from missing_keys(document, path, secret, (frozenset(keys),), Localizable("this receiver"))
        yield from unsendable_values(document, path, secret)


def _dependencies(platform: LoadedPlatform) -> Iterator[ManifestProblem]:
    for document, cycle in dependency_cycles(platform.of(ComponentKind.PLATFORM_APP)):
        message = Localizable("apps wait for each other: {names}; none of them would ever start", names=cycle)
        yield document.problem(("spec", "dependsOn"), message)


CHECKS: tuple[Callable[[LoadedPlatform], Iterator[ManifestProblem]], ...] = (
    _repositories,
    _apps,
    _dependencies,
    _notifications,
)
