"""The platform folder: what it turns into, and whose Secrets are found by whom."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from controller.config import DefaultLimits, Settings
from controller.domain.apps.deploy_gate import DeployRules, DeployWindow
from controller.domain.apps.spec import (
    CommitStatusSpec,
    GitRef,
    HookProvider,
    Limits,
    PlatformAppSpec,
    RefKind,
    Registry,
    RepositorySpec,
    StatusProvider,
)
from controller.domain.errors import ManifestInvalid
from controller.domain.names import AppName, RepositoryName
from controller.domain.secret import Secret
from controller.manifests import load_platform
from controller.manifests.platform_checks import url_scheme
from controller.manifests.secret_files import load_secret_values, read_host_file
from controller.ports import SourceFile
from tests.support.manifests import EXAMPLES, SETTINGS, VERSION, platform_of, platform_problems
from tests.support.specs import make

DEMO = (EXAMPLES / "valid" / "platform-demo.yaml").read_bytes()
APP = AppName("pu-ivanov-pa-demo")


def repository(name: str, spec: str) -> str:
    return f"{VERSION}kind: Repository\nmetadata: {{name: {name}}}\nspec: {{ref: {{branch: main}}, {spec}}}\n"


def app(name: str, spec: str) -> str:
    return f"{VERSION}kind: PlatformApp\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"


def secret(name: str, data: str, owner: str = "") -> str:
    namespace = f", namespace: {owner}" if owner else ""
    return f"{VERSION}kind: Secret\nmetadata: {{name: {name}{namespace}}}\nstringData: {{{data}}}\n"


def test_repositories() -> None:
    platform = platform_of(DEMO)
    assert [r.name for r in platform.repositories] == ["demo", "local", "other"]
    assert platform.repository(RepositoryName("demo")) == RepositorySpec(
        name=RepositoryName("demo"),
        url="https://git.example.org/team/demo.git",
        ref=GitRef(RefKind.BRANCH, "feature/x"),
        interval=0.0,
        credentials="demo-git",
        hook_provider=HookProvider.GITHUB,
        hook_secret="demo-hook",
        signers="demo-signers",
        commit_status=CommitStatusSpec(
            StatusProvider.GITLAB, "demo-status", "https://git.example.org/api/v4"
        ),
    )
    other = platform.repository(RepositoryName("other"))
    assert other is not None
    assert (other.ref, other.interval) == (GitRef(RefKind.SEMVER, "^1.2"), 60.0)


def test_apps() -> None:
    platform = platform_of(DEMO)
    assert platform.app(APP) == PlatformAppSpec(
        name=APP,
        repository=RepositoryName("demo"),
        path="manifests",
        prune=False,
        suspend=True,
        deploy=DeployRules(False, True, (DeployWindow("0 22 * * mon-fri", "Europe/Moscow", 6 * 3600.0),)),
        depends_on=(AppName("other"),),
        limits=Limits(4.0, 8 * 2**30, 20 * 10**9, 20),
        registries=(Registry("hub", "https://registry.example.org", "hub-cred"),),
        package_registries=(Registry("pypi", "https://packages.example.org/simple", "hub-cred"),),
    )
    other = AppName("other")
    assert platform.app(other) == make(
        PlatformAppSpec,
        other,
        RepositoryName("other"),
        deploy=DeployRules(frozen=False, approval=False),
        limits=Limits(16.0, 32 * 2**30, 100 * 10**9, 64),
    )


@pytest.mark.parametrize(
    ("given", "limits"),
    [
        ("", Limits(2.0, 3 * 2**30, 5 * 10**9, 4)),
        ("{}", Limits(2.0, 3 * 2**30, 5 * 10**9, 4)),
        ("{cpus: 40}", Limits(40.0, 3 * 2**30, 5 * 10**9, 4)),
        ("{memory: 1Gi, gpus: 1}", Limits(2.0, 2**30, 5 * 10**9, 4, 1)),
        ("{containers: 0, storage: 1}", Limits(2.0, 3 * 2**30, 1, 0)),
    ],
)
def test_what_an_app_is_not_given_is_what_the_configuration_says(given: str, limits: Limits) -> None:
    defaults = DefaultLimits(app_cpus=2.0, app_memory=3 * 2**30, app_containers=4, app_storage=5 * 10**9)
    declared = app("one", "repository: demo" + (f", limits: {given}" if given else ""))
    text = f"{declared}---\n{repository('demo', 'url: https://git.example.org/demo.git')}"
    files = [SourceFile("app.yaml", text.encode())]
    (found,) = load_platform(files, replace(SETTINGS, limits=defaults)).apps
    assert found.limits == limits


def test_secrets_come_from_text_base64_and_files_of_the_host() -> None:
    platform = platform_of(DEMO)
    demo_git, hub, hook = (
        platform.secret("demo-git", APP),
        platform.secret("hub-cred", APP),
        platform.secret("demo-hook", None),
    )
    assert demo_git is not None
    assert hub is not None
    assert hook is not None
    assert demo_git.get("password") == Secret("correct horse")
    assert hub.get("password") == Secret("hunter2")
    assert hook.get("secret") == Secret("hunter2")  # without the line end that editors add
    assert "hunter2" not in repr(platform)


def test_a_private_key_keeps_its_line_ends() -> None:
    key = "-----BEGIN\nx\n-----END\n"
    files = f"{VERSION}kind: Secret\nmetadata: {{name: key}}\nfiles: {{sshPrivateKey: /key}}\n"
    platform = load_platform([SourceFile("a.yaml", files.encode())], SETTINGS, lambda _: key.encode())
    found = platform.secret("key", None)
    assert found is not None
    assert found.get("sshPrivateKey") == Secret(key)


def test_files_of_the_host_are_really_read(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"x" * (2**20 + 5))
    assert len(read_host_file(str(tmp_path / "token"))) == 2**20 + 1
    with pytest.raises(FileNotFoundError):
        read_host_file(str(tmp_path / "none"))


# --- who finds which Secret -------------------------------------------------------------------------------------

URL = 'url: "https://git.example.org/x.git"'
LOGIN = "username: u, password: p"


def test_a_repository_finds_the_platforms_secrets_and_those_of_its_apps() -> None:
    repo = repository("demo", f"{URL}, credentials: login")
    assert platform_problems(repo, secret("login", LOGIN)) == ()
    assert platform_problems(repo, app("a", "repository: demo"), secret("login", LOGIN, "a")) == ()
    (problem,) = platform_problems(repo, app("a", "repository: demo"), secret("login", LOGIN, "b"))
    assert problem.message == "there is no Secret 'login' of the platform or of an app that uses it"


def test_an_app_finds_its_own_secrets_and_the_platforms() -> None:
    hub = "repository: demo, registries: [{name: hub, url: registry.example.org, credentials: hub}]"
    base = (repository("demo", URL), app("a", hub))
    assert platform_problems(*base, secret("hub", LOGIN)) == ()
    assert platform_problems(*base, secret("hub", LOGIN, "a")) == ()
    assert len(platform_problems(*base, secret("hub", LOGIN, "b"))) == 1


def test_secrets_of_different_owners_may_share_a_name() -> None:
    assert (
        platform_problems(secret("login", LOGIN), secret("login", LOGIN, "a"), secret("login", LOGIN, "b"))
        == ()
    )


# --- credentials that fit ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "data", "fits"),
    [
        ("https://git.example.org/x.git", LOGIN, True),
        ("http://git.example.org/x.git", "token: t", True),
        ("https://git.example.org/x.git", "token: ''", False),
        ("https://git.example.org/x.git", "username: u", False),
        ("https://git.example.org/x.git", "sshPrivateKey: k, knownHosts: h", False),
        ("ssh://git@git.example.org:2222/x.git", "sshPrivateKey: k, knownHosts: h", True),
        ("git@git.example.org:x.git", "sshPrivateKey: k", False),
        ("git@git.example.org:x.git", "sshPrivateKey: k, knownHosts: h", True),
        ("git://git.example.org/x.git", LOGIN, False),
        ("/srv/git/x.git", LOGIN, False),
    ],
)
def test_credentials_fit_the_url(url: str, data: str, fits: bool) -> None:
    problems = platform_problems(
        repository("demo", f'url: "{url}", credentials: login'), secret("login", data)
    )
    assert (problems == ()) == fits


def test_schemes() -> None:
    urls = ["https://a/b", "http://a/b", "ssh://a/b", "git@a:b", "git://a/b", "/a/b", "file:///a/b"]
    assert [url_scheme(url) for url in urls] == ["http", "http", "ssh", "ssh", "git", "file", "file"]


def test_repositories_of_this_host_lie_where_the_config_allows() -> None:
    hosted = Settings().repositories / "demo.git"
    assert platform_problems(repository("demo", f"url: {hosted}")) == ()
    assert platform_problems(repository("demo", "url: file:///srv/git/team/x.git")) == ()
    (problem,) = platform_problems(repository("demo", "url: /srv/gitted/x.git"))
    assert problem.message.startswith(
        "a path on this host must lie below a folder of the config's git.allowedPaths"
    )
    with pytest.raises(ManifestInvalid):
        platform_of(repository("demo", "url: /srv/git/x.git"), settings=replace(SETTINGS, git=Settings().git))


# --- plain files with credentials -------------------------------------------------------------------------------


def test_a_file_with_credentials(tmp_path: Path) -> None:
    path = tmp_path / "credentials.yaml"
    path.write_text("username: ivanov\npassword: '12345'\n")
    assert load_secret_values(path) == (("password", Secret("12345")), ("username", Secret("ivanov")))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("password: 12345\n", ":1:1: password: must be text: write it in quotes"),
        ("", ":1:1: must be one mapping of keys to texts"),
        ("- hunter2\n", ":1:1: must be one mapping of keys to texts"),
        ("a: b\n---\na: c\n", ":1:1: must be one mapping of keys to texts"),
    ],
)
def test_a_wrong_file_with_credentials(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "credentials.yaml"
    path.write_text(text)
    with pytest.raises(ManifestInvalid) as caught:
        load_secret_values(path)
    assert [str(found) for found in caught.value.problems] == [f"{path}{problem}"]


def test_a_missing_file_with_credentials(tmp_path: Path) -> None:
    with pytest.raises(ManifestInvalid, match="cannot be read: No such file or directory"):
        load_secret_values(tmp_path / "none")


def test_a_document_that_is_nearly_ours_is_mentioned() -> None:
    (warning,) = platform_of("kind: PlatformApp\n").warnings
    assert "should it be unified-platform.cs.hse.ru/v1?" in warning
