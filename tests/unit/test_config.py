"""The config file: what it may say, and how it is refused."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.config import ConfigInvalid, PlatformSource, Settings, defaults, load
from controller.config.loader import read
from controller.config.options import OPTIONS, field_of

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = (ROOT / "config.example.yaml").read_text()
UNCOMMENTED = re.sub(r"^( *)#(?=\w)", r"\1", EXAMPLE, flags=re.MULTILINE)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


def problems(tmp_path: Path, text: str) -> list[str]:
    """Without the name of the file."""
    path = written(tmp_path, text)
    with pytest.raises(ConfigInvalid) as caught:
        load(path)
    return [str(problem).removeprefix(f"{path}:") for problem in caught.value.problems]


# --- the example ------------------------------------------------------------------------------------------------


def test_the_example_changes_nothing(tmp_path: Path) -> None:
    assert read(written(tmp_path, EXAMPLE), Settings()) == Settings()


def test_the_example_shows_the_defaults(tmp_path: Path) -> None:
    assert UNCOMMENTED != EXAMPLE
    assert read(written(tmp_path, UNCOMMENTED), Settings()) == Settings()


def test_the_example_lacks_no_option() -> None:
    shown, section = [], ""
    for line in UNCOMMENTED.splitlines():
        if match := re.match(r"(  )?(\w+):( .*)?$", line):
            if not match[1] and not match[3]:
                section = match[2]
            else:
                shown.append(f"{section}.{match[2]}" if match[1] else match[2])
    assert shown == list(OPTIONS)


def test_the_example_explains_each_option() -> None:
    lines = EXAMPLE.splitlines()
    bare = [
        i for i, line in enumerate(lines) if re.match(r" *#\w", line) and not re.match(r" *#", lines[i - 1])
    ]
    assert bare == []


def test_every_setting_can_be_set() -> None:
    reachable = {field_of(key) for key in OPTIONS}
    assert set(_settings(Settings())) - {"source"} == reachable


def _settings(value: object, prefix: str = "") -> Iterator[str]:
    assert dataclasses.is_dataclass(value)
    for field in dataclasses.fields(value):
        child = getattr(value, field.name)
        if dataclasses.is_dataclass(child):
            yield from _settings(child, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


def test_the_reference_shows_the_example() -> None:
    assert f"```yaml\n{EXAMPLE}```\n" in (ROOT / "docs/reference/configuration.md").read_text()


DOMAIN = "web.appDomain: must be a domain in lower case without a port, such as apps.example.org"


@pytest.mark.parametrize("domain", ["apps.example.org", "localhost", "a-b.c1", None])
def test_a_domain_for_apps(tmp_path: Path, domain: str | None) -> None:
    settings = load(written(tmp_path, f"web: {{appDomain: {domain or 'null'}}}"))
    assert settings.web.app_domain == (domain or "")


@pytest.mark.parametrize(
    "domain",
    [
        "Apps.example.org",
        "apps.example.org.",
        ".apps",
        "a..b",
        "apps.example.org:80",
        "*.apps",
        "a/b",
        "-a",
        "a" * 190,
    ],
)
def test_no_domain_for_apps(tmp_path: Path, domain: str) -> None:
    assert problems(tmp_path, f"web: {{appDomain: '{domain}'}}") == [f"1:7: {DOMAIN}"]


@pytest.mark.parametrize(
    ("url", "sound"),
    [
        ("https://apps.example.org", True),
        ("https://example.org", True),
        ("https://xapps.example.org", True),
        ("https://demo.apps.example.org:8443", False),
        ("https://a.b.apps.example.org", False),
    ],
)
def test_the_platform_s_own_name_is_no_app_s(tmp_path: Path, url: str, sound: bool) -> None:
    text = f"web:\n  appDomain: apps.example.org\n  publicUrl: {url}\n"
    if sound:
        assert load(written(tmp_path, text)).web.public_url == url
    else:
        (problem,) = problems(tmp_path, text)
        assert problem.startswith("3:3: web.publicUrl: lies below web.appDomain")


LAB = "{name: lab, issuer: 'https://id.example.org/realms/lab', clientId: prichal"


def test_issuers_of_people(tmp_path: Path) -> None:
    (tmp_path / "lab.secret").write_text("s3cret\n")
    groups = "groups: [{group: ops, role: admin}, {group: lab, role: developer, app: pu-lab-*}]"
    more = f"clientSecretFile: lab.secret, title: The lab, scopes: [openid, groups], {groups}, allowedGroups: [a]"
    settings = load(written(tmp_path, f"people: {{passwords: false, oidc: [{LAB}, {more}}}]}}"))
    (issuer,) = settings.sign_in.oidc
    assert settings.sign_in.issuer("lab") is issuer
    assert not settings.sign_in.passwords
    assert issuer.client_secret is not None
    assert (issuer.client_secret.reveal(), "s3cret" in repr(settings)) == ("s3cret", False)
    assert [(each.group, each.role, each.app) for each in issuer.groups] == [
        ("ops", "admin", ""),
        ("lab", "developer", "pu-lab-*"),
    ]


@pytest.mark.parametrize(
    ("oidc", "problem"),
    [
        ("5", "must be a list of at most 20 issuers, each with name, issuer, clientId"),
        ("[{name: lab}]", "issuer 1: issuer is missing"),
        (f"[{LAB}, secret: x}}]", "issuer 1: unknown key 'secret'; there are name, title, "),
        (f"[{LAB}, scopes: [email]}}]", "issuer 1: scopes: must be a list of scopes with openid"),
        (f"[{LAB}, scopes: [openid, 'a b']}}]", "issuer 1: scopes: must be a list of scopes with openid"),
        (f"[{LAB}, clientSecretFile: missing}}]", "issuer 1: clientSecretFile: cannot read "),
        (
            f"[{LAB}, groups: [{{group: a, role: owner}}]}}]",
            "issuer 1: groups 1: role must be one of viewer, ",
        ),
        (
            f"[{LAB}, groups: [{{group: a, role: developer}}]}}]",
            "issuer 1: groups 1: a developer needs an app",
        ),
        (f"[{LAB}, groups: [{{group: a, role: admin, app: x}}]}}]", "issuer 1: groups 1: an admin is one of"),
        (f"[{LAB}, groups: [{{group: a, role: viewer, app: '*x'}}]}}]", "issuer 1: groups 1: app must be"),
        (f"[{LAB}, groups: [{{role: admin}}]}}]", "issuer 1: groups 1: group: must be a text"),
        (f"[{LAB}}}, {LAB}}}]", "two issuers have one name"),
        ("[{name: A, issuer: 'https://x.y', clientId: p}]", "issuer 1: name: must be 1 to 63"),
        (
            "[{name: a, issuer: 'http://id.example.org', clientId: p}]",
            "issuer 1: issuer: must be an https URL",
        ),
        ("[{name: a, issuer: 'https://x.y/?z', clientId: p}]", "issuer 1: issuer: must be an https URL"),
    ],
)
def test_issuers_that_are_refused(tmp_path: Path, oidc: str, problem: str) -> None:
    (found,) = problems(tmp_path, f"people: {{oidc: {oidc}}}")
    assert found.startswith(f"1:10: people.oidc: {problem}"), found


def test_issuers_need_an_address_of_the_platform(tmp_path: Path) -> None:
    text = f"web: {{listen: '0.0.0.0:80'}}\npeople: {{oidc: [{LAB}}}]}}"
    assert problems(tmp_path, text)[0].startswith("2:10: people.oidc: needs web.publicUrl")
    assert load(written(tmp_path, f"people: {{oidc: [{LAB}}}]}}")).sign_in.oidc


# --- values -----------------------------------------------------------------------------------------------------


def test_values_get_their_units(tmp_path: Path) -> None:
    text = """
