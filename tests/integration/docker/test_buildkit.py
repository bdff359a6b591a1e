"""Builds by the BuildKit of a real engine: what only it builds, within which limits, and what it is not given."""

from __future__ import annotations

import fcntl
import os
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import docker
import pytest

from controller.adapters.docker import DockerEngine
from controller.adapters.docker.buildkit.cache import BuildCache
from controller.adapters.docker.connection import EngineConnection
from controller.config import DockerSettings
from controller.domain import labels
from controller.domain.apps.desired import BuildInput
from controller.domain.apps.spec import BuildImage, BuildSecret
from controller.domain.errors import Stalled, Superseded, Transient
from controller.domain.secret import Secret
from tests.support.engines import BASE_IMAGE, context_of
from tests.support.specs import make
from tests.support.waiting import wait_for

ALWAYS = DockerSettings(builder="buildkit")
FROM = f"FROM {BASE_IMAGE}\n"
TOKEN = "9d3c41aa-token-of-pip"


@pytest.fixture
def tag(instance: str) -> str:
    return f"{instance}.local/app/web:1"


@pytest.fixture
def buildkit(instance: str, tmp_path: Path) -> Iterator[DockerEngine]:
    with closing(DockerEngine(ALWAYS, instance, tmp_path)) as engine:
        yield engine


@contextmanager
def cache_locked(operation: int) -> Iterator[None]:
    """Hold a lock of all test processes: the engine has one cache, which one of the tests empties."""
    path = Path(tempfile.gettempdir()) / f"prichal-tests-{os.getuid()}-buildkit-cache"
    with path.open("a") as lock:
        fcntl.flock(lock, operation)
        yield


@pytest.fixture
def cache_stays() -> Iterator[None]:
    with cache_locked(fcntl.LOCK_SH):
        yield


def build(
    engine: DockerEngine, tag: str, dockerfile: str, files: dict[str, str] | None = None, **source: object
) -> list[str]:
    """Lines of the log. A secret `pip` is declared."""
    declared = make(BuildImage, ".", secrets=(BuildSecret("pip", "keys", "token"),))
    order = BuildInput("c0ffee", replace(declared, **source), (("pip", Secret(TOKEN)),))  # type: ignore[arg-type]
    lines: list[str] = []
    context = context_of({"Dockerfile": dockerfile, **(files or {})})
    engine.build(tag, order, context, lines.append)
    return lines


def helpers(client: docker.APIClient, instance: str) -> list[str]:
    ours = {"label": f"{labels.BUILD_LIMITS}={instance}"}
    return [entry["Id"] for entry in client.containers(all=True, filters=ours)]


# --- what only BuildKit builds ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("# syntax=docker/dockerfile:1\nFROM BASE\nRUN --mount=type=tmpfs,target=/t echo > /t/x; ls /t", "x"),
        ("FROM BASE AS one\nRUN echo 1 > /x\nFROM BASE\nRUN --mount=from=one,target=/one cat /one/x", "1"),
        ("FROM BASE\nRUN --mount=target=/here,rw cat /here/a", "of the context"),
        ("FROM BASE\nCOPY --chmod=0751 a /b\nRUN stat -c %a /b", "751"),
        ("FROM BASE\nARG WHO=you\nRUN --mount=type=tmpfs,target=/t echo for $WHO", "for me"),
        ("FROM BASE\nRUN --mount=type=tmpfs,target=/t printf 'no end of line'; sleep 0.1", "no end of line"),
        ("#escape=`\nFROM BASE\nRUN --mount=type=tmpfs,target=/t echo `\n  one", "one"),
        ("FROM BASE\nRUN --mount=type=secret,id=pip wc -c < /run/secrets/pip", str(len(TOKEN))),
        ("FROM BASE\nRUN --mount=type=secret,id=pip cat /run/secrets/pip", "***"),
    ],
)
def test_what_only_buildkit_builds(engine: DockerEngine, tag: str, text: str, line: str) -> None:
    """With the default settings: they choose it for a Dockerfile that needs it."""
    files = {"a": "of the context"}
    unique = text.replace("BASE\n", f"{BASE_IMAGE}\nENV TAG={tag}\n").replace(
        "BASE", BASE_IMAGE
    )  # for the cache
    lines = build(engine, tag, unique, files, args=(("WHO", "me"),))
    assert line in lines, lines


