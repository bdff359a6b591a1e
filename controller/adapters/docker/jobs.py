"""`DockerJobs`: containers that run to their end, behind the port `Jobs`.

Called by the runner, one thread for each attempt and another for its log. Only what cannot change is kept
between calls; a container is inspected before anything is done to it, and what is not a job of ours is left
alone.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import docker.errors
import requests.exceptions
from docker.types.daemon import CancellableStream

from controller.adapters.docker.connection import STOP_PAUSE, CachedClient, EngineConnection, closing_on_stop
from controller.adapters.docker.egress import Egress
from controller.adapters.docker.error_rules import COMMAND_NOT_FOUND, NAME_TAKEN, NOT_OURS, translated
from controller.adapters.docker.job_log import JobLog, asking
from controller.adapters.docker.job_mapping import (
    JOBS,
    engine_since,
    interrupted,
    is_attempt,
    is_going,
    is_job,
    job_config,
    may_be_interrupted,
    observed_job,
    programs,
)
from controller.adapters.docker.job_tap import AttachStreams
from controller.adapters.docker.mapping import image_environment, policy_of
from controller.adapters.docker.networks import Networks
from controller.adapters.docker.scratch import written
from controller.adapters.staging import StagingFolders
from controller.config import DockerSettings
from controller.domain import labels
from controller.domain.errors import MountMismatch, Transient
from controller.domain.localizable import Localizable
from controller.domain.names import AppName
from controller.domain.reasons import Reason
from controller.ports import Job, JobState, ObservedJob

log = logging.getLogger(__name__)

Json = dict[str, Any]

#: Seconds before another attempt if a name is taken but there is no such container: the engine reserves the
#: name while it creates or removes one.
NAME_PAUSES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 0.0)
#: Seconds after which a wait starts again, in case an end was missed.
WAIT = 10.0
#: Seconds before a broken stream is requested again.
ERROR_PAUSE = 1.0


class ContainerLost(Transient):
    """The container of a job was removed from outside."""

    def __init__(self, id: str) -> None:
        super().__init__(Reason.CONTAINER_LOST, f"container {id[:12]} was removed from outside")


class DockerJobs:
    """Thread-safe. Connects on first use."""

    def __init__(
        self, settings: DockerSettings, instance: str, staging: StagingFolders | None = None
    ) -> None:
        self._settings = settings
        self._instance = instance
        self._staging = staging or StagingFolders()
        self._connection = EngineConnection(settings.host, settings.timeout)
        self._networks = Networks(self._connection, instance, Egress(self._connection, settings, instance))
        self._taps = AttachStreams(self._connection)
        self._found: set[tuple[str, ...]] = set()  # (image id, paths) where a program was found

    def close(self) -> None:
        """Close all connections. Jobs can be used again: it reconnects."""
        self._taps.close()
        self._connection.close()

    # --- make and start ----------------------------------------------------------------------------------------

    def create(self, job: Job) -> ObservedJob:
        doing = Localizable("cannot create {name}", name=job.name)
        sources = [self._staging.path(mount.volume) for mount in job.mounts]
        self._networks.ensure(job.app)
        with translated(doing, tuple(value for _, value in job.env)):
            policy = policy_of(self._settings, self._instance, self._connection.has_init)
            image: Json = self._connection.client.inspect_image(job.image)  # type: ignore[no-untyped-call]
            config = job_config(job, policy, image_environment(image), sources)
            for pause in NAME_PAUSES:
                found = self._made(config, job) or self._inspect(job.name)
                if found is None or is_going(found):
                    time.sleep(pause)
                    continue
                if not is_attempt(self._instance, job, found):
                    raise NAME_TAKEN.error(doing, Localizable("another container has that name"))
                return observed_job(found)
        raise Transient(
            Reason.NAME_BUSY,
            Localizable("{doing}: a container of that name is still being removed", doing=doing),
        )

    def _made(self, config: Json, job: Job) -> Json | None:
        """Create a container; return None if the name is taken."""
        created = self._connection.create(config, job.name)
        return self._inspect(created) if created else None

    def prepare(self, app: AppName) -> None:
        self._networks.ensure(app)

    def has_image(self, reference: str) -> bool:
        with translated(Localizable("cannot look up image {reference}", reference=reference)):
            try:
                self._connection.client.inspect_image(reference)  # type: ignore[no-untyped-call]
            except docker.errors.ImageNotFound:
                return False
        return True

    def start(self, id: str) -> ObservedJob:
        doing = Localizable("cannot start container {id}", id=id[:12])
        with translated(doing):
            details = self._present(id)
            job = observed_job(details)
            if job.state is not JobState.CREATED:
                return self._judged(job)
            self._require_program(details, doing)
            self._taps.attach(id)
            try:
                self._start(job, details)
            except BaseException as error:
                self._taps.discard(id)
                if isinstance(error, docker.errors.APIError):
                    self._blame_mounts(details, error)
                raise
            return self._judged(observed_job(self._present(id)))

    def _start(self, job: ObservedJob, details: Json) -> None:
        try:
            self._connection.client.start(job.id)
        except docker.errors.NotFound:  # the network was removed with the app's last workload
            self._networks.ensure(job.app)
            self._connection.client.start(job.id)

    def _require_program(self, details: Json, doing: str) -> None:
        """Raise Stalled `CommandNotFound` before anything runs. With an init process the start itself
        succeeds, and the container ends with 127, which any command may return.
        """
        paths = programs(details)
        known = (details["Image"], *paths)
        if not details["HostConfig"]["Init"] or known in self._found:
            return
        try:
            found = any(self._connection.has_file(details["Id"], path) for path in paths)
        except requests.exceptions.HTTPError as error:
            log.debug("the engine cannot inspect the files of %s: %s", details["Name"], error)
            return  # the start itself gives a better message
        if not found:
            raise COMMAND_NOT_FOUND.error(
                doing,
                Localizable(
                    "{image} has no {path}",
                    image=details["Config"]["Image"],
                    path=details["Path"],
                ),
            )
        self._found.add(known)

    def _blame_mounts(self, details: Json, error: docker.errors.APIError) -> None:
        """Raise MountMismatch if that keeps the container from starting: the engine's own words are hard to
        understand.
        """
        try:
            self._require_mount_points(details)
        except docker.errors.APIError:
            log.debug("could not inspect the mount points of %s", details["Name"], exc_info=True)
        except MountMismatch as mismatch:
            raise mismatch from error

    def _require_mount_points(self, details: Json) -> None:
        """Compare mounts with the image. The engine cannot inspect files of a container whose mounts do not
        fit, so another container of the image, without mounts, is inspected.
        """
        client, found = self._connection.client, details["Config"]["Labels"]
        bare = {"Image": details["Image"], "Entrypoint": ["-"], "Cmd": [], "Labels": found}
        made = client.create_container_from_config(bare)["Id"]  # type: ignore[no-untyped-call]
        try:
            for mount in details["HostConfig"]["Mounts"] or ():
                if mount["Type"] != "bind":
                    continue
                if there := self._in_the_way(made, mount):
                    raise MountMismatch(mount["Target"], there)
        finally:
            client.remove_container(made, v=True, force=True)

    def _in_the_way(self, container: str, mount: Json) -> str:
        """Describe what obstructs the mount point, or a folder above it; "" if the mount fits."""
        target = PurePosixPath(mount["Target"])
        for above in reversed(target.parents):
            if self._connection.kind_of(container, str(above)) is CachedClient.FILE:
                return Localizable(
                    "{above} is a file in the image, but {target} is below it", above=above, target=target
                )
        found = self._connection.kind_of(container, str(target))
        wanted = CachedClient.FOLDER if Path(mount["Source"]).is_dir() else CachedClient.FILE
        return (
            ""
            if found in (wanted, CachedClient.NOTHING)
            else Localizable("{target} is {kind} in the image", target=target, kind=found.value)
        )

    # --- look --------------------------------------------------------------------------------------------------

    def find(self, name: str) -> ObservedJob | None:
        with translated(Localizable("cannot look up container {name}", name=name)):
            found = self._inspect(name)
        return self._observed(found)

    def all(self) -> tuple[ObservedJob, ...]:
        filters = {"label": [f"{labels.INSTANCE}={self._instance}", JOBS]}
        with translated(Localizable("cannot list the containers of runs")):
            listed = self._connection.client.containers(all=True, filters=filters)
            jobs = [job for entry in listed if (job := self._observed(self._inspect(entry["Id"])))]
        return tuple(sorted(jobs, key=lambda job: job.name))

    def written(self) -> Iterable[tuple[ObservedJob, int]]:
        filters = {"label": [f"{labels.INSTANCE}={self._instance}", JOBS]}
        with translated(Localizable("cannot get the sizes of containers of runs")):
            sizes = written(self._connection.client, filters)
            found = [(self._observed(self._inspect(entry["Id"])), size) for entry, size in sizes]
        return tuple((job, size) for job, size in found if job)

    def _observed(self, found: Json | None) -> ObservedJob | None:
        """Return the job; None if it is being removed."""
        if found is None or is_going(found) or not is_job(self._instance, found):
            return None
        return self._judged(observed_job(found))

    def _judged(self, job: ObservedJob) -> ObservedJob:
        """Mark a job that was ended by the end of the engine."""
        if not may_be_interrupted(job):
            return job
        since = engine_since(self._connection.client.networks(names=["bridge"]))
        return replace(job, interrupted=since is not None and interrupted(job, since))

    def _inspect(self, container: str) -> Json | None:
        """Return a container by id or name; None if it is gone."""
        try:
            found: Json = self._connection.client.inspect_container(container)
        except docker.errors.NotFound:
            return None
        return found

    def _owned(self, id: str, doing: str) -> Json | None:
        """Return a container that may be changed; None if it is gone."""
        found = self._inspect(id)
        if found is not None and not is_job(self._instance, found):
            raise NOT_OURS.error(doing, Localizable("it is not ours"))
        return found

    def _present(self, id: str) -> Json:
        found = self._owned(id, Localizable("cannot use container {id}", id=id[:12]))
        if found is None or is_going(found):
            raise ContainerLost(id)
        return found

    # --- wait and read -----------------------------------------------------------------------------------------

    def wait(self, id: str, stop: Callable[[], bool]) -> ObservedJob | None:
        doing = Localizable("cannot wait for container {id}", id=id[:12])
        while not stop():
            with translated(doing):
                job = observed_job(self._present(id))
                if job.state is JobState.ENDED:
                    return self._judged(job)
            if job.state is JobState.RUNNING:
                with _ignoring_transient(doing, stop):
                    self._sit_out(id, stop)
            else:
                time.sleep(STOP_PAUSE)
        return None

    def _sit_out(self, id: str, stop: Callable[[], bool]) -> None:
        """Wait until the container does not run, `stop()` returns true, the engine goes away, or `WAIT`
        seconds have passed; the caller checks which. The response has two parts: the headers come at once,
        the rest at the end.
        """
        with self._connection.operation(WAIT) as client:
            answer = client.post(
                f"{client.base_url}/v{client.api_version}/containers/{id}/wait",
                params={"condition": "not-running"},
                stream=True,
            )
            answer.raise_for_status()
            ending: CancellableStream[bytes] = CancellableStream(answer.iter_content(None), answer)
            with closing_on_stop(ending, stop):
                for _ in ending:
                    pass

    def logs(self, id: str, after: str, stop: Callable[[], bool]) -> Iterator[tuple[str, bytes]]:
        unread = JobLog(asking(self._connection, id), after)
        ended = False
        while not ended and not stop():
            with _ignoring_transient(Localizable("cannot read the log of container {id}", id=id[:12]), stop):
                ended = yield from self._follow(id, unread, stop)

    def _follow(
        self, id: str, unread: JobLog, stop: Callable[[], bool]
    ) -> Generator[tuple[str, bytes], None, bool]:
        """Follow a log; return whether the container has ended."""
        self._present(id)
        with self._taps.release(id) as tap:
            written = tap.written if tap.whole else None
            while not stop():
                fruitful = True
                if not tap.rang or unread.behind(written) != 0:
                    ended = observed_job(self._present(id)).state is JobState.ENDED
                    fruitful = False
                    for place, piece in unread.unread(
                        written
                    ):  # after the inspection, so that all that an ended one wrote is there
                        fruitful = True
                        yield place, piece
                        tap.breathe(stop, hurry=ended)
                    if ended:
                        yield from unread.missing(written)
                        return True
                yield from unread.begun(written)
                if not tap.wait(stop, fruitful):
                    break
        return False

    # --- end ---------------------------------------------------------------------------------------------------

    def stop(self, id: str, grace: float) -> None:
        doing = Localizable("cannot stop container {id}", id=id[:12])
        with translated(doing):
            if self._owned(id, doing) is None:
                return
            self._taps.discard(id)  # a log that is not read could fill up and keep the container from ending
            try:
                self._connection.client.stop(id, timeout=math.ceil(grace))
            except docker.errors.NotFound:
                return

    def remove(self, id: str) -> None:
        doing = Localizable("cannot remove container {id}", id=id[:12])
        with translated(doing):
            if self._owned(id, doing) is None:
                return
            self._taps.discard(id)
            try:
                self._connection.client.remove_container(id, v=True, force=True)
            except docker.errors.APIError as error:
                if error.status_code not in (404, 409):  # gone, or being removed
                    raise


@contextmanager
def _ignoring_transient(doing: str, stop: Callable[[], bool]) -> Iterator[None]:
    """Suppress Transient errors after a pause, since the job keeps running."""
    try:
        with translated(doing):
            yield
    except ContainerLost:
        raise
    except Transient as error:
        log.debug("%s", error)
        pause_ends = time.monotonic() + ERROR_PAUSE
        while not stop() and time.monotonic() < pause_ends:
            time.sleep(STOP_PAUSE)