state: run
git: {fetchTimeout: 1h30m, maxRepository: 1.5Gi, allowedPaths: [/srv/git, repos]}
docker: {pullTimeout: 90, capabilities: [NET_BIND_SERVICE]}
reconcile: {workers: 8}
web: {listen: "[::1]:80", trustedProxies: [10.0.0.0/8, 192.0.2.7], publicUrl: "https://ml.example.org"}
limits: {cpus: 2, memory: 512Mi}
log: {level: DEBUG, format: json}
"""
    settings = load(written(tmp_path, text))
    assert settings.state == tmp_path / "run"
    assert settings.source == tmp_path / "config.yaml"
    assert settings.git.fetch_timeout == 5400
    assert settings.git.max_repository == 3 * 2**29
    assert settings.git.allowed_paths == (Path("/srv/git"), tmp_path / "repos")
    assert settings.docker.pull_timeout == 90
    assert settings.docker.capabilities == ("NET_BIND_SERVICE",)
    assert settings.docker.timeout == 60
    assert settings.reconcile.workers == 8
    assert settings.web.listen == "[::1]:80"
    assert settings.web.trusted_proxies == ("10.0.0.0/8", "192.0.2.7/32")
    assert settings.web.public_url == "https://ml.example.org"
    assert (settings.limits.cpus, settings.limits.memory) == (2.0, 512 * 2**20)
    assert (settings.log_level, settings.log_format) == ("DEBUG", "json")


def test_the_admin_token_comes_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("0123456789abcdef\n")
    settings = load(written(tmp_path, "web: {adminTokenFile: token}"))
    assert settings.web.admin_token is not None
    assert settings.web.admin_token.reveal() == "0123456789abcdef"
    assert "0123456789abcdef" not in repr(settings)


def test_a_platform_path_is_one_of_the_host_or_of_the_repository(tmp_path: Path) -> None:
    assert load(written(tmp_path, "platform: {path: here}")).platform.path == str(tmp_path / "here")
    url = "https://git.example.org/platform.git"
    assert load(written(tmp_path, f"platform: {{url: '{url}'}}")).platform.path == "."
    source = load(written(tmp_path, f"platform: {{url: '{url}', path: apps}}")).platform
    assert (source.url, source.path) == (url, "apps")


@pytest.mark.parametrize("text", ["", "# nothing\n", "git:\nweb:\n", "---\n"])
def test_an_empty_file_or_section_means_the_defaults(tmp_path: Path, text: str) -> None:
    assert read(written(tmp_path, text), Settings()) == Settings()


# --- refusals ---------------------------------------------------------------------------------------------------


def test_all_problems_are_told_with_their_places(tmp_path: Path) -> None:
    text = """\
