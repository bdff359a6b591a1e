"""What every `Engine` promises, as one suite. A subclass gives the fixtures `engine`, `script`, `image` and `app`;
`script` does to containers what a person or a crash would do."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol

import pytest

from controller.domain.apps.desired import BuildInput, ModelMount, Workload
from controller.domain.apps.observed import (
    ImageOrigin,
    ImagePin,
    ObservedApp,
    ObservedWorkload,
    WorkloadState,
)
from controller.domain.apps.spec import BuildImage, ExistingImage
from controller.domain.errors import Stalled, Superseded, Transient
from controller.domain.names import AppName, ComponentName, build_tag
from controller.domain.volumes import StagingArea, Volume
from controller.ports import Engine, EngineEvent
from tests.support.engines import context_of, name_of, own_server_workload
from tests.support.specs import make
from tests.support.waiting import wait_for


class Script(Protocol):
    """Faults, done for real."""

    instance: str

    def kill(self, workload_id: str) -> None:
        """End the workload's process with exit code 137."""

    def vanish(self, workload_id: str) -> None: ...

    def cut_off(self, workload_id: str) -> None:
        """Take the container off its network while it runs."""

    def write(self, workload_id: str, size: int) -> None:
        """A process in the container writes so many bytes."""

    def work(self, workload_id: str) -> None:
        """A process in the container computes for a moment, and takes memory."""

    def create(self, workload: Workload, name: str) -> str:
        """Make the container and do not start it."""

    def take_name(self, name: str) -> str:
        """A foreign container of that name; its id."""

    def stage(self, volume: Volume) -> None:
        """Put a folder there."""

    def stranger(self) -> Engine:
        """The same engine, seen by another instance of the controller."""


