"""`prichal connect` and `prichal repo`, on real folders and repositories."""

from __future__ import annotations

import json
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from controller.cli.exits import Exit
from controller.config import load
from controller.daemon.connect import app_name
from controller.domain.apps.requests import ReconcileRequest
from controller.domain.apps.spec import GitRef, HookProvider, PlatformSpec, RefKind
from controller.domain.errors import Stalled
from controller.domain.names import PLATFORM, AppName, RepositoryName
from controller.manifests import load_platform
from controller.manifests.validate import read_folder
from tests.unit.cli.conftest import Machine, worker

if TYPE_CHECKING:
    from controller.store import SqliteStore

URL = "https://git.example.org/team/Demo_Model.git"


def declared(machine: Machine) -> PlatformSpec:
    return load_platform(read_folder(machine.platform), load(machine.config))


def files(machine: Machine) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in machine.platform.iterdir()}


def test_connect_writes_what_the_daemon_reads(machine: Machine) -> None:
    found = machine.run("connect", URL)
    assert found.code == Exit.OK
    assert files(machine) == {"demo-model.yaml": 0o640}
    spec = declared(machine)
    repository = spec.repository(RepositoryName("demo-model"))
    app = spec.app(AppName("demo-model"))
    assert repository is not None
    assert app is not None
    assert (repository.url, repository.ref) == (URL, GitRef(RefKind.BRANCH, "main"))
    assert (app.repository, app.path) == ("demo-model", ".")
    assert "prichal up" in found.stderr, "there is no state: nothing runs yet"


def test_every_option_reaches_the_manifests(machine: Machine, tmp_path: Path) -> None:
    credentials = tmp_path / "credentials.yaml"
    credentials.write_text("username: ivanov\npassword: 'p: \"w\" # \\\\ é'\n")
    found = machine.run(
        *(
            "connect",
            URL,
            "--app",
            "pu-ivanov-pa-demo",
            "--name",
            "demo",
            "--semver",
            ">=1.2 <2",
            "--path",
            "deploy/x",
        ),
        *("--interval", "30s", "--credentials-file", str(credentials), "--webhook", "gitlab"),
    )
    assert found.code == Exit.OK, found.stderr
    assert files(machine) == {"pu-ivanov-pa-demo.yaml": 0o640, "pu-ivanov-pa-demo.secret.yaml": 0o600}
    spec = declared(machine)
    repository = spec.repository(RepositoryName("demo"))
    assert repository is not None
    assert repository.ref == GitRef(RefKind.SEMVER, ">=1.2 <2")
    assert (repository.interval, repository.hook_provider) == (30.0, HookProvider.GITLAB)
    login = spec.secret(repository.credentials or "", None)
    assert login is not None
    assert {key: value.reveal() for key, value in login.values} == {
        "username": "ivanov",
        "password": 'p: "w" # \\\\ é',
    }
    hook = spec.secret(repository.hook_secret or "", None)
    assert hook is not None
    shown = dict(line.split(": ", 1) for line in found.stdout.splitlines())
    assert shown == {"webhook": "http://127.0.0.1:8000/-/hooks/demo", "secret": hook.values[0][1].reveal()}
    app = spec.app(AppName("pu-ivanov-pa-demo"))
    assert app is not None
    assert app.path == "deploy/x"


@pytest.mark.parametrize(
    "value", ["true", "null", "1e3", "~", "- x", "a: b", "#1", "no", "0x10", "'", '"', "ü", " x"]
)
def test_values_are_never_taken_for_something_else(machine: Machine, tmp_path: Path, value: str) -> None:
    credentials = tmp_path / "credentials.yaml"
    credentials.write_text(
        json.dumps({"username": value, "password": f"{value} {value}"}, ensure_ascii=False)
    )
    assert machine.run("connect", URL, "--credentials-file", str(credentials)).code == Exit.OK
    login = declared(machine).secret("demo-model-git", None)
    assert login is not None
    given = {"username": value, "password": f"{value} {value}"}
    assert {key: secret.reveal() for key, secret in login.values} == given


def test_what_is_there_is_never_overwritten(machine: Machine) -> None:
    machine.run("connect", URL)
    before = (machine.platform / "demo-model.yaml").read_text()
    found = machine.run("connect", "https://git.example.org/other.git", "--app", "demo-model")
    assert found.code == Exit.FAILED
    assert "--app" in found.stderr
    assert (machine.platform / "demo-model.yaml").read_text() == before


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((URL, "--app", "Not_A_Label"), "Not_A_Label"),
        ((URL, "--name", "taken", "--app", "new"), "taken"),
        ((URL, "--interval", "often"), "interval"),
        (("/somewhere/on/this/host", "--app", "new"), "allowed"),
    ],
)
def test_what_would_be_invalid_is_not_written(
    machine: Machine, arguments: tuple[str, ...], problem: str
) -> None:
    machine.run("connect", "https://git.example.org/taken.git")
    before = files(machine)
    found = machine.run("connect", *arguments)
    assert found.code == Exit.INVALID
    assert problem in found.stderr
    assert files(machine) == before


