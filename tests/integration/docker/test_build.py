"""Builds on a real engine: what goes in, what comes out, and what is left of a failed one."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import docker
import docker.errors
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from controller.adapters.docker import DockerEngine
from controller.adapters.docker.dockerfile import images_of
from controller.config import DockerSettings
from controller.domain import labels
from controller.domain.apps.desired import BuildInput
from controller.domain.apps.policies import Policies
from controller.domain.apps.spec import BuildImage, ExistingImage
from controller.domain.errors import Stalled, Transient
from controller.domain.names import AppName
from tests.support.engines import (
    BASE_IMAGE,
    cleaned,
    context_of,
    name_of,
    own_server_workload,
    unique,
)
from tests.support.specs import make
from tests.support.waiting import wait_for


@pytest.fixture
def tag(instance: str) -> str:
    return f"{instance}.local/app/web:1"


def build(
    engine: DockerEngine, tag: str, files: dict[str, str], source: BuildImage | None = None
) -> list[str]:
    """Lines of the log."""
    source = source or make(BuildImage, ".")
    lines: list[str] = []
    engine.build(tag, BuildInput("c0ffee", source), context_of(files, source.dockerfile), lines.append)
    return lines


def containers(client: docker.APIClient, tag: str) -> list[str]:
    """Commands of the containers in which a step that names `tag` runs or ran."""
    return [entry["Command"] for entry in client.containers(all=True) if tag in entry["Command"]]


def test_target_arguments_and_a_dockerfile_elsewhere(
    engine: DockerEngine, client: docker.APIClient, tag: str, instance: str
) -> None:
    dockerfile = (
        "FROM scratch AS first\nARG WHO\nENV WHO=$WHO\nCOPY a /\nFROM first AS second\nENV LAST=yes\n"
    )
    source = make(BuildImage, ".", "deploy/Dockerfile", target="first", args=(("WHO", "me"),))
    lines = build(engine, tag, {"deploy/Dockerfile": dockerfile, "a": "1"}, source)
    assert lines[0].endswith("FROM scratch AS first")
    image = client.inspect_image(tag)  # type: ignore[no-untyped-call]
    assert image["Config"]["Env"][-1] == "WHO=me"
    found = {key: value for key, value in image["Config"]["Labels"].items() if value}
    assert found == {labels.BUILT_BY: instance}


@pytest.fixture(scope="module")
def bases(client: docker.APIClient) -> Iterator[tuple[str, str]]:
    """Two images that say which one they are."""
    names = (f"{unique()}:1", f"{unique()}:1")
    for name in names:
        _built(client, f"FROM scratch\nLABEL which={name}\n", name)
    yield names
    for name in names:
        client.remove_image(name, force=True)


def _built(client: docker.APIClient, dockerfile: str, tag: str) -> str:
    """What the builder itself started from; "" if it refuses the Dockerfile."""
    errors = [
        line["error"]
        for line in client.build(fileobj=io.BytesIO(dockerfile.encode()), tag=tag, rm=True, decode=True)
        if "error" in line
    ]
    return "" if errors else client.inspect_image(tag)["Config"]["Labels"]["which"]  # type: ignore[no-untyped-call]


ARGUMENT_WORDS = st.lists(
    st.sampled_from(
        ("A", "B", "=", "=", " ", "ONE", "TWO", "'", '"', "\\", "$A", "${B}", "${A:-ONE}", "${B:+TWO}", "x")
    ),
    min_size=2,
    max_size=9,
).map("".join)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(ARGUMENT_WORDS, min_size=1, max_size=3),
    st.sampled_from(("$A", "${A:-ONE}", "${B:-ONE}", "${A:+TWO}", "${B:+ONE}", "'$B'", '"${A}"')),
)
@example(['A="x B=ONE"'], "${B:-TWO}")
@example(["B=A", "$B=TWO"], "${A:-ONE}")
@example(["B=ONE A=${B:-TWO}"], "$A")
@example(["A=ONE A=TWO"], "$A")
@example(['"A"=TWO'], "${A:-ONE}")
def test_a_build_starts_from_the_image_that_was_checked(
    client: docker.APIClient, bases: tuple[str, str], arguments: list[str], name: str
) -> None:
    """Whatever arguments its name is written with: it is refused, or both sides read the same."""
    lines = [*(f"ARG {argument}" for argument in arguments), f"FROM {name}", "LABEL more=1", ""]
    dockerfile = "\n".join(lines).replace("ONE", bases[0]).replace("TWO", bases[1])
    try:
        checked = images_of(dockerfile.encode(), {})
    except Stalled as refused:
        assert refused.reason == "BuildRefused"
        return
    tag = f"{unique()}:1"
    try:
        found = _built(client, dockerfile, tag)
    except docker.errors.APIError:
        return  # it refuses it before it begins
    if found:
        assert (found,) == checked
        client.remove_image(tag, force=True)


def test_a_failed_step_is_shown_and_leaves_no_container(
    engine: DockerEngine, client: docker.APIClient, tag: str
) -> None:
    dockerfile = f"FROM {BASE_IMAGE}\nRUN echo first && echo no such thing: {tag} >&2 && exit 3\n"
    with pytest.raises(Stalled, match=f"no such thing: {tag}") as caught:
        build(engine, tag, {"Dockerfile": dockerfile})
    assert caught.value.reason == "BuildFailed"
    assert "returned a non-zero code: 3" in caught.value.message
    assert containers(client, tag) == []
    assert not engine.pin(make(BuildImage, "."), tag, ()).present


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"Dockerfile": "FROM scratch\nFETCH a\n"}, "line 2: .*FETCH"),
        ({"Dockerfile": "FROM scratch\nCOPY missing /\n"}, "missing"),
        ({"Dockerfile": ""}, "empty"),
    ],
)
def test_what_is_wrong_with_a_build_is_said(
    engine: DockerEngine, tag: str, files: dict[str, str], words: str
) -> None:
    with pytest.raises(Stalled, match=words) as caught:
        build(engine, tag, files)
    assert caught.value.reason == "BuildFailed"


def test_a_base_image_whose_registry_is_down_may_come_later(engine: DockerEngine, tag: str) -> None:
    with pytest.raises(Transient) as caught:
        build(engine, tag, {"Dockerfile": "FROM 127.0.0.1:1/team/base:1\n"})
    assert caught.value.reason == "RegistryUnreachable"


@pytest.mark.parametrize(
    "dockerfile",
    [
        "FROM {base}\n",
        "FROM scratch AS one\nFROM {base} AS two\nFROM one\n",
        "FROM scratch\nCOPY --from={base} /etc/passwd /\n",
        "ARG WHICH={base}\nFROM $WHICH\n",
    ],
)
def test_a_build_begins_with_no_image_that_the_operator_does_not_allow(
    instance: str, tag: str, tmp_path: Path, dockerfile: str
) -> None:
    strict = Policies(images=("docker.io/library/scratch", "registry.example.org/*"))
    with (
        closing(DockerEngine(DockerSettings(), instance, tmp_path, policies=strict)) as engine,
        pytest.raises(Stalled, match="this platform takes no image") as caught,
    ):
        build(engine, tag, {"Dockerfile": dockerfile.format(base=BASE_IMAGE)})
    assert caught.value.reason == "BuildFailed"
    assert "it must come from docker.io/library/scratch or registry.example.org/*" in caught.value.message


@pytest.mark.parametrize("endless", ["sleep 600", "while :; do echo more; sleep 0.1; done"])
def test_a_build_without_end_ends_and_leaves_no_container(
    client: docker.APIClient, instance: str, tag: str, tmp_path: Path, endless: str
) -> None:
    """A busy machine may take longer than the shortest timeouts to begin a step."""
    dockerfile = f"FROM {BASE_IMAGE}\nRUN echo {tag}; {endless}\n"
    source = BuildInput("c0ffee", make(BuildImage, "."))
    running: list[str] = []

    def look(line: str) -> None:
        if line == tag:
            running.extend(containers(client, tag))

    for limit in (2.0, 8.0, 32.0, 128.0):
        with (
            closing(DockerEngine(DockerSettings(build_timeout=limit), instance, tmp_path)) as engine,
            pytest.raises(Stalled, match=r"docker\.buildTimeout") as caught,
        ):
            engine.build(tag, source, context_of({"Dockerfile": dockerfile}), look)
        assert caught.value.reason == "BuildTimeout"
        if running:
            break
    assert len(running) == 1
    wait_for(lambda: containers(client, tag), lambda left: not left)


def test_two_workers_build_at_once(engine: DockerEngine, client: docker.APIClient, instance: str) -> None:
    with cleaned(client, instance):
        tags = [f"{instance}.local/app/{name}:1" for name in ("a", "b")]
        threads = [
            threading.Thread(
                target=build, args=(engine, tag, {"Dockerfile": "FROM scratch\nCOPY a /\n", "a": tag})
            )
            for tag in tags
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(engine.pin(make(BuildImage, "."), tag, ()).present for tag in tags)


# --- what is left -----------------------------------------------------------------------------------------------

#: A program that builds as the daemon does, and prints each line of the log.
BUILDER = """
import sys
from pathlib import Path
from controller.adapters.docker import DockerEngine
from controller.config import DockerSettings
from controller.domain.apps.desired import BuildInput
from controller.domain.apps.spec import BuildImage, ExistingImage
from tests.support.engines import context_of
from tests.support.specs import make
instance, folder, tag, dockerfile = sys.argv[1:]
engine = DockerEngine(DockerSettings(), instance, Path(folder))
context = context_of({"Dockerfile": dockerfile})
engine.build(tag, BuildInput("c0ffee", make(BuildImage, ".")), context, lambda line: print(line, flush=True))
"""


def untagged(client: docker.APIClient, instance: str) -> list[str]:
    """Images of ours from which nothing is made."""
    ours = {"label": f"{labels.BUILT_BY}={instance}", "dangling": True}
    return [image["Id"] for image in client.images(filters=ours)]


def test_what_a_killed_builder_leaves_is_collected_and_nothing_else(
    engine: DockerEngine, client: docker.APIClient, instance: str, tag: str, tmp_path: Path
) -> None:
    """The engine goes on for a moment, and then stops by itself."""
    mine = f"FROM {BASE_IMAGE}\nRUN echo {tag} > /person\nRUN exit 3\n"
    stranger = unique()
    with cleaned(client, stranger), closing(DockerEngine(DockerSettings(), stranger, tmp_path)) as other:
        with pytest.raises(Stalled):
            build(other, f"{stranger}.local/app/build:1", {"Dockerfile": mine})
        foreign = untagged(client, stranger)
        assert foreign
        for killed_at in ("first step", "second step"):
            dockerfile = (
                f"FROM {BASE_IMAGE} AS a\nRUN echo {tag} {killed_at} > /a\nRUN echo {tag}; sleep 600\n"
                f"FROM {BASE_IMAGE}\nCOPY --from=a /a /\n"
            )
            at = killed_at if killed_at == "first step" else "sleep 600"
            kill_while_it_builds([instance, str(tmp_path), tag, dockerfile], at)
        wait_for(lambda: containers(client, tag), lambda left: not left)
        left = untagged(client, instance)
        assert left
        engine.collect_builds(age=3600)
        assert untagged(client, instance) == left
        used = client.create_container(left[0], ["true"])["Id"]

        def collected() -> list[str]:
            engine.collect_builds(age=0)
            return untagged(client, instance)

        wait_for(collected, lambda found: found == [left[0]])
        client.remove_container(used)
        wait_for(collected, lambda found: not found)
        assert untagged(client, stranger) == foreign


def kill_while_it_builds(arguments: list[str], at: str) -> None:
    command = [sys.executable, "-c", BUILDER, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            if at in line:
                process.kill()


def test_nothing_is_collected_while_something_is_built(
    engine: DockerEngine, client: docker.APIClient, instance: str, tag: str
) -> None:
    with pytest.raises(Stalled):
        build(engine, tag, {"Dockerfile": f"FROM {BASE_IMAGE}\nRUN echo {tag} > /a\nRUN exit 3\n"})
    left = untagged(client, instance)
    seen: list[list[str]] = []

    def look(line: str) -> None:
        engine.collect_builds(age=0)
        seen.append(untagged(client, instance))

    dockerfile = f"FROM {BASE_IMAGE}\nRUN echo {tag} > /a\nRUN exit 4\n"
    with pytest.raises(Stalled):
        engine.build(
            tag, BuildInput("c", make(BuildImage, ".")), context_of({"Dockerfile": dockerfile}), look
        )
    assert left
    assert all(left[0] in images for images in seen)
    engine.collect_builds(age=0)
    assert untagged(client, instance) == []


def test_a_build_whose_cache_is_removed_meanwhile_begins_again(
    engine: DockerEngine, client: docker.APIClient, instance: str, tag: str
) -> None:
    """As `prichal image prune` and `docker image prune` do. The first stage comes from the cache, and nothing uses it
    until the last step."""
    first = f"FROM {BASE_IMAGE} AS a\nRUN echo {tag} > /a\n"
    with pytest.raises(Stalled):
        build(engine, f"{tag}0", {"Dockerfile": f"{first}RUN exit 3\n"})
    cached = untagged(client, instance)
    step = f"echo {tag} waits; until [ -e /go ]; do sleep 0.1; done"
    source, lines = BuildInput("c0ffee", make(BuildImage, ".")), list[str]()
    text = f"{first}FROM {BASE_IMAGE}\nRUN {step}\nCOPY --from=a /a /b\n"
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as made:
        made.addfile(tarfile.TarInfo("go"))

    def look(line: str) -> None:
        lines.append(line)
        if line == f"{tag} waits":
            for image in cached:
                with suppress(docker.errors.ImageNotFound):
                    client.remove_image(image)
            (waiting,) = (each for each in client.containers() if step in each["Command"])
            client.put_archive(waiting["Id"], "/", archive.getvalue())

    engine.build(tag, source, context_of({"Dockerfile": text}), look)
    assert engine.pin(make(BuildImage, "."), tag, ()).present
    assert any("was removed meanwhile; it begins again" in line for line in lines), lines


def test_an_app_lets_go_of_an_image_that_another_one_uses(
    engine: DockerEngine, client: docker.APIClient, instance: str
) -> None:
    """Equal content gives both apps one image."""
    tags = [f"{instance}.local/{app}/build:1" for app in ("one", "two")]
    for tag in tags:
        build(engine, tag, {"Dockerfile": f"FROM {BASE_IMAGE}\nENV A={instance}\n"})
    pins = [engine.pin(make(BuildImage, "."), tag, ()) for tag in tags]
    assert pins[0] == pins[1]
    workload = own_server_workload(pins[0].deploy, "two")
    engine.ensure_network(workload.app)
    engine.start(workload, name_of(workload, instance))
    for app in ("one", "two"):
        engine.prune_images(AppName(app), keep=0)
    assert [engine.pin(make(BuildImage, "."), tag, ()).present for tag in tags] == [False, True]
    left = client.containers(all=True, filters={"label": f"{labels.INSTANCE}={instance}"})
    engine.remove(left[0]["Id"], grace=0)
    engine.prune_images(AppName("two"), keep=0)
    assert not client.images(filters={"label": f"{labels.BUILT_BY}={instance}"})


def test_each_step_is_labelled(
    engine: DockerEngine, client: docker.APIClient, instance: str, tag: str
) -> None:
    first = f"FROM {BASE_IMAGE} AS a\nRUN echo {tag}\nFROM a AS b\nENV A=b\n"
    dockerfile = f"{first}from scratch\nCOPY --from=b /etc/passwd /\n"
    build(engine, tag, {"Dockerfile": dockerfile})
    assert untagged(client, instance), "the stages that are not part of the image"
    engine.collect_builds(age=0)
    assert untagged(client, instance) == []
    assert client.images(tag)


#: The first of these files that is there: of cgroups in version 2, or in version 1.
READ = "r() { cat /sys/fs/cgroup/$1 2>/dev/null || cat /sys/fs/cgroup/$2; }; "


def test_the_steps_of_a_build_are_bounded(
    client: docker.APIClient, instance: str, tag: str, tmp_path: Path
) -> None:
    settings = DockerSettings(build_cpus=0.5, build_memory=128 * 2**20, build_pids=77)
    step = (
        f"{READ}until [ $(r pids.max pids/pids.max) = 77 ]; do sleep 0.01; done; "
        "echo memory $(r memory.max memory/memory.limit_in_bytes); echo cpu $(r cpu.max cpu/cpu.cfs_quota_us)"
    )
    with closing(DockerEngine(settings, instance, tmp_path)) as engine:
        lines = build(engine, tag, {"Dockerfile": f"FROM {BASE_IMAGE}\nRUN {step}"})
    assert f"memory {128 * 2**20}" in lines
    assert any(line in ("cpu 50000", "cpu 50000 100000") for line in lines)


def test_builds_have_a_network_while_they_last(
    engine: DockerEngine, client: docker.APIClient, tag: str, instance: str
) -> None:
    held = threading.Thread(
        target=build, args=(engine, tag, {"Dockerfile": f"FROM {BASE_IMAGE}\nRUN echo {tag}; sleep 2"})
    )
    held.start()
    (step,) = wait_for(lambda: [one for one in client.containers() if tag in one["Command"]])
    assert list(step["NetworkSettings"]["Networks"]) == [f"{instance}.builds"]
    (network,) = client.networks(names=[f"{instance}.builds"])
    assert network["Options"]["com.docker.network.bridge.enable_icc"] == "false"
    assert network["Options"]["com.docker.network.bridge.name"].startswith("prca")
    held.join()
    assert client.networks(names=[f"{instance}.builds"]) == []


@pytest.mark.parametrize("written", ["LABEL {}", "ARG A=io.prichal\nLABEL {}", "ENV A=io.prichal\nLABEL {}"])
def test_labels_of_a_dockerfile_make_nothing_ours(
    engine: DockerEngine, client: docker.APIClient, instance: str, tag: str, written: str
) -> None:
    """Neither a step's container nor the image: not for the list of an app, not for its events."""
    key = "${A}" if "A=" in written else "io.prichal"
    pairs = f"{key}.instance={instance} {key}.app=app {key}.kind=MLComponent {key}.built-by=me"
    dockerfile = f"FROM {BASE_IMAGE}\n{written.format(pairs)}\nRUN echo {tag}; sleep 1\nRUN false"
    heard: list[str] = []
    ended = threading.Event()
    watching = threading.Thread(
        target=lambda: heard.extend(event.workload_id for event in engine.watch(ended.is_set))
    )
    watching.start()

    def fail() -> None:
        with suppress(Stalled):
            build(engine, tag, {"Dockerfile": dockerfile})

    failing = threading.Thread(target=fail)
    failing.start()
    wait_for(lambda: containers(client, tag))
    assert engine.observe(AppName("app")).workloads == ()
    assert engine.apps() == frozenset()
    failing.join()
    ended.set()
    watching.join()
    assert heard == []
    engine.collect_builds(age=0)
    assert untagged(client, instance) == [], "its steps are collected although it says that they are not ours"