class EngineContract:
    def one(self, engine: Engine, app: AppName) -> ObservedWorkload:
        (workload,) = engine.observe(app).workloads
        return workload

    def started(self, engine: Engine, script: Script, app: AppName, image: str, **more: object) -> Workload:
        workload = replace(own_server_workload(image, app), **more)  # type: ignore[arg-type]
        engine.ensure_network(app)
        engine.start(workload, name_of(workload, script.instance))
        return workload

    # --- observe -----------------------------------------------------------------------------------------------

    def test_ping_names_the_engine(self, engine: Engine) -> None:
        assert engine.ping()

    def test_an_unknown_app_is_empty(self, engine: Engine, app: AppName) -> None:
        assert engine.observe(app) == ObservedApp(app)
        assert app not in engine.apps()

    def test_a_started_workload_is_seen_with_its_address(
        self, engine: Engine, script: Script, app: AppName, image: str
    ) -> None:
        workload = self.started(engine, script, app, image)
        seen = self.one(engine, app)
        assert (seen.component, seen.fingerprint, seen.revision) == (
            workload.component,
            workload.fingerprint,
            workload.revision,
        )
        assert (seen.name, seen.replica, seen.port) == (name_of(workload, script.instance), 0, 8002)
        assert seen.state is WorkloadState.RUNNING
        assert seen.address
        assert seen.endpoint == f"{seen.address}:8002"
        assert seen.exit_code is None
        assert engine.apps() >= {app}

    def test_workloads_are_sorted_by_name(
        self, engine: Engine, script: Script, app: AppName, image: str
    ) -> None:
        for component in ("web", "api"):
            self.started(engine, script, app, image, component=ComponentName(component))
        assert [w.component for w in engine.observe(app).workloads] == ["api", "web"]

    def test_another_instance_sees_nothing_of_it(
        self, engine: Engine, script: Script, app: AppName, image: str
    ) -> None:
        self.started(engine, script, app, image)
        stranger = script.stranger()
        assert stranger.observe(app) == ObservedApp(app)
        assert app not in stranger.apps()

    def test_what_was_killed_is_stopped_with_its_exit_code(
        self, engine: Engine, script: Script, app: AppName, image: str
    ) -> None:
        self.started(engine, script, app, image)
        script.kill(self.one(engine, app).id)
        seen = wait_for(lambda: self.one(engine, app), lambda w: w.state is WorkloadState.STOPPED)
        assert (seen.exit_code, seen.address, seen.endpoint, seen.oom_killed) == (137, None, None, False)

    # --- networks ----------------------------------------------------------------------------------------------

    def test_a_network_is_made_once_and_removed_once(self, engine: Engine, app: AppName) -> None:
        engine.ensure_network(app)
        engine.ensure_network(app)
        assert engine.observe(app).network
        assert app in engine.apps()
        engine.remove_network(app)
        engine.remove_network(app)
        assert engine.observe(app) == ObservedApp(app)
        assert app not in engine.apps()

    def test_a_network_in_use_stays(self, engine: Engine, script: Script, app: AppName, image: str) -> None:
        self.started(engine, script, app, image)
        with pytest.raises(Transient) as caught:
            engine.remove_network(app)
        assert caught.value.reason == "NetworkInUse"
        assert engine.observe(app).network

    # --- start -------------------------------------------------------------------------------------------------

    def test_starting_twice_starts_once(
        self, engine: Engine, script: Script, app: AppName, image: str
    ) -> None:
        workload = self.started(engine, script, app, image)
        before = self.one(engine, app)
        engine.start(replace(workload, revision="later"), before.name)
        assert self.one(engine, app) == before

    def test_what_was_created_and_never_started_is_adopted(
        self, engine: Engine, script: Script, app: AppName, image: str
    ) -> None:
        workload = own_server_workload(image, app)
        name = name_of(workload, script.instance)
        engine.ensure_network(app)
        made = script.create(workload, name)
        assert self.one(engine, app).state is WorkloadState.CREATED
        engine.start(workload, name)
        seen = self.one(engine, app)
        assert (seen.id, seen.state) == (made, WorkloadState.RUNNING)

    def test_what_has_exited_is_made_anew(
        self, engine: Engine, script: Script, app: AppName, image: str
    ) -> None:
        workload = self.started(engine, script, app, image)
        dead = self.one(engine, app)
        script.kill(dead.id)
        wait_for(lambda: self.one(engine, app), lambda w: w.state is WorkloadState.STOPPED)
        engine.start(workload, dead.name)
        seen = self.one(engine, app)
        assert seen.state is WorkloadState.RUNNING
        assert seen.id != dead.id

    def test_a_foreign_container_keeps_its_name(
        self, engine: Engine, script: Script, app: AppName, image: str
    ) -> None:
        workload = own_server_workload(image, app)
        name = name_of(workload, script.instance)
        script.take_name(name)
        engine.ensure_network(app)
        with pytest.raises(Stalled, match=name) as caught:
            engine.start(workload, name)
        assert caught.value.reason == "NameTaken"
        assert engine.observe(app).workloads == ()

    def test_another_version_under_the_name_is_not_adopted(
        self, engine: Engine, script: Script, app: AppName, image: str
    ) -> None:
        workload = self.started(engine, script, app, image)
        before = self.one(engine, app)
        with pytest.raises(Stalled) as caught:
            engine.start(replace(workload, fingerprint="1:other"), before.name)
        assert caught.value.reason == "NameTaken"
        assert self.one(engine, app) == before

    def test_a_missing_image_leaves_nothing(self, engine: Engine, script: Script, app: AppName) -> None:
        engine.ensure_network(app)
        workload = own_server_workload("nobody.invalid/nothing@sha256:" + 64 * "a", app)
        with pytest.raises(Transient) as caught:
            engine.start(workload, name_of(workload, script.instance))
        assert caught.value.reason == "ImageGone"
        assert engine.observe(app).workloads == ()

    def test_a_missing_network_leaves_nothing(
        self, engine: Engine, script: Script, app: AppName, image: str
    ) -> None:
        workload = own_server_workload(image, app)
        with pytest.raises(Transient) as caught:
            engine.start(workload, name_of(workload, script.instance))
        assert caught.value.reason == "NetworkGone"
        assert engine.observe(app) == ObservedApp(app)

    def test_a_missing_model_leaves_nothing(
        self, engine: Engine, script: Script, app: AppName, image: str
    ) -> None:
        """And one that is there does not stand in the way."""
        engine.ensure_network(app)
        model = ModelMount(Volume(StagingArea.MODELS, (64 * "a",)), "weights")
        workload = replace(own_server_workload(image, app), model=model)
        with pytest.raises(Transient) as caught:
            engine.start(workload, name_of(workload, script.instance))
        assert caught.value.reason == "MountGone"
        assert engine.observe(app).workloads == ()
        script.stage(model.volume)
        engine.start(workload, name_of(workload, script.instance))
        assert self.one(engine, app).state is WorkloadState.RUNNING

    def test_several_workers_start_at_once(
        self, engine: Engine, script: Script, app: AppName, image: str
    ) -> None:
        engine.ensure_network(app)
        workloads = [own_server_workload(image, app, replica=replica) for replica in range(3)]
        with ThreadPoolExecutor(3) as pool:
            for future in [pool.submit(engine.start, w, name_of(w, script.instance)) for w in workloads]:
                future.result()
        seen = engine.observe(app).workloads
        assert sorted(w.replica for w in seen) == [0, 1, 2]
        assert len({w.address for w in seen}) == 3

    # --- remove ------------------------------------------------------------------------------------------------

    def test_what_a_container_writes_is_counted(
        self, engine: Engine, script: Script, app: AppName, image: str
    ) -> None:
        self.started(engine, script, app, image)
        workload = self.one(engine, app)
        (before,) = (each for each in engine.scratch() if each.app == app)
        script.write(workload.id, 3 * 2**20)
        (after,) = (each for each in engine.scratch() if each.app == app)
        assert (after.workload_id, after.name, after.component) == (
            workload.id,
            workload.name,
            workload.component,
        )
        assert 0 <= after.size - before.size - 3 * 2**20 < 2**20, "the engine may count what folders take"
        engine.remove(workload.id, 0)
        assert all(each.app != app for each in engine.scratch())

    def test_what_a_container_uses_is_measured(
        self, engine: Engine, script: Script, app: AppName, image: str
    ) -> None:
        self.started(engine, script, app, image)
        workload = self.one(engine, app)

        def use() -> tuple[float, float]:
            (found,) = (each for each in engine.use() if each.app == app)
            assert (found.workload_id, found.component) == (workload.id, workload.component)
            assert (found.gpu, found.gpu_memory) == (None, None)
            return found.cpu, found.memory

        before, _ = use()
        script.work(workload.id)
        wait_for(lambda: use()[0] > before and use()[1] > 0)
        engine.remove(workload.id, 0)
        assert all(each.app != app for each in engine.use())

    def test_gpus_of_containers_are_known_to_all(
        self, engine: Engine, script: Script, app: AppName, image: str
    ) -> None:
        """An engine without GPUs makes the container and cannot start it; what it cannot start, it removes."""
        self.started(engine, script, app, image)
        assert all(lease.app != app for lease in engine.held_gpus())

    def test_removing_is_idempotent(self, engine: Engine, script: Script, app: AppName, image: str) -> None:
        self.started(engine, script, app, image)
        seen = self.one(engine, app)
        engine.remove(seen.id, grace=5)
        engine.remove(seen.id, grace=5)
        assert engine.observe(app) == ObservedApp(app, network=True)

    def test_what_is_not_ours_is_not_removed(self, engine: Engine, script: Script, app: AppName) -> None:
        foreign = script.take_name(f"{app}-foreign")
        with pytest.raises(Stalled) as caught:
            engine.remove(foreign, grace=0)
        assert caught.value.reason == "NotOurs"

    # --- logs --------------------------------------------------------------------------------------------------

    def test_logs_of_a_vanished_workload_say_so(
        self, engine: Engine, script: Script, app: AppName, image: str
    ) -> None:
        self.started(engine, script, app, image)
        seen = self.one(engine, app)
        script.vanish(seen.id)
        with pytest.raises(Transient) as caught:
            engine.logs(seen.id, tail=10)
        assert caught.value.reason == "WorkloadGone"
        with pytest.raises(Transient) as caught:
            list(engine.log_reader(seen.id, "").unread())
        assert caught.value.reason == "WorkloadGone"

    def test_the_containers_whose_logs_can_be_read(
        self, engine: Engine, script: Script, app: AppName, image: str
    ) -> None:
        self.started(engine, script, app, image)
        seen = self.one(engine, app)
        (found,) = (each for each in engine.logged() if each.app == app)
        assert (found.id, found.component, found.created) == (seen.id, seen.component, seen.created)
        script.kill(seen.id)
        assert [each.id for each in engine.logged() if each.app == app] == [seen.id], "it has ended"
        assert isinstance(list(engine.log_reader(seen.id, "").unread()), list)

    def test_the_end_of_a_log_is_read_before_its_container_is_gone(
        self, engine: Engine, script: Script, app: AppName, image: str
    ) -> None:
        self.started(engine, script, app, image)
        seen = self.one(engine, app)
        found: list[str] = []
        engine.remove(
            seen.id, 0, lambda: found.extend(each.id for each in engine.logged() if each.app == app)
        )
        assert found == [seen.id]
        assert [each for each in engine.logged() if each.app == app] == []

    # --- events ------------------------------------------------------------------------------------------------

    def test_watching_tells_of_a_death_and_ends_when_asked(
        self, engine: Engine, script: Script, app: AppName, image: str
    ) -> None:
        self.started(engine, script, app, image)
        seen = self.one(engine, app)
        events: list[EngineEvent] = []
        shown: list[WorkloadState] = []
        died, stop = threading.Event(), threading.Event()

        def watch() -> None:
            for event in engine.watch(stop.is_set):
                events.append(event)
                if event.action == "die":
                    shown.extend(w.state for w in engine.observe(app).workloads if w.id == event.workload_id)
                    died.set()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        # The watcher sees what happens after it began; the first kill may come before that, a later one cannot.
        while not died.wait(0.5):
            self.started(engine, script, app, image, fingerprint=seen.fingerprint)
            script.kill(self.one(engine, app).id)
        stop.set()
        watcher.join(timeout=30)
        assert not watcher.is_alive()
        death = next(event for event in events if event.action == "die")
        assert (death.app, death.component) == (app, "web")
        assert death.workload_id
        assert set(shown) == {WorkloadState.STOPPED}, "a pass that follows at once must see it"

    def test_watching_tells_of_a_network_that_was_cut(
        self, engine: Engine, script: Script, app: AppName, image: str
    ) -> None:
        workload = self.started(engine, script, app, image)
        told, stop = threading.Event(), threading.Event()
        events: list[EngineEvent] = []

        def watch() -> None:
            for event in engine.watch(stop.is_set):
                events.append(event)
                told.set()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        seen = self.one(engine, app)
        while not told.is_set():  # the watcher sees what happens after it began
            script.cut_off(seen.id)
            if told.wait(0.5):
                break
            engine.remove(seen.id, grace=0)
            engine.start(workload, name_of(workload, script.instance))
            seen = self.one(engine, app)
        stop.set()
        watcher.join(timeout=30)
        assert (events[0].app, events[0].component) == (app, "web")
        assert (events[0].action, events[0].workload_id) == ("disconnect", seen.id)
        assert self.one(engine, app).endpoint is None

    def test_what_the_engine_was_asked_to_remove_is_no_drift(
        self, engine: Engine, script: Script, app: AppName, image: str
    ) -> None:
        told: list[str] = []
        removed: list[str] = []
        lost: list[str] = []
        seen, stop = threading.Event(), threading.Event()

        def watch() -> None:
            for event in engine.watch(stop.is_set):
                told.append(event.workload_id)
                if event.workload_id in lost:
                    seen.set()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        # What is lost after a removal is told after it: once a loss was seen, the removal would have been, too.
        while not seen.wait(0.5):
            self.started(engine, script, app, image)
            removed.append(self.one(engine, app).id)
            engine.remove(removed[-1], grace=0)
            self.started(engine, script, app, image)
            lost.append(self.one(engine, app).id)
            script.vanish(lost[-1])
        stop.set()
        watcher.join(timeout=30)
        assert not watcher.is_alive()
        assert not set(told) & set(removed)

    # --- images ------------------------------------------------------------------------------------------------

    def test_a_local_image_is_used_as_it_is(self, engine: Engine, image: str) -> None:
        pin = engine.pin(ExistingImage(image), None, ())
        assert (pin.origin, pin.present) == (ImageOrigin.LOCAL, True)
        assert engine.pin(ExistingImage(image), None, ()) == pin

    def test_a_digest_is_pinned_already(self, engine: Engine) -> None:
        reference = "nobody.invalid/nothing@sha256:" + 64 * "a"
        pin = engine.pin(ExistingImage(reference), None, ())
        assert (pin.deploy, pin.origin, pin.present) == (reference, ImageOrigin.REGISTRY, False)

    def test_a_build_is_done_once_and_logged(self, engine: Engine, script: Script, image: str) -> None:
        source, tag = make(BuildImage, "."), f"{script.instance}.local/app/web:1"
        assert engine.pin(source, tag, ()) == ImagePin(tag, ImageOrigin.BUILD, present=False)
        lines: list[str] = []
        context = context_of({"Dockerfile": f"FROM {image}\nENV A=b\n"})
        engine.build(tag, BuildInput("c0ffee", source), context, lines.append)
        assert any("FROM" in line for line in lines)
        pin = engine.pin(source, tag, ())
        assert (pin.origin, pin.present) == (ImageOrigin.BUILD, True)
        assert "sha256:" in pin.deploy  # by content: a tag could be moved

    def test_a_build_that_is_not_wanted_any_more_is_ended(
        self, engine: Engine, script: Script, image: str
    ) -> None:
        source, tag = make(BuildImage, "."), f"{script.instance}.local/app/web:2"
        context = context_of({"Dockerfile": f"FROM {image}\nRUN sleep 600\n"})
        with pytest.raises(Superseded):
            engine.build(tag, BuildInput("c0ffee", source), context, lambda line: None, lambda: True)
        assert not engine.pin(source, tag, ()).present

    def test_what_was_made_here_is_asked_of_no_registry(self, engine: Engine, script: Script) -> None:
        built = f"{script.instance}.local/app/web:gone"
        for call in (
            lambda: engine.pull(AppName("demo"), "sha256:" + "0" * 64, ()),
            lambda: engine.pull(AppName("demo"), built, ()),
            lambda: engine.pin(ExistingImage("sha256:" + "0" * 64), None, ()),
        ):
            with pytest.raises(Stalled) as caught:
                call()
            assert caught.value.reason == "ImageNotFound"
            assert "on this host" in caught.value.message

    def test_old_builds_are_removed_but_for_the_newest_and_those_in_use(
        self, engine: Engine, script: Script, app: AppName, image: str
    ) -> None:
        source = make(BuildImage, ".")
        tags = [f"{script.instance}.local/{app}/web:{number}" for number in range(4)]
        other = f"{script.instance}.local/{app}-other/web:0"
        for tag in [*tags, other]:
            context = context_of({"Dockerfile": f"FROM {image}\nENV TAG={tag}\n"})
            engine.build(tag, BuildInput("c0ffee", source), context, lambda _: None)
        self.started(engine, script, app, engine.pin(source, tags[0], ()).deploy)
        asleep = engine.pin(source, tags[1], ()).deploy
        engine.prune_images(app, keep=1, spare=frozenset([asleep]))
        present = [engine.pin(source, tag, ()).present for tag in tags]
        assert present[0]
        assert present[1]
        assert sum(present[2:]) <= 1  # which one is the newest, is told by times in whole seconds
        assert engine.pin(source, other, ()).present

    def test_images_of_earlier_revisions_are_kept(
        self, engine: Engine, script: Script, app: AppName, image: str
    ) -> None:
        source = make(BuildImage, ".")
        tags = [f"{script.instance}.local/{app}/web:{number}" for number in range(3)]
        for tag in tags:
            context = context_of({"Dockerfile": f"FROM {image}\nENV TAG={tag}\n"})
            engine.build(tag, BuildInput("c0ffee", source), context, lambda _: None)
        earlier = tuple(engine.pin(source, tag, ()).deploy for tag in (tags[1], tags[0]))
        engine.prune_images(app, 1, frozenset([engine.pin(source, tags[2], ()).deploy]), earlier)
        assert [engine.pin(source, tag, ()).present for tag in tags] == [True] * 3
        engine.prune_images(app, 0, frozenset([engine.pin(source, tags[2], ()).deploy]), earlier[:1])
        assert [engine.pin(source, tag, ()).present for tag in tags] == [False, True, True]