def test_a_secret_never_stands_in_an_error(machine: Machine, tmp_path: Path) -> None:
    credentials = tmp_path / "credentials.yaml"
    credentials.write_text("username: x\npassword: hunter2hunter2\n")
    found = machine.run("connect", URL, "--credentials-file", str(credentials), "--interval", "often")
    assert found.code == Exit.INVALID
    assert "hunter2" not in found.stdout + found.stderr


def test_print_shows_and_writes_nothing(machine: Machine) -> None:
    found = machine.run("connect", URL, "--print", "--tag", "v1.0")
    assert found.code == Exit.OK
    assert "kind: PlatformApp" in found.stdout
    assert "tag: v1.0" in found.stdout
    assert files(machine) == {}


def test_one_reference_at_most(machine: Machine) -> None:
    assert machine.run("connect", URL, "--tag", "v1", "--branch", "main").code == Exit.USAGE
    assert files(machine) == {}


def test_a_platform_folder_that_is_not_there(machine: Machine) -> None:
    machine.platform.rmdir()
    found = machine.run("connect", URL)
    assert found.code == Exit.FAILED
    assert "platform.path" in found.stderr


def test_a_platform_folder_in_git_is_not_written_to(machine: Machine) -> None:
    config = f"state: {machine.state}\nplatform: {{url: 'https://git.example.org/platform.git', path: .}}\n"
    machine.config.write_text(config)
    found = machine.run("connect", URL)
    assert found.code == Exit.FAILED
    assert "--print" in found.stderr


def test_connect_asks_the_daemon_and_waits_for_the_app(machine: Machine, store: SqliteStore) -> None:
    def work(request: ReconcileRequest) -> str:
        return "Ready"

    with worker(store, work) as taken:
        found = machine.run("connect", URL, "--wait")
    assert found.code == Exit.OK
    assert [(request.app, request.reasons) for request in taken] == [
        (PLATFORM, ("platform",)),
        ("demo-model", ("platform",)),
    ]


def test_connect_tells_that_the_app_did_not_come_up(machine: Machine, store: SqliteStore) -> None:
    with worker(store, lambda request: "Ready" if request.app == PLATFORM else "Degraded"):
        assert machine.run("connect", URL, "--wait").code == Exit.FAILED


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://git.example.org/team/Demo_Model.git", "demo-model"),
        ("git@github.com:team/model.git", "model"),
        ("ssh://git@host:22/x/y.z/", "y-z"),
        ("https://host/" + "long" * 30, ("long" * 16)[:63]),
    ],
)
def test_a_name_is_made_from_the_url(url: str, name: str) -> None:
    assert app_name(url) == name


def test_a_url_that_no_name_can_be_made_from() -> None:
    with pytest.raises(Stalled, match="--name"):
        app_name("https://host/мир")


# --- disconnect


def test_disconnect_undoes_connect(machine: Machine, tmp_path: Path) -> None:
    credentials = tmp_path / "credentials.yaml"
    credentials.write_text("username: ivanov\npassword: secret\n")
    machine.run("connect", URL, "--credentials-file", str(credentials), "--webhook", "gitea")
    machine.run("connect", "https://git.example.org/other.git")
    found = machine.run("disconnect", "demo-model", "--yes")
    assert found.code == Exit.OK, found.stderr
    assert files(machine) == {"other.yaml": 0o640}
    removed = [line for line in found.stderr.splitlines() if line.startswith("removed ")]
    assert [Path(line).name for line in removed] == ["demo-model.yaml", "demo-model.secret.yaml"]


def test_disconnect_asks_before_it_removes(machine: Machine) -> None:
    machine.run("connect", URL)
    refused = machine.run("repo", "disconnect", "demo-model", stdin="n\n")
    assert refused.code == Exit.INTERRUPTED
    assert str(machine.platform / "demo-model.yaml") in refused.stderr
    assert files(machine) == {"demo-model.yaml": 0o640}
    assert machine.run("repo", "disconnect", "demo-model", stdin="y\n").code == Exit.OK
    assert files(machine) == {}


def test_disconnect_of_what_is_not_connected(machine: Machine) -> None:
    machine.run("connect", URL)
    found = machine.run("disconnect", "demo-modle", "--yes")
    assert (found.code, "Did you mean demo-model?" in found.stderr) == (Exit.NOT_FOUND, True)
    assert "prichal app ls" in machine.run("disconnect", "other", "--yes").stderr
    assert files(machine) == {"demo-model.yaml": 0o640}


APP_DOCUMENT = """
apiVersion: unified-platform.cs.hse.ru/v1
kind: PlatformApp
metadata: {name: second}
spec: {repository: demo-model%s}
"""