def test_images_of_others_are_not_to_be_had(
    engine: DockerEngine, client: docker.APIClient, instance: str, tag: str
) -> None:
    """By the tag of a build, by an id, or by some digits of one; be it in a manifest, in FROM or in COPY."""
    build(engine, tag, {"Dockerfile": f"FROM {BASE_IMAGE}\nRUN echo secret of {tag}"})
    id = client.inspect_image(tag)["Id"]  # type: ignore[no-untyped-call]
    digits = id.removeprefix("sha256:")
    for name in (tag, id, digits, digits[:12], digits[:6]):
        with pytest.raises(Stalled) as caught:
            engine.pin(ExistingImage(name), None, ())
        assert caught.value.reason == "ImageRefused", name
        for dockerfile in (
            f"FROM {name}",
            f"ARG B={name}\nFROM $B AS x",
            f"FROM scratch\nCOPY --from={name} /etc /",
            f'FROM scratch\nCOPY --fr"om={name}" /etc /',
            f"FROM {BASE_IMAGE}\nFROM {name}",
        ):
            with pytest.raises(Stalled) as caught:
                build(engine, f"{tag}0", {"Dockerfile": dockerfile})
            # By its number, and there is none. Digits of an id may all be decimal, and are too many for a number.
            is_stage = name.isdecimal() and len(name) < 10 and "COPY" in dockerfile
            assert caught.value.reason == ("BuildFailed" if is_stage else "ImageRefused"), dockerfile