@pytest.mark.usefixtures("cache_stays")
def test_caches_belong_to_one_app(buildkit: DockerEngine, instance: str) -> None:
    step = "RUN --mount=type=cache,target=/c,id=x echo {0} >> /c/log; echo $(cat /c/log)"
    tags = [f"{instance}.local/{app}/web:{number}" for app in ("a", "b") for number in (1, 2)]
    seen = [build(buildkit, tag, FROM + step.format(tag[-3:]))[-3] for tag in tags]
    assert [lines.split() for lines in seen] == [["b:1"], ["b:1", "b:2"], ["b:1"], ["b:1", "b:2"]]


@pytest.mark.usefixtures("cache_stays")
def test_what_secrets_have_made_is_not_found_by_another_app(buildkit: DockerEngine, instance: str) -> None:
    """Although its Dockerfile is equal, and it has a secret with this id, too."""
    text = f"{FROM}RUN --mount=type=secret,id=pip sha256sum /run/secrets/pip > /x; date +%N >> /x\nRUN sha256sum /x"
    builds = [build(buildkit, f"{instance}.local/{app}/web:1", text) for app in ("a", "b", "a")]
    sums = [[line for line in lines if line.endswith("  /x")] for lines in builds]
    assert sums[0] != sums[1]
    assert sums[2] == [], "it is in the app's own cache"


def test_an_image_is_as_the_classic_builder_makes_it(
    engine: DockerEngine, client: docker.APIClient, tag: str, instance: str
) -> None:
    """Its labels, its configuration and the files that it sees of the context."""
    forged = "io.prichal.instance=me io.prichal.built-by=me io.prichal.run=r"
    text = f'{FROM}COPY . /x/\nLABEL {forged} a=b\nENV A=b\nRUN find /x | sort\nCMD ["x"]'
    files = {"Dockerfile": text, ".hidden/b": "b", "d/e/f": "1", "é": "2", "with space": "3"}
    found, listed = [], []
    for number, settings in enumerate((DockerSettings(builder="classic"), ALWAYS)):
        with closing(DockerEngine(settings, instance, Path("/nonexistent"))) as one:
            lines = build(one, f"{tag}{number}", text, files)
        listed.append([line for line in lines if line.startswith("/x")])
        config = client.inspect_image(f"{tag}{number}")["Config"]  # type: ignore[no-untyped-call]
        found.append({key: config.get(key) for key in ("Labels", "Env", "Cmd", "Entrypoint", "WorkingDir")})
    assert found[0] == found[1]
    assert {key: value for key, value in found[1]["Labels"].items() if value} == {
        labels.BUILT_BY: instance,
        "a": "b",
    }
    assert listed[0] == listed[1] == ["/x", "/x/.hidden", "/x/.hidden/b", "/x/Dockerfile", *listed[1][4:]]
    assert len(listed[1]) == 10 - 1


def test_a_large_context_arrives(buildkit: DockerEngine, tag: str) -> None:
    """More than the connection has room for at once, in files of all sizes."""
    files = {f"d{n % 7}/{n}": str(n) * (n * 37 % 400) for n in range(600)} | {"big": "x" * (24 << 20)}
    total = sum(map(len, files.values()))
    lines = build(
        buildkit,
        tag,
        f"{FROM}COPY d* big /x/\nCOPY . /y/\nRUN cat $(find /y -type f ! -name Dockerfile) | wc -c",
        files,
    )
    assert str(total) in lines


def test_the_result_is_pinned_by_its_content(
    buildkit: DockerEngine, client: docker.APIClient, tag: str
) -> None:
    """Another build of equal content has the layers of the first one, so it replaces nothing."""
    text = f"{FROM}RUN date +%N > /x\nCOPY a /a"
    found = []
    for number in (1, 2):
        build(buildkit, f"{tag}{number}", text, {"a": "1"})
        found.append(client.inspect_image(f"{tag}{number}")["RootFS"]["Layers"])  # type: ignore[no-untyped-call]
    assert found[0] == found[1]


