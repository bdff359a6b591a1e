"""Every option of `config.yaml`: its key, and how its value is read. Pure but for the files that options name.

A reader takes the value as YAML gave it and the folder of the config file, and returns what `Settings` holds, or
raises ValueError with what would be right. Keys are camelCase, as in the manifests; the field of `Settings` has the
same name in snake_case, within the section before the dot.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from controller.config.openid import read_issuers, read_secret
from controller.domain.cron import is_cron, is_timezone
from controller.domain.egress import read_allowed
from controller.domain.labels import MAX_VALUE, gpu_value
from controller.domain.names import is_dns_label
from controller.domain.secret import Secret
from controller.domain.units import parse_duration, parse_size, render_duration, render_size
from controller.yaml_documents import Json

Read = Callable[[Json, Path], object]

SECTIONS: Final = (
    *(
        "platform",
        "git",
        "docker",
        "reconcile",
        "web",
        "people",
        "storage",
        "runs",
        "calls",
        "notifications",
        "images",
        "limits",
        "policies",
        "apps",
        "backup",
        "log",
        "tracing",
    ),
)
_MIN_TOKEN: Final = 16
_DOMAIN: Final = r"(?=.{1,189}$)[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*"
_ORIGIN: Final = r"https?://[^\s/?#@]+"
_PLACE: Final = r"https?://[^\s/?#@]+(/[^\s?#]*)?"
_DEVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9:/_.-]*")
_BUCKET = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9._-]{1,100}){0,8}/?")
_LISTEN = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})")


def _duration(least: float = 0.0) -> Read:
    def read(value: Json, _: Path) -> object:
        try:
            seconds = parse_duration(value)  # type: ignore[arg-type]
        except (ValueError, TypeError):
            seconds = -1.0
        if seconds < least:
            raise ValueError(
                "must be a duration such as 500ms, 30s, 10m, 1h30m or 7d, or a number of seconds"
                + (f"; at least {render_duration(least)}" if least else "")
            )
        return seconds

    return read


def _size(least: int) -> Read:
    def read(value: Json, _: Path) -> object:
        try:
            size = parse_size(value)  # type: ignore[arg-type]
        except (ValueError, TypeError):
            size = -1
        if size < least:
            raise ValueError(
                f"must be a size such as 512Mi, 2Gi or 20G, or a number of bytes; at least {render_size(least)}"
            )
        return size

    return read


def _count(least: int, most: int) -> Read:
    def read(value: Json, _: Path) -> object:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f"must be a whole number from {least} to {most}")
        return value

    return read


def _cpus(value: Json, _: Path) -> object:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0.01 <= value <= 1024:
        raise ValueError("must be a number of CPUs such as 0.5 or 4")
    return float(value)


def _ratio(value: Json, _: Path) -> object:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        raise ValueError("must be a number from 0 to 1, such as 0.1")
    return float(value)


def _flag(value: Json, _: Path) -> object:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _choice(*options: str) -> Read:
    def read(value: Json, _: Path) -> object:
        if value not in options:
            raise ValueError(f"must be one of {', '.join(options)}")
        return value

    return read


def _text(pattern: str, meaning: str) -> Read:
    def read(value: Json, _: Path) -> object:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise ValueError(f"must be {meaning}")
        return value

    return read


def _texts(pattern: str, meaning: str) -> Read:
    def read(value: Json, _: Path) -> object:
        entries = value if isinstance(value, list) else [None]
        if not all(isinstance(entry, str) and re.fullmatch(pattern, entry) for entry in entries):
            raise ValueError(f"must be a list of {meaning}")
        return tuple(str(entry) for entry in entries)

    return read


def _expression(value: Json, _: Path) -> object:
    """A regular expression of Python."""
    meaning = "must be a regular expression, such as team-[a-z0-9-]+"
    if not isinstance(value, str):
        raise ValueError(meaning)
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"{meaning}; {error}") from error
    return value


def _path(value: Json, base: Path) -> object:
    """Absolute, or relative to the folder of the config file."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("must be a path, absolute or relative to the folder of this file")
    return base / Path(value).expanduser()


def _paths(value: Json, base: Path) -> object:
    if not isinstance(value, list):
        raise ValueError("must be a list of paths")
    return tuple(_path(entry, base) for entry in value)