def test_instructions_of_a_base_image_are_looked_at(
    engine: DockerEngine, client: docker.APIClient, instance: str, tag: str
) -> None:
    image = f"{instance}-base:1"
    container = client.create_container(BASE_IMAGE, "true")
    client.commit(container, image.partition(":")[0], "1", changes="ONBUILD ADD http://127.0.0.1:1/ /x")
    client.remove_container(container)
    try:
        with pytest.raises(Stalled, match="ADD would fetch it with the rights of this host") as caught:
            build(engine, tag, {"Dockerfile": f"FROM {image}"})
        assert caught.value.reason == "BuildRefused"
    finally:
        client.remove_image(image)


def test_images_for_a_rollback_have_a_bound(
    client: docker.APIClient, instance: str, app: AppName, tmp_path: Path
) -> None:
    """The most wanted ones stay; layers that they share, and that the present image has, count once."""
    source, megabyte = make(BuildImage, "."), "0" * 2**20
    tags = [f"{instance}.local/{app}/web:{number}" for number in range(4)]
    with closing(DockerEngine(DockerSettings(kept_images=5 * 2**19), instance, tmp_path)) as engine:
        for number, tag in enumerate(tags):
            context = {
                "Dockerfile": f'FROM scratch\nCMD ["/none"]\nCOPY shared /shared\nCOPY own{number} /own\n',
                "shared": megabyte * 2,
                f"own{number}": f"{number}{megabyte}",
            }
            build(engine, tag, context)
        *earlier, present = (engine.pin(source, tag, ()).deploy for tag in tags)
        engine.prune_images(app, 0, frozenset([present]), tuple(reversed(earlier)))
        assert [engine.pin(source, tag, ()).present for tag in tags] == [False, True, True, True]
    with closing(DockerEngine(DockerSettings(kept_images=0), instance, tmp_path)) as engine:
        engine.prune_images(app, 0, frozenset([present]), tuple(reversed(earlier)))
        assert [engine.pin(source, tag, ()).present for tag in tags] == [False, False, False, True]
        engine.prune_images(app, 0)