def test_a_repository_that_another_app_follows_stays(machine: Machine) -> None:
    machine.run("connect", URL)
    (machine.platform / "second.yaml").write_text(APP_DOCUMENT % "")
    shared = machine.run("disconnect", "demo-model", "--yes")
    assert (shared.code, "Repository demo-model" in shared.stderr) == (Exit.FAILED, True), "in the same file"
    assert machine.run("disconnect", "second", "--yes").code == Exit.OK
    assert files(machine) == {"demo-model.yaml": 0o640}


def test_a_secret_that_another_app_names_stays(machine: Machine, tmp_path: Path) -> None:
    credentials = tmp_path / "credentials.yaml"
    credentials.write_text("username: ivanov\npassword: secret\n")
    machine.run("connect", URL, "--credentials-file", str(credentials))
    other = machine.run("connect", "https://git.example.org/second.git", "--print").stdout
    (machine.platform / "second.yaml").write_text(
        other.replace("  ref:", "  credentials: demo-model-git\n  ref:")
    )
    assert machine.run("disconnect", "demo-model", "--yes").code == Exit.OK
    assert sorted(files(machine)) == ["demo-model.secret.yaml", "second.yaml"]
    assert machine.run("disconnect", "second", "--yes").code == Exit.OK
    assert files(machine) == {}


def test_disconnect_leaves_a_folder_that_is_valid(machine: Machine) -> None:
    machine.run("connect", URL)
    machine.run("connect", "https://git.example.org/other.git")
    file = machine.platform / "other.yaml"
    file.write_text(
        file.read_text().replace("  repository: other", "  repository: other\n  dependsOn: [demo-model]")
    )
    found = machine.run("disconnect", "demo-model", "--yes")
    assert (found.code, "other.yaml" in found.stderr) == (Exit.INVALID, True)
    assert sorted(files(machine)) == ["demo-model.yaml", "other.yaml"]


def test_a_platform_folder_in_git_is_not_changed(machine: Machine) -> None:
    config = f"state: {machine.state}\nplatform: {{url: 'https://git.example.org/platform.git', path: .}}\n"
    machine.config.write_text(config)
    found = machine.run("disconnect", "demo", "--yes")
    assert (found.code, "PlatformInGit" in found.stderr) == (Exit.FAILED, True)


def test_the_last_app_that_goes_needs_no_approval(machine: Machine, store: SqliteStore) -> None:
    machine.run("connect", URL)
    with worker(store, lambda request: "Ready" if request.app == PLATFORM else "Removed") as taken:
        found = machine.run("disconnect", "demo-model", "--yes", "--wait")
    assert found.code == Exit.OK, found.stderr
    assert [request.app for request in taken][-2:] == [PLATFORM, "demo-model"]
    assert store.apps.status(PLATFORM).approved_revision != ""


# --- repositories hosted here


def test_a_repository_to_push_to(machine: Machine, store: SqliteStore, tmp_path: Path) -> None:
    found = machine.run(
        "repo", "create", "colors", "--connect", "--app", "demo-colors", "--path", "manifests"
    )
    assert found.code == Exit.OK, found.stderr
    url = found.stdout.split()[-1]
    assert Path(url) == machine.state / "git" / "colors.git"
    subprocess.run(["git", "clone", "-q", url, str(tmp_path / "clone")], check=True, capture_output=True)
    spec = declared(machine)
    repository = spec.repository(RepositoryName("colors"))
    assert repository is not None
    assert (repository.url, repository.hook_provider) == (url, HookProvider.GENERIC)
    hook = json.loads((Path(url) / "prichal.json").read_text())
    secret = spec.secret(repository.hook_secret or "", None)
    assert secret is not None
    assert (hook["url"], hook["secret"]) == ("http://127.0.0.1:8000", secret.values[0][1].reveal())
    assert store.requests.queued(PLATFORM) is not None


def test_making_it_again_renews_the_hook_and_keeps_its_secret(machine: Machine) -> None:
    machine.run("repo", "create", "colors")
    config = machine.state / "git" / "colors.git" / "prichal.json"
    before = json.loads(config.read_text())
    machine.configure("web: {listen: '0.0.0.0:9000'}")
    assert machine.run("repo", "create", "colors").code == Exit.OK
    assert json.loads(config.read_text()) == {**before, "url": "http://127.0.0.1:9000"}


def test_repositories_are_listed_with_the_apps_that_follow_them(machine: Machine) -> None:
    assert "repo create" in machine.run("repo", "ls").stderr
    machine.run("repo", "create", "colors")
    path, url = str(machine.state / "git" / "colors.git"), "http://127.0.0.1:8000/-/git/colors.git"
    assert machine.run("repo", "ls").stdout.split() == [
        *("NAME", "APPS", "PATH", "URL"),
        *("colors", "-", path, url),
    ]
    assert json.loads(machine.run("repo", "ls", "-o", "json").stdout) == [
        {"name": "colors", "path": path, "url": url, "apps": [], "ref": None}
    ]


def test_a_name_that_is_none(machine: Machine) -> None:
    assert machine.run("repo", "create", "../evil").code == Exit.FAILED
    assert machine.run("repo", "create", "x", "--app", "y").code == Exit.USAGE