# --- what goes wrong --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            f"{FROM}RUN (echo first && echo no such thing) >&2 && exit 3",
            r"exit code: 3(.|\n)*first\nno such thing",
        ),
        (f"{FROM}RUN --mount=type=secret,id=pip cat /run/secrets/pip; exit 3", r"\*\*\*"),
        ("FROM scratch\nFETCH a", r"line 2: unknown instruction: FETCH"),
        ("FROM scratch\nCOPY missing /", r"missing"),
        ("FROM scratch\nCOPY ../../etc/passwd /", r"passwd"),
        ("", r"empty|no instructions"),
    ],
)
def test_what_is_wrong_with_a_build_is_told(buildkit: DockerEngine, tag: str, text: str, words: str) -> None:
    with pytest.raises(Stalled, match=words) as caught:
        build(buildkit, tag, text)
    assert caught.value.reason == "BuildFailed"
    assert TOKEN not in caught.value.message


def test_a_step_without_network_says_what_to_do(buildkit: DockerEngine, tag: str) -> None:
    with pytest.raises(Stalled, match=r"have no network: set docker\.buildNetwork to bridge"):
        build(buildkit, tag, f"{FROM}RUN --mount=type=tmpfs,target=/t getent hosts example.org")


REFUSED = [
    ("# syntax=evil/frontend\nFROM scratch", "evil/frontend would run on the engine"),
    ("#syntax = docker/dockerfile:1@sha256:12\nFROM scratch", "would run on the engine"),
    ("// syntax=evil/frontend\nFROM scratch", "begin with an instruction"),
    ('{"syntax": "evil/frontend"}\nFROM scratch', "begin with an instruction"),
    (f"{FROM}RUN --security=insecure id", "rights of the host"),
    (f"{FROM}RUN --network=host id", "network of the host"),
    (f'{FROM}RUN --net"work=h"ost id', "network of the host"),
    (f"{FROM}RUN --mount=type=ssh id", "type ssh is not supported"),
    (f"{FROM}RUN --mount=type=secret,id=other id", "secret 'other' is not declared"),
    (f"{FROM}RUN --mount=type=secret,target=/x/other id", "secret 'other' is not declared"),
    (f"{FROM}RUN --mount=type=bind,from=$X,target=/x id", "without variables"),
    (f"{FROM}ADD http://127.0.0.1/ /x", "rights of this host"),
    (f"{FROM}ADD git@127.0.0.1:x.git /x", "rights of this host"),
    (f"FROM {BASE_IMAGE}$TARGETARCH", "variable of the platform"),
]


@pytest.mark.parametrize(("text", "words"), REFUSED)
def test_what_takes_more_than_a_build_may_is_refused(
    buildkit: DockerEngine, tag: str, text: str, words: str
) -> None:
    with pytest.raises(Stalled, match=words) as caught:
        build(buildkit, tag, text)
    assert caught.value.reason == "BuildRefused"


def test_arguments_cannot_change_the_builder(buildkit: DockerEngine, tag: str) -> None:
    with pytest.raises(Stalled, match="BUILDKIT_SYNTAX") as caught:
        build(buildkit, tag, "FROM scratch", args=(("BUILDKIT_SYNTAX", "evil/frontend"),))
    assert caught.value.reason == "BuildRefused"


def test_images_of_others_are_not_given(buildkit: DockerEngine, client: docker.APIClient, tag: str) -> None:
    build(buildkit, tag, f"{FROM}RUN echo secret of {tag} > /secret")
    digits = client.inspect_image(tag)["Id"].removeprefix("sha256:")  # type: ignore[no-untyped-call]
    for name in (tag, digits, digits[:12]):
        for text in (
            f"FROM {name}",
            f"FROM scratch\nCOPY --from={name} /secret /",
            f"{FROM}RUN --mount=from={name},target=/x cat /x/secret",
            f"{FROM}RUN --mo'unt'=fr\\om={name},target=/x cat /x/secret",
            f"{FROM}ONBUILD RUN --mount=from={name},target=/x true",
            f'ARG A="x B={BASE_IMAGE}"\nFROM ${{B:-{name}}}',
        ):
            with pytest.raises(Stalled) as caught:
                build(buildkit, f"{tag}0", text)
            assert caught.value.reason == "ImageRefused", text