class ClusterScript(Script, Protocol):
    """What happens to workloads on an engine that places them on nodes and decides later."""

    def pend(self, component: str, detail: str) -> None:
        """From now on it is accepted, and does not run."""

    def admit(self, workload_id: str) -> None:
        """A node has room for it."""

    def refuse(self, workload_id: str, detail: str) -> None:
        """The engine will not run what it had accepted."""

    def lose(self, workload_id: str, detail: str) -> None:
        """Its node does not answer any more."""

    def find_again(self, workload_id: str) -> None:
        """The node answers again."""

    def forget(self, image: str) -> None:
        """No node has the image any more, the registry has it."""


class ClusterContract(EngineContract):
    """What an engine promises beside that which accepts workloads before it runs them, and whose nodes may be
    lost."""

    # --- images ------------------------------------------------------------------------------------------------

    def test_a_build_is_known_by_its_digest_wherever_it_is(
        self, engine: Engine, script: ClusterScript, app: AppName
    ) -> None:
        """All nodes must be able to pull it."""
        tag = build_tag(script.instance, app, 32 * "a")
        assert engine.pin(make(BuildImage, "."), tag, ()).to_build
        context = context_of({"Dockerfile": "FROM scratch\n"})
        engine.build(tag, BuildInput("c0ffee", make(BuildImage, ".")), context, lambda line: None)
        pin = engine.pin(make(BuildImage, "."), tag, ())
        assert "@sha256:" in pin.deploy
        assert not pin.to_build
        script.forget(pin.deploy)
        found = engine.pin(make(BuildImage, "."), tag, ())
        assert (found.deploy, found.to_build) == (pin.deploy, False)
        if not found.present:
            engine.pull(AppName("demo"), found.deploy, ())
        assert engine.pin(make(BuildImage, "."), tag, ()).present

    # --- accepted, and not running yet -------------------------------------------------------------------------

    def pending(self, engine: Engine, script: ClusterScript, app: AppName, image: str) -> Workload:
        script.pend("web", "0/2 nodes have enough memory")
        return self.started(engine, script, app, image)

    def test_what_was_accepted_says_why_it_does_not_run(
        self, engine: Engine, script: ClusterScript, app: AppName, image: str
    ) -> None:
        self.pending(engine, script, app, image)
        seen = self.one(engine, app)
        assert (seen.state, seen.detail) == (WorkloadState.PENDING, "0/2 nodes have enough memory")
        assert (seen.address, seen.endpoint, seen.exit_code) == (None, None, None)

    def test_starting_what_is_pending_again_is_idempotent(
        self, engine: Engine, script: ClusterScript, app: AppName, image: str
    ) -> None:
        workload = self.pending(engine, script, app, image)
        before = self.one(engine, app)
        engine.start(workload, before.name)
        assert self.one(engine, app) == before

    def test_what_was_pending_runs(
        self, engine: Engine, script: ClusterScript, app: AppName, image: str
    ) -> None:
        self.pending(engine, script, app, image)
        before = self.one(engine, app)
        script.admit(before.id)
        seen = wait_for(lambda: self.one(engine, app), lambda w: w.state is WorkloadState.RUNNING)
        assert (seen.id, seen.detail) == (before.id, "")
        assert seen.address

    def test_what_was_accepted_may_be_refused_later(
        self, engine: Engine, script: ClusterScript, app: AppName, image: str
    ) -> None:
        workload = self.pending(engine, script, app, image)
        before = self.one(engine, app)
        script.refuse(before.id, "the volume does not exist")
        seen = wait_for(lambda: self.one(engine, app), lambda w: w.state is WorkloadState.REFUSED)
        assert (seen.detail, seen.address) == ("the volume does not exist", None)
        engine.start(workload, before.name)
        assert self.one(engine, app).id != before.id, "it is made again, like what has exited"

    def test_what_is_pending_can_be_removed(
        self, engine: Engine, script: ClusterScript, app: AppName, image: str
    ) -> None:
        self.pending(engine, script, app, image)
        engine.remove(self.one(engine, app).id, grace=0)
        assert engine.observe(app).workloads == ()

    # --- lost --------------------------------------------------------------------------------------------------

    def test_a_workload_of_a_lost_node_is_lost(
        self, engine: Engine, script: ClusterScript, app: AppName, image: str
    ) -> None:
        self.started(engine, script, app, image)
        script.lose(self.one(engine, app).id, "node-2 has not been heard of for 40 s")
        seen = wait_for(lambda: self.one(engine, app), lambda w: w.state is WorkloadState.LOST)
        assert seen.detail == "node-2 has not been heard of for 40 s"
        assert (seen.address, seen.endpoint) == (None, None)

    def test_the_loss_is_told(self, engine: Engine, script: ClusterScript, app: AppName, image: str) -> None:
        self.started(engine, script, app, image)
        id = self.one(engine, app).id
        stop = threading.Event()
        events = engine.watch(stop.is_set)
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(next, events)
            while not first.done():  # the watcher sees what happens after it began
                script.lose(id, "")
                if not first.done():
                    script.find_again(id)
                stop.wait(0.05)
            stop.set()
        told = first.result()
        assert (told.app, told.component, told.workload_id) == (app, "web", id)
        assert told.action in ("lost", "found")

    def test_what_is_lost_gives_its_name_up(
        self, engine: Engine, script: ClusterScript, app: AppName, image: str
    ) -> None:
        workload = self.started(engine, script, app, image)
        before = self.one(engine, app)
        script.lose(before.id, "")
        engine.remove(before.id, grace=5)
        engine.start(workload, before.name)
        seen = self.one(engine, app)
        assert seen.state is WorkloadState.RUNNING
        assert seen.id != before.id

    def test_a_node_that_comes_back_brings_its_workloads(
        self, engine: Engine, script: ClusterScript, app: AppName, image: str
    ) -> None:
        self.started(engine, script, app, image)
        before = self.one(engine, app)
        script.lose(before.id, "")
        script.find_again(before.id)
        seen = wait_for(lambda: self.one(engine, app), lambda w: w.state is WorkloadState.RUNNING)
        assert (seen.id, seen.detail) == (before.id, "")
        assert seen.address