def _plain_path(value: Json, _: Path) -> object:
    """Becomes a path of the host or of a repository in `loader`, which knows which."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("must be a path")
    return value


def _instance(value: Json, _: Path) -> object:
    if not isinstance(value, str) or not is_dns_label(value):
        raise ValueError("must be a DNS label: 1 to 63 of a-z, 0-9 and hyphens, no hyphen at either end")
    return value


def _listen(value: Json, base: Path) -> object:
    match = _LISTEN.fullmatch(value) if isinstance(value, str) else None
    if match and int(match["port"]) < 65536:
        return value
    raise ValueError("must be an address with a port, such as 127.0.0.1:8000, [::1]:8000 or 0.0.0.0:80")


def _networks(value: Json, _: Path) -> object:
    try:
        return tuple(
            str(ipaddress.ip_network(str(entry))) for entry in (value if isinstance(value, list) else [None])
        )
    except ValueError:
        raise ValueError("must be a list of IP addresses or networks such as 10.0.0.0/8") from None


def _allowed(value: Json, _: Path) -> object:
    entries = value if isinstance(value, list) else [None]
    try:
        for entry in entries:
            read_allowed(str(entry))
    except ValueError:
        raise ValueError(
            "must be a list of networks or addresses, these also with a TCP port, such as 10.1.0.0/16, "
            "10.0.0.5:5432 or [fd00::5]:5432"
        ) from None
    return tuple(map(str, entries))


def _devices(value: Json, _: Path) -> object:
    """People write `[0, 1]` as well as `["0", "1"]`."""
    entries = value if isinstance(value, list) else [None]
    ids = [str(entry) if type(entry) is int else entry for entry in entries]
    if not all(isinstance(id, str) and _is_device(id) for id in ids) or len(set(ids)) < len(ids):
        raise ValueError("must be a list of different device ids, such as [0, 1] or [GPU-3a23c669]")
    return tuple(str(id) for id in ids)


def _is_device(id: str) -> bool:
    return bool(_DEVICE.fullmatch(id)) and len(gpu_value(id)) <= MAX_VALUE


def _token_file(value: Json, base: Path) -> object:
    path = _path(value, base)
    assert isinstance(path, Path)
    token = read_secret(path)
    if token is None:  # the web process alone needs it, and says so: see web/auth/token.py
        return Secret("")
    if len(token) < _MIN_TOKEN:
        raise ValueError(
            f"the token in {path} is too short: at least {_MIN_TOKEN} characters, better 32 random ones"
        )
    return Secret(token)


def _place(value: Json, base: Path) -> object:
    """A folder, or a bucket with a prefix."""
    if isinstance(value, str) and value.startswith("s3://"):
        if not _BUCKET.fullmatch(value):
            raise ValueError("must be a folder, or a bucket such as s3://backups/prichal")
        return value
    return str(_path(value, base))


def _cron(value: Json, _: Path) -> object:
    if not isinstance(value, str) or not is_cron(value):
        raise ValueError('must be a cron expression of five fields, such as "0 3 * * *"')
    return " ".join(value.split())


def _timezone(value: Json, _: Path) -> object:
    if not isinstance(value, str) or not is_timezone(value):
        raise ValueError("must be a time zone such as UTC or Europe/Moscow")
    return value


#: By key, in the order of `config.example.yaml`.
OPTIONS: Final[Mapping[str, Read]] = {
    "state": _path,
    "instance": _instance,
    "engine": _choice("docker"),
    "platform.path": _plain_path,
    "platform.url": _text(r"\S+", "a Git URL"),
    "platform.branch": _text(r"[^\s~^:?*\[\\]+", "the name of a branch"),
    "platform.interval": _duration(),
    "platform.credentials": _path,
    "git.fetchTimeout": _duration(1),
    "git.maxRepository": _size(2**20),
    "git.maxFile": _size(2**20),
    "git.maxContext": _size(2**20),
    "git.allowedPaths": _paths,
    "git.privateForges": _flag,
    "git.http": _flag,
    "docker.host": _text(
        r"(?:unix:///|tcp://)\S+", "an address such as unix:///var/run/docker.sock or tcp://host:2376"
    ),
    "docker.timeout": _duration(1),
    "docker.pullTimeout": _duration(1),
    "docker.buildTimeout": _duration(1),
    "docker.buildCpus": _cpus,
    "docker.buildMemory": _size(16 * 2**20),
    "docker.buildPids": _count(16, 2**22),
    "docker.buildDisk": _size(2**20),
    "docker.imagesPerApp": _size(2**20),
    "docker.keptRevisions": _count(0, 50),
    "docker.keptImages": _size(0),
    "docker.pulledPerApp": _size(2**20),
    "docker.scratch": _size(2**20),
    "docker.registry": _text(
        r"[a-z0-9.-]+(:[0-9]{1,5})?(/[a-z0-9]+([._-][a-z0-9]+)*)*",
        "a registry, and perhaps a path in it, such as registry.example.org:5000/prichal",
    ),
    "docker.builder": _choice("auto", "buildkit", "classic"),
    "docker.buildCache": _size(2**20),
    "docker.buildNetwork": _choice("own", "bridge", "none"),
    "docker.egress": _choice("all", "internet", "none", "open"),
    "docker.egressAllow": _allowed,
    "docker.keepUnfinished": _duration(1),
    "docker.capabilities": _texts(
        r"[A-Z][A-Z0-9_]*(?<!^ALL)", "Linux capabilities without CAP_, such as NET_BIND_SERVICE"
    ),
    "docker.keptLogs": _size(2**20),
    "docker.logMaxSize": _size(2**16),
    "reconcile.workers": _count(1, 64),
    "reconcile.driftInterval": _duration(1),
    "reconcile.backoffInitial": _duration(0.1),
    "reconcile.backoffMax": _duration(0.1),
    "reconcile.crashLimit": _count(1, 1000),
    "reconcile.crashWindow": _duration(1),
    "reconcile.keepEvents": _count(10, 1_000_000),
    "web.listen": _listen,
    "web.publicUrl": _text(_ORIGIN, "a URL without a path, such as https://ml.example.org"),
    "web.appDomain": _text(_DOMAIN, "a domain in lower case without a port, such as apps.example.org"),
    "web.workers": _count(1, 64),
    "web.trustLoopback": _flag,
    "web.adminTokenFile": _token_file,
    "web.trustedProxies": _networks,
    "web.maxBody": _size(1024),
    "web.hookMaxBody": _size(1024),
    "web.connectTimeout": _duration(0.01),
    "web.queueLimit": _count(1, 1_000_000),
    "web.perApp": _count(1, 1_000_000),
    "web.sockets": _count(1, 1_000_000),
    "web.socketsPerApp": _count(1, 1_000_000),
    "web.sessionIdle": _duration(60.0),
    "web.sessionLifetime": _duration(60.0),
    "people.passwords": _flag,
    "people.groupLifetime": _duration(60.0),
    "people.oidc": read_issuers,
    "storage.backend": _choice("embedded", "s3", "none"),
    "storage.listen": _listen,
    "storage.memory": _size(64 * 2**20),
    "storage.endpoint": _text(_ORIGIN, "a URL without a path, such as http://10.0.0.5:9000"),
    "storage.publicUrl": _text(_ORIGIN, "a URL without a path, such as https://files.example.org"),
    "storage.containerUrl": _text(_ORIGIN, "a URL without a path, such as http://10.0.0.5:9000"),
    "storage.region": _text(r"[a-z0-9-]+", "the name of a region, such as us-east-1"),
    "storage.credentials": _path,
    "storage.admin": _choice("minio", "none"),
    "storage.linkLifetime": _duration(1),
    "storage.abandonAfter": _duration(1),
    "storage.modelCache": _size(2**20),
    "calls.running": _count(1, 1000),
    "calls.runningPerApp": _count(1, 1000),
    "calls.queued": _count(1, 100_000),
    "calls.size": _size(2**20),
    "calls.sizePerApp": _size(2**20),
    "calls.maxResult": _size(2**10),
    "calls.keep": _duration(60.0),
    "runs.concurrent": _count(1, 1000),
    "runs.perApp": _count(1, 1000),
    "runs.queued": _count(1, 1_000_000),
    "runs.queuedSize": _size(2**20),
    "runs.stages": _count(1, 10_000),
    "runs.stagesPerApp": _count(1, 10_000),
    "runs.logMax": _size(2**16),
    "runs.diskPerApp": _size(2**20),
    "runs.scratch": _size(2**20),
    "runs.minFree": _count(0, 90),
    "runs.gpus": _devices,
    "runs.startDeadline": _duration(1),
    "runs.lostAfter": _duration(1),
    "runs.webhookPrivate": _flag,
    "notifications.privateReceivers": _flag,
    "notifications.perHour": _count(1, 3600),
    "notifications.smtp": _text(
        r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]{1,253})(?::[0-9]{1,5})?",
        "a mail server as HOST or HOST:PORT, such as mail.example.org:587",
    ),
    "notifications.smtpTls": _choice("starttls", "tls", "none"),
    "notifications.smtpFrom": _text(r"[^\s@<>\"]{1,64}@[^\s@<>\"]{1,253}", "a mail address"),
    "notifications.smtpCredentials": _path,
    "notifications.smtpCa": _path,
    "images.leastInterval": _duration(1),
    "images.privateRegistries": _flag,
    "images.certificates": _path,
    "images.authorities": _texts(
        r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]{1,253})(?::[0-9]{1,5})?=/[^\0]{1,4000}",
        "texts HOST=FILE or HOST:PORT=FILE, such as registry.example.org=/etc/prichal/registry-ca.pem",
    ),
    "limits.cpus": _cpus,
    "limits.memory": _size(6 * 2**20),
    "limits.pids": _count(16, 2**22),
    "limits.maxReplicas": _count(1, 1000),
    "limits.stageTimeout": _duration(1),
    "limits.maxStageTimeout": _duration(1),
    "limits.appCpus": _cpus,
    "limits.appMemory": _size(6 * 2**20),
    "limits.appContainers": _count(0, 100_000),
    "limits.appStorage": _size(0),
    "policies.images": _texts(
        r"[A-Za-z0-9._*?\[\]!:/-]{1,300}", "patterns for names of images, such as registry.example.org/*"
    ),
    "policies.cacheImages": _texts(
        r"[A-Za-z0-9._*?\[\]!:/-]{1,300}", "patterns for names of images, such as registry.example.org/ci/*"
    ),
    "policies.requireResources": _flag,
    "policies.forbiddenBuildArgs": _texts(
        r"[A-Za-z0-9_*?\[\]!]{1,100}", "patterns for names, such as *_PROXY"
    ),
    "policies.names": _expression,
    "apps.prefix": _text(
        r"(?=.{0,30}$)([a-z0-9][a-z0-9-]*)?\{user\}[a-z0-9-]*|",
        "a text of a-z, 0-9 and hyphens with {user}, such as pu-{user}-pa-, or empty",
    ),
    "apps.quotaApps": _count(0, 10_000),
    "apps.quotaCpus": _cpus,
    "apps.quotaMemory": _size(0),
    "apps.quotaStorage": _size(0),
    "apps.quotaGpus": _count(0, 1024),
    "apps.templates": _texts(
        r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?=[^\s#@]+(#[^\s~^:?*\[\\]+)?",
        "NAME=URL or NAME=URL#BRANCH of Git repositories, such as lab=https://git.example.org/lab/template.git",
    ),
    "apps.templateInterval": _duration(1),
    "apps.values": _texts(r"[a-z][a-z0-9_]*=[^\r\n]{0,100}", "NAME=VALUE, such as base=python:3.12-slim"),
    "backup.to": _place,
    "backup.schedule": _cron,
    "backup.timezone": _timezone,
    "backup.recipients": _texts(
        r"age1[a-z0-9]{50,2000}|ssh-(ed25519|rsa) [A-Za-z0-9+/=]{20,2000}( .*)?",
        "public keys of age, such as age1…, or of SSH",
    ),
    "backup.boxes": _flag,
    "backup.endpoint": _text(_ORIGIN, "a URL without a path, such as https://s3.example.org"),
    "backup.region": _text(r"[a-z0-9-]+", "the name of a region, such as us-east-1"),
    "backup.credentials": _path,
    "backup.keepCount": _count(1, 10_000),
    "backup.keepAge": _duration(),
    "backup.alertAfter": _duration(3600),
    "log.level": _choice("DEBUG", "INFO", "WARNING", "ERROR"),
    "log.format": _choice("text", "json"),
    "log.access": _choice("off", "combined", "json"),
    "log.accessFile": _path,
    "tracing.endpoint": _text(_PLACE, "a URL such as http://127.0.0.1:4318"),
    "tracing.headers": _path,
    "tracing.sampleRatio": _ratio,
    "tracing.trustCallers": _choice("authenticated", "all", "none"),
}

#: Options that may be left empty (null), which is their default.
OPTIONAL: Final = frozenset(
    {
        "platform.url",
        "platform.credentials",
        "docker.registry",
        "web.publicUrl",
        "web.appDomain",
        "web.adminTokenFile",
        "storage.endpoint",
        "storage.publicUrl",
        "storage.containerUrl",
        "storage.credentials",
        "notifications.smtp",
        "notifications.smtpFrom",
        "notifications.smtpCredentials",
        "notifications.smtpCa",
        "log.accessFile",
        "tracing.endpoint",
        "tracing.headers",
        "tracing.sampleRatio",
        "backup.to",
        "backup.schedule",
        "backup.endpoint",
        "backup.credentials",
    }
)

#: Where the field of `Settings` is not called as the option is.
FIELDS: Final[Mapping[str, str]] = {
    "log.level": "log_level",
    "log.format": "log_format",
    "log.access": "access_log",
    "log.accessFile": "access_file",
    "web.adminTokenFile": "web.admin_token",
    "people.passwords": "sign_in.passwords",
    "people.groupLifetime": "sign_in.group_lifetime",
    "people.oidc": "sign_in.oidc",
}


def field_of(key: str) -> str:
    """`git.fetchTimeout` is the field `git.fetch_timeout`."""
    return FIELDS.get(key) or re.sub(r"[A-Z]", lambda capital: f"_{capital[0].lower()}", key)