# --- limits -----------------------------------------------------------------------------------------------------


READ = "r() { cat /sys/fs/cgroup/$1 2>/dev/null || cat /sys/fs/cgroup/$2; }; "


def test_steps_are_bounded(client: docker.APIClient, instance: str, tag: str, tmp_path: Path) -> None:
    settings = replace(ALWAYS, build_cpus=0.5, build_memory=128 * 2**20, build_pids=77)
    step = (
        f"{READ}until [ $(r pids.max pids/pids.max) = 77 ]; do sleep 0.01; done; sleep 0.2; "
        "echo memory $(r memory.max memory/memory.limit_in_bytes); echo cpu $(r cpu.max cpu/cpu.cfs_quota_us); "
        "echo processes $(for i in $(seq 200); do sleep 2 & done 2>&1 | wc -l)"
    )
    with closing(DockerEngine(settings, instance, tmp_path)) as engine:
        lines = build(engine, tag, f"{FROM}RUN {step}; true")
        assert f"memory {128 * 2**20}" in lines
        assert any(line in ("cpu 50000", "cpu 50000 100000") for line in lines)
        with pytest.raises(Stalled, match=r"exit code: 137|Killed") as caught:
            build(engine, tag, f"{FROM}RUN sleep 1; python3 -c 'x = bytearray(300 << 20)'")
    assert caught.value.reason == "BuildFailed"
    assert helpers(client, instance) == []


def memory_together() -> int | None:
    """The limit of all steps on this host, None if the engine has no group for them."""
    for name in ("memory/docker/buildkit/memory.limit_in_bytes", "docker/buildkit/memory.max"):
        with suppress(OSError, ValueError):
            return int(Path("/sys/fs/cgroup", name).read_text())
    return None


def test_steps_that_run_at_once_are_bounded_together(
    client: docker.APIClient, instance: str, tag: str, tmp_path: Path
) -> None:
    """As long as something of ours is built. Another test may have stricter limits meanwhile, but not these."""
    settings = replace(ALWAYS, build_memory=1111 * 2**20)
    stages = "".join(
        f"FROM {BASE_IMAGE} AS s{n}\nRUN echo at {n}; sleep 1; echo {tag} > /{n}\n" for n in range(3)
    )
    copies = "".join(f"COPY --from=s{n} /{n} /\n" for n in range(3))
    seen = set[int | None]()

    def look(line: str) -> None:
        if line.startswith("at "):
            wait_for(lambda: memory_together() in (None, 4 * settings.build_memory))
            seen.add(memory_together())

    order = BuildInput("c0ffee", make(BuildImage, "."))
    with closing(DockerEngine(settings, instance, tmp_path)) as engine:
        engine.build(tag, order, context_of({"Dockerfile": f"{stages}{FROM}{copies}"}), look)
    if seen == {None}:
        pytest.skip("the engine has no group for all steps")
    wait_for(lambda: memory_together() != 4 * settings.build_memory)


@pytest.mark.parametrize("endless", ["sleep 600", "while :; do echo more; sleep 0.1; done"])
def test_a_build_without_end_ends(
    client: docker.APIClient, instance: str, tag: str, tmp_path: Path, endless: str
) -> None:
    dockerfile = f"{FROM}RUN echo begun; {endless}\n"
    with (
        closing(DockerEngine(replace(ALWAYS, build_timeout=3.0), instance, tmp_path)) as engine,
        pytest.raises(Stalled, match=r"docker\.buildTimeout(.|\n)*begun") as caught,
    ):
        build(engine, tag, dockerfile)
    assert caught.value.reason == "BuildTimeout"
    assert helpers(client, instance) == []
    wait_for(lambda: steps_with(endless) == [])