states: /var/lib/prichal
git:
  fetchTimout: 2m
  pullTimeout: 10m
  maxRepository: 2g
  allowedPaths: /srv
docker: unix:///var/run/docker.sock
log:
  level: LOUD
web:
  listen: 127.0.0.1
  workers: 0
  trustLoopback: yes
  adminTokenFile: nowhere
  trustedProxies: [everybody]
  publicUrl: ml.example.org
reconcile:
  workers:
  backoffInitial: 10m
  driftInterval: 0
limits:
  cpus: many
instance: My_Prichal
"""
    duration = "must be a duration such as 500ms, 30s, 10m, 1h30m or 7d, or a number of seconds"
    assert problems(tmp_path, text) == [
        "1:1: states: unknown option; did you mean 'state'?",
        "3:3: git.fetchTimout: unknown option; did you mean 'git.fetchTimeout'?",
        "4:3: git.pullTimeout: unknown option; did you mean 'docker.pullTimeout'?",
        "5:3: git.maxRepository: must be a size such as 512Mi, 2Gi or 20G, or a number of bytes; at least 1Mi",
        "6:3: git.allowedPaths: must be a list of paths",
        "7:9: docker: must be a mapping of options",
        "9:3: log.level: must be one of DEBUG, INFO, WARNING, ERROR",
        "11:3: web.listen: must be an address with a port, such as 127.0.0.1:8000, [::1]:8000 or 0.0.0.0:80",
        "12:3: web.workers: must be a whole number from 1 to 64",
        "13:3: web.trustLoopback: must be true or false",
        f"14:3: web.adminTokenFile: cannot read {tmp_path}/nowhere: No such file or directory",
        "15:3: web.trustedProxies: must be a list of IP addresses or networks such as 10.0.0.0/8",
        "16:3: web.publicUrl: must be a URL without a path, such as https://ml.example.org",
        "18:3: reconcile.backoffMax: must not be below reconcile.backoffInitial",
        "18:3: reconcile.workers: is empty: give a value or remove the line",
        f"20:3: reconcile.driftInterval: {duration}; at least 1s",
        "22:3: limits.cpus: must be a number of CPUs such as 0.5 or 4",
        "23:1: instance: must be a DNS label: 1 to 63 of a-z, 0-9 and hyphens, no hyphen at either end",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "git: {fetchTimeout: 1m",
            "1:23: is not valid YAML: while parsing a flow mapping, expected ',' or '}'",
        ),
        ("state: a\nstate: b\n", "2:1: the key 'state' is there twice, first in line 1: remove one"),
        ("state: /a\n---\nstate: /b\n", "3:1: a second document: keep one"),
        ("- state\n", "1:1: must be a mapping of options"),
        ("platform: {credentials: x}", "platform.credentials: needs platform.url"),
        ("platform: {url: 'https://x.example/y', path: /etc}", "platform.path: must be relative"),
        ("docker: {capabilities: [ALL]}", "docker.capabilities: must be a list of Linux capabilities"),
        ("web: {listen: '127.0.0.1:70000'}", "web.listen: must be an address with a port"),
    ],
)
def test_other_refusals(tmp_path: Path, text: str, problem: str) -> None:
    (found,) = problems(tmp_path, text)
    assert problem in found


def test_a_short_token_is_refused_without_being_told(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hunter2")
    (found,) = problems(tmp_path, "web: {adminTokenFile: token}")
    assert "too short" in found
    assert "hunter2" not in found


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="cannot be read: No such file or directory"):
        load(tmp_path / "config.yaml")


@given(
    st.dictionaries(
        st.sampled_from([*OPTIONS, "log", "x"]),
        st.one_of(st.none(), st.integers(), st.text(), st.lists(st.integers())),
    )
)
def test_any_mapping_is_read_or_refused(values: dict[str, object]) -> None:
    for key, value in values.items():
        if key in OPTIONS and value is not None:
            try:
                OPTIONS[key](value, Path("/nowhere"))  # type: ignore[arg-type]
            except ValueError as error:
                assert str(error).startswith(("must be", "cannot read", "issuer 1: "))


# --- where it is looked for -------------------------------------------------------------------------------------


def test_the_environment_names_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "instance: other")
    assert load(None, {"PRICHAL_CONFIG": str(path)}).instance == "other"


def test_an_explicit_file_wins_over_the_environment(tmp_path: Path) -> None:
    path = written(tmp_path, "instance: mine")
    assert load(path, {"PRICHAL_CONFIG": "/nowhere"}).instance == "mine"


def test_root_gets_the_folders_of_the_system() -> None:
    assert defaults({}, user=0) == Settings()


def test_a_plain_user_gets_folders_of_their_own() -> None:
    settings = defaults({"HOME": "/home/ivanov"}, user=1000)
    assert settings.state == Path("/home/ivanov/.local/state/prichal")
    assert settings.platform == PlatformSource(path="/home/ivanov/.local/state/prichal/platform")
    assert defaults({"XDG_STATE_HOME": "/var/tmp/x"}, user=1000).state == Path("/var/tmp/x/prichal")


def test_without_a_file_the_defaults_hold(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("controller.config.loader.SYSTEM_CONFIG", tmp_path / "none.yaml")
    assert load(None, {"HOME": str(tmp_path)}) == defaults({"HOME": str(tmp_path)}, user=os.geteuid())