def test_images_of_one_app_have_a_bound(
    client: docker.APIClient, instance: str, app: AppName, tmp_path: Path
) -> None:
    """A build after which they would take more fails and leaves no image; layers that several have count once; the
    images of others count for nothing."""
    megabyte = "0" * 2**20
    settings = DockerSettings(images_per_app=5 * 2**20)

    def context(*files: str) -> dict[str, str]:
        copies = "".join(f"COPY {name} /{name}\n" for name in files)
        return {"Dockerfile": f'FROM scratch\nCMD ["/none"]\n{copies}', **{n: n + megabyte for n in files}}

    def used(tag: str) -> None:
        made = client.create_container(tag, labels={labels.INSTANCE: instance, labels.APP: app})
        assert made["Id"]

    with closing(DockerEngine(settings, instance, tmp_path)) as engine:
        of_app = f"{instance}.local/{app}/web"
        build(engine, f"{of_app}:1", context("a", "b", "c"))
        used(f"{of_app}:1")
        build(engine, f"{instance}.local/{app}-2/web:1", context("d", "e", "f"))
        build(engine, f"{of_app}:2", context("a", "b", "c", "g"))
        used(f"{of_app}:2")
        sizes = engine.image_sizes()
        assert 4 * 2**20 <= sizes[app].built < 5 * 2**20
        assert 3 * 2**20 <= sizes[AppName(f"{app}-2")].built < 4 * 2**20
        with pytest.raises(Stalled, match=r"docker\.imagesPerApp") as caught:
            build(engine, f"{of_app}:3", context("h", "i"))
        assert caught.value.reason == "ImageTooLarge"
        assert not engine.pin(make(BuildImage, "."), f"{of_app}:3", ()).present
        assert engine.image_sizes() == sizes