def steps_with(command: str) -> list[str]:
    """Processes on this host whose command has the text; the engine may be elsewhere, then there are none."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if f"echo begun; {command}" in text and "pytest" not in text:
            found.append(text)
    return found


def test_a_build_that_fills_the_disk_is_ended(instance: str, tag: str, tmp_path: Path) -> None:
    step = "n=0; while :; do n=$((n+1)); head -c 50000000 /dev/zero > /f$n; sleep 0.2; done"
    with (
        closing(DockerEngine(replace(ALWAYS, build_disk=100 * 2**20), instance, tmp_path)) as engine,
        pytest.raises(Transient, match=r"docker\.buildDisk") as caught,
    ):
        build(engine, tag, f"{FROM}RUN {step}")
    assert caught.value.reason == "BuildTooLarge"
    assert engine.image_sizes() == {}, "no build is under way"


def test_what_a_killed_daemon_has_left_is_collected(
    buildkit: DockerEngine, client: docker.APIClient, instance: str, tag: str, tmp_path: Path
) -> None:
    """It goes on limiting until then. Nothing of a build under way is collected, and a build that nothing limits any
    more is ended."""
    begun, ended = threading.Event(), list[Transient]()

    def run() -> None:
        order = BuildInput("c0ffee", make(BuildImage, "."))
        text = f"{FROM}RUN echo begun; sleep 500"
        try:
            buildkit.build(tag, order, context_of({"Dockerfile": text}), lambda line: begun.set())
        except Transient as error:
            ended.append(error)

    building = threading.Thread(target=run)
    building.start()
    assert begun.wait(60)
    (helper,) = helpers(client, instance)
    buildkit.collect_builds(age=0)
    assert helpers(client, instance) == [helper]
    with closing(
        DockerEngine(ALWAYS, instance, tmp_path)
    ) as restarted:  # as after a kill: it knows of no build
        restarted.collect_builds(age=0)
    wait_for(lambda: helpers(client, instance) == [])
    building.join()
    assert [error.reason for error in ended] == ["BuildUnlimited"]


# --- ended from outside, and what is left -----------------------------------------------------------------------


@pytest.mark.parametrize("builder", ["buildkit", "classic"])
def test_a_newer_commit_ends_a_build(
    client: docker.APIClient, instance: str, tag: str, tmp_path: Path, builder: str
) -> None:
    """Although its step says nothing."""
    order = BuildInput("c0ffee", make(BuildImage, "."))
    context = context_of({"Dockerfile": f"{FROM}RUN echo begun; sleep 600\n"})
    begun = threading.Event()

    def look(line: str) -> None:
        if line == "begun":
            begun.set()

    with (
        closing(DockerEngine(DockerSettings(builder=builder), instance, tmp_path)) as engine,
        pytest.raises(Superseded),
    ):
        engine.build(tag, order, context, look, begun.is_set)
    wait_for(lambda: steps_with("sleep 600") == [])
    assert helpers(client, instance) == []
    assert not client.images(tag)


def test_several_can_ask_at_a_time_what_is_in_the_cache() -> None:
    """The engine answers one of them, and refuses the others meanwhile."""
    with closing(EngineConnection(ALWAYS.host, 60.0)) as connection:
        cache = BuildCache(connection, ALWAYS)
        with ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(cache.size) for _ in range(4)]
            assert all(one.result() >= 0 for one in asked)


@pytest.fixture
def cache_is_mine() -> Iterator[None]:
    with cache_locked(fcntl.LOCK_EX):
        yield


@pytest.mark.usefixtures("cache_is_mine")
def test_the_cache_is_kept_within_its_bound(instance: str, tag: str, tmp_path: Path) -> None:
    """What is removed is only what no build uses: the next one makes it again."""
    with closing(DockerEngine(ALWAYS, instance, tmp_path)) as engine:
        build(
            engine, tag, f"{FROM}RUN --mount=type=cache,target=/c head -c 30000000 /dev/zero > /c/{instance}"
        )
        connection = EngineConnection(ALWAYS.host, 60.0)
        cache = BuildCache(connection, replace(ALWAYS, build_cache=2**20))

        def still_there() -> bool:
            """Others build by this engine, too: what is looked for is the part that this test has made."""
            cache.collect(0.0)
            return any(
                part["Type"] == "exec.cachemount" and instance in part["Description"]
                for part in cache.parts()
            )

        with closing(connection):
            assert cache.size() >= 30_000_000
            cache.used()
            wait_for(lambda: not still_there())
        build(engine, tag, f"{FROM}RUN --mount=type=cache,target=/c ls /c")
