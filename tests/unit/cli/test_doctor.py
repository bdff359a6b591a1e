"""`prichal doctor` on machines that lack something: it says what, and what to do, and changes nothing."""

from __future__ import annotations

import grp
import http.server
import importlib.util
import json
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from controller.cli.exits import Exit
from controller.config import Settings, load
from controller.daemon.lock import only_one
from controller.domain.apps.status import AppStatus
from controller.domain.apps.usage import Usage
from controller.domain.names import AppName, ComponentName
from controller.domain.notifications.delivery import Fate
from controller.domain.notifications.records import outgoing
from controller.domain.notifications.spec import Channel, NotificationSpec
from controller.domain.runs.gpus import Lease
from controller.domain.secret import Secret
from controller.domain.storage.box import BoxRecord, StorageAccess
from controller.store.first_admin import prepare_people
from controller.store.people import PeopleStore
from controller.unix_socket import connected, listening
from tests.support.nvml import StandInDriver, StandInGpu, has_compiler
from tests.support.specs import make
from tests.unit.cli.conftest import Machine

if TYPE_CHECKING:
    from controller.store import SqliteStore

Checks = dict[str, dict[str, object]]
ACCESS = StorageAccess("http://127.0.0.1:1", "http://127.0.0.1:2", "web", Secret("a-secret-key"))

DEMO = AppName("demo")


@pytest.fixture
def bare(machine: Machine, tmp_path: Path) -> Machine:
    """A machine without Docker and web process."""
    machine.configure(f"docker: {{host: 'unix://{tmp_path}/docker.sock'}}", "web: {listen: '127.0.0.1:1'}")
    return machine


def examine(machine: Machine) -> Checks:
    found = machine.run("doctor", "-o", "json")
    checks = {check["name"]: check for check in json.loads(found.stdout)}
    assert (found.code == Exit.OK) == all(check["ok"] for check in checks.values())
    assert all(bool(check["advice"]) is not check["ok"] for check in checks.values()), (
        "what is wrong comes with advice"
    )
    return checks


def test_nothing_is_there_and_nothing_is_made(bare: Machine, tmp_path: Path) -> None:
    bare.platform.rmdir()
    before = sorted(tmp_path.rglob("*"))
    checks = examine(bare)
    assert sorted(tmp_path.rglob("*")) == before
    wrong = {name for name, check in checks.items() if not check["ok"]}
    assert {"platform folder", "engine", "engine limits", "engine init", "state", "daemon", "web"} <= wrong
    assert checks["git library"]["ok"]
    assert "apt install docker.io" in str(checks["engine"]["advice"])
    assert str(bare.platform) in str(checks["platform folder"]["advice"])


def test_for_people_advice_stands_below(bare: Machine) -> None:
    found = bare.run("doctor")
    assert found.code == Exit.FAILED
    assert [line.split()[:2] for line in found.stdout.splitlines()][:2] == [
        ["CHECK", "RESULT"],
        ["configuration", "ok"],
    ]
    assert "daemon: start it with: prichal daemon" in found.stderr


def test_a_sound_state(bare: Machine, store: SqliteStore) -> None:
    checks = examine(bare)
    assert checks["state"]["ok"]
    assert checks["database folder"]["ok"]
    assert checks["disk space"]["ok"]


def test_a_damaged_state(bare: Machine, store: SqliteStore) -> None:
    store.apps.save(AppStatus(AppName("a"), plan="x" * 20_000))
    store.close()
    path = bare.state / "db" / "state.db"
    with path.open("r+b") as file:
        file.seek(-4096, os.SEEK_END)
        file.write(os.urandom(4096))
    assert not examine(bare)["state"]["ok"]


def test_a_row_that_cannot_be_read(bare: Machine, store: SqliteStore) -> None:
    app = AppName("a")
    store.apps.save(AppStatus(app))
    with closing(sqlite3.connect(bare.state / "db" / "state.db", isolation_level=None)) as db:
        db.execute("UPDATE apps SET status = '{'")
    found = examine(bare)["state"]
    assert not found["ok"]
    assert "the status of the app a cannot be read back" in str(found)
    store.apps.status(app)
    store.set_aside()
    found = examine(bare)["state"]
    assert found["ok"]
    assert "1 unreadable row was set aside: the status of the app a" in str(found)


