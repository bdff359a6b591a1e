"""Finds and reads `config.yaml`. All problems of the file are reported together, each with line, column and key."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import urlsplit

from controller.config.options import OPTIONAL, OPTIONS, SECTIONS, field_of
from controller.config.settings import PlatformSource, Settings
from controller.domain.errors import ManifestProblem, Stalled
from controller.domain.reasons import Reason
from controller.yaml_documents import Node, parse

SYSTEM_CONFIG = Path("/etc/prichal/config.yaml")


class ConfigInvalid(Stalled):
    """All problems of a config file. Nothing starts with a config that is half understood."""

    def __init__(self, problems: tuple[ManifestProblem, ...]) -> None:
        self.problems = tuple(sorted(problems))
        count = len(self.problems)
        head = f"{count} problem{'s' if count != 1 else ''} in the config"
        super().__init__(Reason.CONFIG_INVALID, "\n".join([head, *map(str, self.problems)]))


def load(path: Path | None = None, environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings of a config file. Without `path`: of the file that $PRICHAL_CONFIG names, else of
    /etc/prichal/config.yaml, else the defaults. ConfigInvalid with all problems."""
    named = path or (Path(environment["PRICHAL_CONFIG"]) if environment.get("PRICHAL_CONFIG") else None)
    if named is None and not SYSTEM_CONFIG.exists():
        return defaults(environment)
    chosen = named or SYSTEM_CONFIG
    # The system's file means the system's folders, also for readers other than root: the services and operators.
    return read(chosen, Settings() if chosen == SYSTEM_CONFIG else defaults(environment))


def defaults(environment: Mapping[str, str] = os.environ, user: int | None = None) -> Settings:
    """Return the settings that apply unless a file overrides them. Root gets the system's folders; another user
    gets `~/.local/state/prichal` (or below $XDG_STATE_HOME), so that a first try needs no rights."""
    if (os.geteuid() if user is None else user) == 0:
        return Settings()
    home = Path(environment.get("HOME") or Path.home())
    state = Path(environment.get("XDG_STATE_HOME") or home / ".local" / "state") / "prichal"
    return Settings(state=state, platform=PlatformSource(path=str(state / "platform")))


def read(path: Path, base: Settings) -> Settings:
    """The settings of one file on top of `base`. ConfigInvalid with all problems."""
    path = path.absolute()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigInvalid(
            (ManifestProblem(str(path), 0, 0, "", f"cannot be read: {error.strerror}"),)
        ) from error
    parsed = parse(str(path), content)
    problems = list(parsed.problems)
    if len(parsed.documents) > 1:
        second = parsed.documents[1]
        problems.append(
            ManifestProblem(str(path), second.line, second.column, "", "a second document: keep one")
        )
    root = parsed.documents[0] if parsed.documents else Node(None, 1, 1)
    values: dict[str, object] = {}
    for key, node, place in _entries(str(path), root, problems):
        try:
            values[key] = _value(key, node, path.parent)
        except ValueError as error:
            problems.append(ManifestProblem(str(path), *place, key, str(error)))
    settings = _with_values(base, values, path)
    problems += _contradictions(str(path), root, settings)
    if problems:
        raise ConfigInvalid(tuple(problems))
    return settings


def _entries(
    file: str, root: Node, problems: list[ManifestProblem]
) -> Iterator[tuple[str, Node, tuple[int, int]]]:
    """Key, value and place of each option that is given; unknown keys become problems."""
    for name, node in _children(file, "", root, problems):
        if name not in SECTIONS:
            yield from _known(file, name, node, root.keys[name], problems)
            continue
        for key, child in _children(file, name, node, problems):
            yield from _known(file, f"{name}.{key}", child, node.keys[key], problems)


def _children(file: str, key: str, node: Node, problems: list[ManifestProblem]) -> list[tuple[str, Node]]:
    """A section's entries. An empty one is fine: all its options may be commented out."""
    if not isinstance(node.value, dict | None):
        problems.append(ManifestProblem(file, node.line, node.column, key, "must be a mapping of options"))
    return [(name, node.children[name]) for name in node.keys]


def _known(
    file: str, key: str, node: Node, place: tuple[int, int], problems: list[ManifestProblem]
) -> Iterator[tuple[str, Node, tuple[int, int]]]:
    if key in OPTIONS:
        yield key, node, place
    else:
        problems.append(ManifestProblem(file, *place, key, f"unknown option{_nearest(key)}"))


def _nearest(key: str) -> str:
    """The right key for a wrong one: perhaps a slip, perhaps the wrong section."""
    section, _, name = key.rpartition(".")
    siblings = [option for option in OPTIONS if option.rpartition(".")[0] == section]
    near = get_close_matches(key, [*siblings, *SECTIONS] if not section else siblings, n=1, cutoff=0.7)
    elsewhere = [option for option in OPTIONS if option.rpartition(".")[2] == name]
    anywhere = get_close_matches(key, OPTIONS, n=1)
    guess = next(iter([*elsewhere, *near, *anywhere]), None)
    return f"; did you mean {guess!r}?" if guess else "; config.example.yaml shows all"