@pytest.mark.parametrize(
    ("steps", "written"),
    [
        ("VOLUME /data\nRUN dd if=/dev/zero of=/data/big bs=1M count=64; sleep 600", "in a volume of a step"),
        ("COPY a /1\nCOPY a /2\nCOPY a /3\nCOPY a /4\nCOPY a /5\nRUN sleep 600", "in layers"),
        (
            "RUN dd if=/dev/zero of=/a bs=1M count=20\nRUN dd if=/dev/zero of=/b bs=1M count=20; sleep 600",
            "in both",
        ),
    ],
)
def test_a_build_that_writes_too_much_is_ended(
    client: docker.APIClient, instance: str, tag: str, tmp_path: Path, steps: str, written: str
) -> None:
    settings = DockerSettings(build_disk=30 * 2**20)
    files = {"Dockerfile": f"FROM {BASE_IMAGE}\nRUN echo {tag}\n{steps} # {tag}\n", "a": "0" * 8 * 2**20}
    with closing(DockerEngine(settings, instance, tmp_path)) as engine:
        with pytest.raises(Stalled, match=r"docker\.buildDisk") as caught:
            build(engine, tag, files)
        assert caught.value.reason == "BuildTooLarge"
        wait_for(lambda: containers(client, tag) == [])
        assert not engine.pin(make(BuildImage, "."), tag, ()).present
        assert engine.image_sizes() == {}, "no build is under way"