def test_folders_that_are_open_to_others(bare: Machine, store: SqliteStore) -> None:
    private, database = bare.state / "private", bare.state / "db"
    private.mkdir(mode=0o700)
    database.chmod(0o2777)
    private.chmod(0o755)
    checks = examine(bare)
    assert checks["private folder"]["advice"] == f"chmod 0700 {private}"
    assert checks["database folder"]["advice"] == f"chmod 2750 {database}"
    private.chmod(0o700)
    database.chmod(0o2750)
    for file, mode, advice in (
        ("state.db", 0o600, "chmod g+r "),
        ("state.db", 0o660, "chmod g-w,o-w "),
        ("asked/asked.db", 0o640, "chmod g+rw "),
        ("asked", 0o3777, "chmod 3770 "),
        ("asked", 0o2770, "chmod 3770 "),
    ):
        before = stat.S_IMODE((database / file).stat().st_mode)
        (database / file).chmod(mode)
        checks = examine(bare)
        assert checks["private folder"]["ok"]
        assert advice in str(checks["database folder"]["advice"])
        (database / file).chmod(before)
    assert examine(bare)["database folder"]["ok"]


def test_keys_that_operators_read(bare: Machine, store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.boxes.record_access(StorageAccess("http://a", "http://a", "key", Secret("the-secret")))
    keys = bare.state / "db" / "keys"
    keys.chmod(0o2755)
    assert examine(bare)["database folder"]["advice"] == f"chmod 2750 {keys}"
    keys.chmod(0o2750)
    assert examine(bare)["database folder"]["ok"]
    group = grp.struct_group(("prichal", "x", keys.stat().st_gid, ["ivanov"]))
    monkeypatch.setattr(grp, "getgrgid", lambda number: group)
    found = examine(bare)["database folder"]
    assert "operators can read the keys of the web process: ivanov" in str(found)


def test_what_others_ask_for_was_set_aside(bare: Machine, store: SqliteStore) -> None:
    assert examine(bare)["asked"]["ok"]
    asked = bare.state / "db" / "asked" / "asked.db"
    asked.write_bytes(b"garbage" * 1000)
    found = examine(bare)["state"]
    assert not found["ok"]
    assert "cannot use what others ask for" in str(found), "before the daemon has seen to it"
    store.close()
    store.heartbeat(1.0)
    found = examine(bare)["asked"]
    assert not found["ok"]
    assert "asked.db.aside-1 (7000 bytes)" in str(found)
    (asked.parent / "asked.db.aside-1").unlink()
    assert examine(bare)["asked"]["ok"]
    assert examine(bare)["state"]["ok"]


def test_a_secret_that_everybody_may_read(bare: Machine) -> None:
    bare.run("connect", "https://git.example.org/demo.git", "--webhook", "github")
    bare.platform.chmod(0o755)
    secret = bare.platform / "demo.secret.yaml"
    assert examine(bare)["platform secrets"]["ok"]
    secret.chmod(0o644)
    assert examine(bare)["platform secrets"]["advice"] == f"chmod 0600 {secret}"
    bare.platform.chmod(0o700)
    assert examine(bare)["platform secrets"]["ok"], "the folder is closed"


def test_a_platform_folder_with_a_problem(bare: Machine) -> None:
    text = "apiVersion: unified-platform.cs.hse.ru/v1\nkind: PlatformApp\nmetadata: {name: a}\nspec: {}\n"
    (bare.platform / "a.yaml").write_text(text)
    found = examine(bare)["platform folder"]
    assert not found["ok"]
    assert "a.yaml:4" in str(found["detail"])


def test_a_daemon_that_runs_and_one_that_hangs(bare: Machine, store: SqliteStore) -> None:
    (bare.state / "private").mkdir(mode=0o700)
    with only_one(bare.state / "private"):
        assert examine(bare)["daemon"]["ok"]
        store.heartbeat(time.time() - 60)
        hanging = examine(bare)["daemon"]
    assert f"process {os.getpid()}" in str(hanging["detail"])
    assert str(os.getpid()) in str(hanging["advice"])
    assert "no daemon uses" in str(examine(bare)["daemon"]["detail"])


@pytest.mark.parametrize(
    ("lines", "detail"),
    [((), "starts with the first box"), (("storage: {backend: none}",), "boxes are refused")],
)
def test_a_storage_that_nobody_needs(
    bare: Machine, store: SqliteStore, lines: tuple[str, ...], detail: str
) -> None:
    bare.configure(*lines)
    checks = examine(bare)
    for name in ("storage", "storage links"):
        assert checks[name]["ok"]
        assert detail in str(checks[name]["detail"])
    assert checks["storage space"]["ok"]
    assert not (bare.state / "storage").exists()


def test_an_embedded_storage_that_should_run_and_does_not(bare: Machine, store: SqliteStore) -> None:
    store.boxes.save(BoxRecord(AppName("demo"), ComponentName("data"), "prichal.demo.data", 10**9))
    store.boxes.record_access(ACCESS)
    bare.configure("storage: {listen: '127.0.0.1:1'}")
    checks = examine(bare)
    assert "gateway.log" in str(checks["storage"]["advice"])
    assert "storage.publicUrl" in str(checks["storage links"]["advice"])
    bare.configure("storage: {listen: '0.0.0.0:1'}")
    assert "users cannot reach" in str(examine(bare)["storage links"]["detail"])


class S3(http.server.BaseHTTPRequestHandler):
    """Answers as an S3 server does to a user who may list buckets but is not an administrator; `link` is the
    answer to a link."""

    def do_GET(self) -> None:
        buckets = "<ListAllMyBucketsResult><Buckets/></ListAllMyBucketsResult>"
        status, body = (200, buckets) if self.path == "/" else self.server.link  # type: ignore[attr-defined]
        if self.path.startswith("/minio/admin/"):
            status, body = 403, '{"Code": "AccessDenied", "Message": "Access Denied."}'
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if body.startswith("{") else "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def s3() -> Iterator[http.server.ThreadingHTTPServer]:
    with serving(S3) as server:
        server.link = (404, '{"type": "urn:prichal:problem:not-found"}')  # type: ignore[attr-defined]
        yield server


def test_a_storage_elsewhere(
    bare: Machine, store: SqliteStore, tmp_path: Path, s3: http.server.ThreadingHTTPServer
) -> None:
    store.boxes.record_access(ACCESS)
    keys = tmp_path / "storage-keys.yaml"
    keys.write_text("accessKey: platform\nsecretKey: the-key-of-the-platform\n")
    where = f"backend: s3, endpoint: 'http://127.0.0.1:{s3.server_port}', credentials: {keys}"
    where += f", listen: '127.0.0.1:{s3.server_port}'"  # what serves links is played by the same server
    bare.configure(f"storage: {{{where}}}")
    checks = examine(bare)
    assert all(check["ok"] for name, check in checks.items() if name.startswith("storage"))
    assert "the storage enforces no quotas" in str(checks["storage accounts"]["detail"])
    assert "works only on this host" in str(checks["storage links"]["detail"])

    bare.configure(f"storage: {{{where}, admin: minio}}")
    assert "administrator" in str(examine(bare)["storage accounts"]["advice"])

    s3.link = (403, '{"type": "urn:prichal:problem:link-refused"}')  # type: ignore[attr-defined]
    assert "path and query" in str(examine(bare)["storage links"]["advice"])
    s3.link = (404, "<Error><Code>NoSuchBucket</Code></Error>")  # type: ignore[attr-defined]
    foreign = examine(bare)["storage links"]
    assert "another program" in str(foreign["detail"])
    assert "storage.listen" in str(foreign["advice"])
    s3.link = (200, "a page for people")  # type: ignore[attr-defined]
    assert "a page for people" in str(examine(bare)["storage links"]["detail"])

    keys.unlink()
    assert str(keys) in str(examine(bare)["storage"]["detail"])


class Web(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        ready = getattr(self.server, "ready", True)
        self.send_response(200 if ready else 503)
        self.end_headers()
        self.wfile.write(b'{"checks": {"daemon": "it has never run"}}')

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[http.server.ThreadingHTTPServer]:
    with serving(Web) as server:
        yield server


@contextmanager
def serving(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[http.server.ThreadingHTTPServer]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_web_process_that_is_ready_and_one_that_is_not(
    bare: Machine, web: http.server.ThreadingHTTPServer
) -> None:
    bare.configure(f"web: {{listen: '0.0.0.0:{web.server_port}'}}")
    assert examine(bare)["web"]["ok"]
    web.ready = False  # type: ignore[attr-defined]
    assert "it has never run" in str(examine(bare)["web"]["detail"])


def test_git_over_https(bare: Machine) -> None:
    def seen() -> tuple[object, str]:
        check = examine(bare)["git over https"]
        return check["ok"], str(check["detail"])

    path, waiting = load(bare.config).git_socket, []
    path.parent.mkdir(parents=True)
    assert seen() == (False, f"the Git service does not listen at {path}, so pushes over HTTPS fail")
    with listening(path):
        assert seen()[0]
        path.chmod(0o666)
        assert seen() == (False, f"more users than the web process may open {path}")
        path.chmod(0o600)
        while True:  # it takes no more connections than wait already
            try:
                waiting.append(connected(path))
            except BlockingIOError:
                break
        assert seen()[0]
    for each in waiting:
        each.close()
    assert seen() == (False, f"nothing listens at {path} any more")


def test_shares_that_are_nearly_used_up(machine: Machine, store: SqliteStore, tmp_path: Path) -> None:
    machine.configure(f"docker: {{host: 'unix://{tmp_path}/docker.sock'}}")
    assert examine(machine)["shares"]["detail"] == "no app is near a bound"
    of_demo = [Usage(DEMO, "cpus", 16, 16), Usage(DEMO, "runs", 3, 3), Usage(DEMO, "gpus", 1, None)]
    store.record_usage([*of_demo, Usage(DEMO, "queue", 799, 1000)])
    assert examine(machine)["shares"]["ok"], "what is declared and what runs may be all that there is"
    assert (
        examine(machine)["shares"]["detail"] == "no app is near a bound; the nearest: demo: queue 799 of 1000"
    )
    store.record_usage(
        [*of_demo, Usage(DEMO, "queue", 800, 1000), Usage(AppName("other"), "box tables", 95e6, 100e6)]
    )
    found = examine(machine)["shares"]
    assert not found["ok"]
    assert found["detail"] == "other: box tables 95 MB of 100 MB; demo: queue 800 of 1000"
    assert "prichal status APP" in str(found["advice"])


def test_the_first_administrator_s_link_is_shown_until_it_was_used(bare: Machine) -> None:
    assert "nobody has an account yet" in str(examine(bare)["people"]["detail"])
    settings = Settings(state=bare.state)
    prepare_people(settings)
    code = settings.first_login.read_text().strip()
    shown = examine(bare)["people"]
    assert shown["ok"]
    assert f"/-/login?code={code}" in str(shown["detail"])
    people = PeopleStore(settings.people)
    people.put_link("admin", code, 0.0)
    assert "prichal user passwd admin" in str(examine(bare)["people"]["detail"])
    people.set_hash("admin", "a hash")
    assert examine(bare)["people"]["detail"] == "1 accounts, 1 of administrators"


# --- GPUs -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> StandInDriver:
    if not has_compiler() or importlib.util.find_spec("pynvml") is None:
        pytest.skip("needs a C compiler (scripts/test-tools cc) and nvidia-ml-py (scripts/setup)")
    return StandInDriver(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def nvml(stand_in: StandInDriver, monkeypatch: pytest.MonkeyPatch) -> StandInDriver:
    for name, value in stand_in.env.items():
        monkeypatch.setenv(name, value)
    return stand_in


CARDS = (StandInGpu("GPU-aaaa1111"), StandInGpu("GPU-bbbb2222", use_code=3))


def examine_gpus(machine: Machine, tmp_path: Path, *gpus: str) -> dict[str, object]:
    machine.configure(
        f"docker: {{host: 'unix://{tmp_path}/docker.sock'}}",
        "web: {listen: '127.0.0.1:1'}",
        f"runs: {{gpus: {json.dumps(gpus)}}}",
    )
    return examine(machine)["gpus"]


def test_gpus_of_the_driver_beside_those_that_are_lent(
    bare: Machine, store: SqliteStore, nvml: StandInDriver, tmp_path: Path
) -> None:
    nvml.says(*CARDS)
    store.gpus.save(Lease("prichal.demo.web.1.0", DEMO, ComponentName("web"), ("0",)))
    check = examine_gpus(bare, tmp_path, "0", "GPU-bbbb2222")
    assert check["ok"]
    assert check["detail"] == (
        "0: NVIDIA-A100, 1.07 GB of 42.9 GB in use, 25% busy, held by demo/web; "
        "GPU-bbbb2222: NVIDIA-A100, 1.07 GB of 42.9 GB in use, free"
    )
    check = examine_gpus(bare, tmp_path, "GPU-bbbb2222")
    assert check["ok"]
    assert "0: NVIDIA-A100, 1.07 GB of 42.9 GB in use, 25% busy, not lent, held by demo/web" in str(
        check["detail"]
    )


@pytest.mark.parametrize(
    ("cards", "gpus", "said"),
    [
        (CARDS, ("0", "5"), "5: the driver does not know it, free"),
        (
            CARDS,
            ("0", "GPU-aaaa"),
            "GPU-aaaa: NVIDIA-A100, 1.07 GB of 42.9 GB in use, 25% busy, it is the same as 0, free",
        ),
        ((StandInGpu("GPU-a", handle_code=15),), ("0",), "0: GPU is lost, free"),
        (
            (StandInGpu("GPU-a", mig=1), StandInGpu("MIG-b", parent=0)),
            ("0",),
            "it is in MIG mode: lend its instances",
        ),
    ],
)
def test_gpus_that_cannot_be_lent(
    bare: Machine,
    nvml: StandInDriver,
    tmp_path: Path,
    cards: tuple[StandInGpu, ...],
    gpus: tuple[str, ...],
    said: str,
) -> None:
    nvml.says(*cards)
    check = examine_gpus(bare, tmp_path, *gpus)
    assert not check["ok"]
    assert said in str(check["detail"])
    assert "nvidia-smi -L" in str(check["advice"])


def test_gpus_that_are_there_and_not_lent_are_no_problem(
    bare: Machine, nvml: StandInDriver, tmp_path: Path
) -> None:
    nvml.says(*CARDS)
    check = examine_gpus(bare, tmp_path)
    assert check["ok"]
    assert "the driver shows 0 (NVIDIA-A100 GPU-aaaa1111), 1 (NVIDIA-A100 GPU-bbbb2222)" in str(
        check["detail"]
    )


def test_a_driver_that_says_nothing(bare: Machine, nvml: StandInDriver, tmp_path: Path) -> None:
    nvml.says(init=18)
    check = examine_gpus(bare, tmp_path, "0")
    assert not check["ok"]
    assert "0: free. What they do is unknown: RM has detected an NVML/RM version mismatch." in str(
        check["detail"]
    )
    assert "nvidia-smi" in str(check["advice"])
    assert examine_gpus(bare, tmp_path)["ok"], "nobody asks for any"


def test_a_receiver_that_takes_no_messages(bare: Machine, store: SqliteStore) -> None:
    spec = make(NotificationSpec, ComponentName("team"), Channel.EMAIL, to=("team@example.org",))
    store.notifications.declare(DEMO, (spec,))
    message = outgoing("note_1", DEMO, spec, "{}", 1.0)
    store.notifications.record(message, 1.0, Fate.DELIVERED)
    assert examine(bare)["notifications"]["ok"]
    store.notifications.record(message, 2.0, None, "it answers 401")
    found = examine(bare)["notifications"]
    assert (found["ok"], found["detail"]) == (False, "demo: team: it answers 401")