def _value(key: str, node: Node, folder: Path) -> object:
    if node.value is None:
        if key in OPTIONAL:
            return None
        raise ValueError("is empty: give a value or remove the line")
    return OPTIONS[key](node.value, folder)


def _with_values(base: Settings, values: Mapping[str, object], path: Path) -> Settings:
    top: dict[str, object] = {"source": path}
    sections: dict[str, dict[str, object]] = {}
    for key, value in values.items():
        if value is None:
            continue  # left empty: the default
        section, _, name = field_of(key).rpartition(".")
        (sections.setdefault(section, {}) if section else top)[name] = value
    sections.setdefault("platform", {})["path"] = _platform_path(values, base, path.parent)
    for section, fields in sections.items():
        top[section] = replace(getattr(base, section), **fields)
    return replace(base, **top)  # type: ignore[arg-type]


def _platform_path(values: Mapping[str, object], base: Settings, folder: Path) -> str:
    """Return the platform folder: with a URL a folder in that repository (by default its root), else a folder of
    this host."""
    given = values.get("platform.path")
    if values.get("platform.url"):
        return str(given or ".")
    return str(folder / Path(str(given)).expanduser()) if given else base.platform.path


def _is_here(listen: str) -> bool:
    return listen.rpartition(":")[0] in ("127.0.0.1", "localhost", "[::1]")


def _contradictions(file: str, root: Node, settings: Settings) -> Iterator[ManifestProblem]:
    def problem(message: str, section: str, name: str) -> ManifestProblem:
        return ManifestProblem(file, *root.place([section, name]), f"{section}.{name}", message)

    if settings.reconcile.backoff_initial > settings.reconcile.backoff_max:
        yield problem("must not be below reconcile.backoffInitial", "reconcile", "backoffMax")
    if settings.platform.credentials and not settings.platform.url:
        yield problem(
            "needs platform.url: a folder of this host takes no credentials", "platform", "credentials"
        )
    if settings.platform.url and settings.platform.path.startswith("/"):
        yield problem(
            "must be relative: with platform.url it is a folder of that repository", "platform", "path"
        )
    domain, own = settings.web.app_domain, urlsplit(settings.web.public_url).hostname or ""
    if domain and own.endswith("." + domain):
        yield problem(
            f"lies below web.appDomain: that would be the app {own.split('.')[0]!r}", "web", "publicUrl"
        )
    if settings.sign_in.oidc and not settings.web.public_url and not _is_here(settings.web.listen):
        yield problem(
            "needs web.publicUrl: issuers send people back to the address that is registered with them",
            "people",
            "oidc",
        )
    yield from _of_receivers(problem, settings)
    for name, message in _backup_contradictions(settings):
        yield problem(message, "backup", name)
    yield from _storage_contradictions(settings, problem)


def _backup_contradictions(settings: Settings) -> Iterator[tuple[str, str]]:
    """Return options and what is wrong with them."""
    chosen = settings.backup
    is_bucket = chosen.to.startswith("s3://")
    if chosen.to and not chosen.recipients:
        yield "to", "needs backup.recipients: the public keys that backups are encrypted for"
    if is_bucket and not (chosen.endpoint and chosen.credentials):
        yield "to", "a bucket needs backup.endpoint and backup.credentials"
    if chosen.schedule and not chosen.to:
        yield "schedule", "needs backup.to: where backups go"
    folder = Path(chosen.to)
    if chosen.to and not is_bucket and settings.state in (folder, *folder.parents):
        yield "to", "must not lie within the state folder, which it is a backup of"


def _storage_contradictions(
    settings: Settings, problem: Callable[[str, str, str], ManifestProblem]
) -> Iterator[ManifestProblem]:
    storage = settings.storage
    if storage.backend == "s3" and not storage.endpoint:
        yield problem("s3 needs an endpoint: where the server is", "storage", "backend")
    if storage.backend == "s3" and not storage.credentials:
        yield problem("s3 needs credentials: a YAML file with accessKey and secretKey", "storage", "backend")
    if storage.backend != "s3" and (storage.endpoint or storage.credentials or storage.admin != "none"):
        name = next(
            n
            for n, v in (("endpoint", storage.endpoint), ("credentials", storage.credentials), ("admin", 1))
            if v
        )
        yield problem("goes with backend: s3 only", "storage", name)


def _of_receivers(
    problem: Callable[[str, str, str], ManifestProblem], settings: Settings
) -> Iterator[ManifestProblem]:
    """Return contradictions about where mail and traces go."""
    mail = settings.notifications
    if mail.smtp and not mail.smtp_from:
        yield problem(
            "needs notifications.smtpFrom: the address that mail comes from", "notifications", "smtp"
        )
    if mail.smtp_credentials and mail.smtp_tls == "none":
        yield problem("would send the password in the clear: use starttls or tls", "notifications", "smtpTls")
    if settings.tracing.headers and not settings.tracing.endpoint:
        yield problem("needs tracing.endpoint: the receiver that asks for them", "tracing", "headers")