def test_what_failed_builds_have_left_counts(
    client: docker.APIClient, instance: str, app: AppName, tmp_path: Path
) -> None:
    """Until it is collected: else many of them together fill the disk."""
    settings = DockerSettings(build_disk=30 * 2**20)
    tag = f"{instance}.local/{app}/web"

    def dockerfile(name: str, end: str) -> dict[str, str]:
        return {
            "Dockerfile": f"FROM {BASE_IMAGE}\nRUN dd if=/dev/zero of=/{name} bs=1M count=20\nRUN {end}\n"
        }

    with closing(DockerEngine(settings, instance, tmp_path)) as engine:
        with pytest.raises(Stalled) as failed:
            build(engine, f"{tag}:1", dockerfile("a", "exit 3"))
        assert failed.value.reason == "BuildFailed"
        with pytest.raises(Transient, match="that failed builds of the app have left") as caught:
            build(engine, f"{tag}:2", dockerfile("b", "sleep 600"))
        assert caught.value.reason == "BuildTooLarge"
        build(engine, f"{instance}.local/{app}-2/web:1", dockerfile("c", "true"))
        engine.collect_builds(0.0)
        build(engine, f"{tag}:2", dockerfile("b", "true"))


def test_a_step_that_imitates_the_builder_harms_only_its_own_build(
    client: docker.APIClient, instance: str, tag: str, tmp_path: Path
) -> None:
    """It names a container and an image of others."""
    other = client.create_container(BASE_IMAGE, ["sleep", "600"])["Id"]
    client.start(other)
    lines = f"echo ' ---> Running in {other[:12]}'; echo ' ---> 0123456789ab'"
    dockerfile = (
        f"FROM {BASE_IMAGE}\nRUN {lines}; dd if=/dev/zero of=/big bs=1M count=64; sleep 600 # {tag}\n"
    )
    try:
        with closing(DockerEngine(DockerSettings(build_disk=30 * 2**20), instance, tmp_path)) as engine:
            with pytest.raises(Stalled, match=r"docker\.buildDisk"):
                build(engine, tag, {"Dockerfile": dockerfile})
            wait_for(lambda: containers(client, tag) == [])
        assert client.inspect_container(other)["State"]["Running"]
    finally:
        client.remove_container(other, force=True)
