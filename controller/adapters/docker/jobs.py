"""`DockerJobs`: containers that run to their end, as the port `Jobs` asks for them.

Called by the runner, one thread for each attempt and another for its log. Nothing is kept between calls but what cannot
change; a container is looked at before anything is done to it, and what is no job of ours is left alone.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import docker.errors
from docker.types.daemon import CancellableStream

from controller.adapters.docker.connection import STOP_PAUSE, Connection, hung_up
from controller.adapters.docker.errors import COMMAND_NOT_FOUND, NAME_TAKEN, NOT_OURS, translated
from controller.adapters.docker.job_log import Bell, JobLog
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
from controller.adapters.docker.mapping import Policy
from controller.adapters.docker.networks import Networks
from controller.config import DockerSettings
from controller.domain import labels
from controller.domain.errors import Transient
from controller.ports import Job, JobState, ObservedJob

log = logging.getLogger(__name__)

Json = dict[str, Any]

#: Seconds before the name of a container is tried again that is taken while no such container is there: the engine
#: keeps the name while it makes it for somebody else, and while it removes it.
NAME_PAUSES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 0.0)
#: Seconds after which a wait is begun anew, should an end have gone by unnoticed.
WAIT = 10.0


class ContainerLost(Transient):
    """Somebody removed the container of a job."""

    def __init__(self, id: str) -> None:
        super().__init__("ContainerLost", f"container {id[:12]} was removed while it was waited for")


class DockerJobs:
    """Thread-safe. Connects on first use."""

    def __init__(self, settings: DockerSettings, instance: str) -> None:
        self._settings = settings
        self._instance = instance
        self._connection = Connection(settings.host, settings.timeout)
        self._networks = Networks(self._connection, instance)
        self._found: set[tuple[str, ...]] = set()  # (image id, paths) where a program was found

    def close(self) -> None:
        """Close all connections. Jobs can be used again: it connects anew."""
        self._connection.close()

    # --- make and start ----------------------------------------------------------------------------------------

    def create(self, job: Job) -> ObservedJob:
        doing = f"cannot create {job.name}"
        self._networks.ensure(job.app)
        with translated(doing, tuple(value for _, value in job.env)):
            policy = Policy(
                instance=self._instance,
                capabilities=self._settings.capabilities,
                log_max_size=self._settings.log_max_size,
                init=self._connection.has_init,
            )
            config = job_config(job, policy)
            for pause in NAME_PAUSES:
                found = self._made(config, job) or self._inspect(job.name)
                if found is None or is_going(found):
                    time.sleep(pause)
                    continue
                if not is_attempt(self._instance, job, found):
                    raise NAME_TAKEN.error(doing, "another container has that name")
                return observed_job(found)
        raise Transient("NameBusy", f"{doing}: a container of that name is still being removed")

    def _made(self, config: Json, job: Job) -> Json | None:
        """None if the name is taken."""
        created = self._connection.create(config, job.name)
        return self._inspect(created) if created else None

    def start(self, id: str) -> None:
        doing = f"cannot start container {id[:12]}"
        with translated(doing):
            details = self._present(id)
            job = observed_job(details)
            if job.state is not JobState.CREATED:
                return
            self._require_program(details, doing)
            try:
                self._connection.client.start(id)
            except docker.errors.NotFound:  # the network left with the app's last workload
                self._networks.ensure(job.app)
                self._connection.client.start(id)

    def _require_program(self, details: Json, doing: str) -> None:
        """Stalled `CommandNotFound` before anything runs. With an init process the start itself succeeds, and the
        container ends with 127, which any command may do."""
        paths = programs(details)
        known = (details["Image"], *paths)
        if not details["HostConfig"]["Init"] or known in self._found:
            return
        if not any(self._connection.has_file(details["Id"], path) for path in paths):
            raise COMMAND_NOT_FOUND.error(doing, f"{details['Config']['Image']} has no {details['Path']}")
        self._found.add(known)

    # --- look --------------------------------------------------------------------------------------------------

    def find(self, name: str) -> ObservedJob | None:
        with translated(f"cannot look for container {name}"):
            found = self._inspect(name)
        return self._observed(found)

    def all(self) -> tuple[ObservedJob, ...]:
        filters = {"label": [f"{labels.INSTANCE}={self._instance}", JOBS]}
        with translated("cannot list the containers of runs"):
            listed = self._connection.client.containers(all=True, filters=filters)
            jobs = [job for entry in listed if (job := self._observed(self._inspect(entry["Id"])))]
        return tuple(sorted(jobs, key=lambda job: job.name))

    def _observed(self, found: Json | None) -> ObservedJob | None:
        """What is being removed is there no more."""
        if found is None or is_going(found) or not is_job(self._instance, found):
            return None
        return self._judged(observed_job(found))

    def _judged(self, job: ObservedJob) -> ObservedJob:
        """With the engine's own end told from that of the command."""
        if not may_be_interrupted(job):
            return job
        since = engine_since(self._connection.client.networks(names=["bridge"]))
        return replace(job, interrupted=since is not None and interrupted(job, since))

    def _inspect(self, container: str) -> Json | None:
        """By id or name; None if it is gone."""
        try:
            found: Json = self._connection.client.inspect_container(container)
        except docker.errors.NotFound:
            return None
        return found

    def _owned(self, id: str, doing: str) -> Json | None:
        """A container that may be touched; None if it is gone."""
        found = self._inspect(id)
        if found is not None and not is_job(self._instance, found):
            raise NOT_OURS.error(doing, "it is not ours")
        return found

    def _present(self, id: str) -> Json:
        found = self._owned(id, f"cannot use container {id[:12]}")
        if found is None or is_going(found):
            raise ContainerLost(id)
        return found

    # --- wait and read -----------------------------------------------------------------------------------------

    def wait(self, id: str, stop: Callable[[], bool]) -> ObservedJob | None:
        while not stop():
            with _outlasting(f"cannot wait for container {id[:12]}", stop):
                job = observed_job(self._present(id))
                if job.state is JobState.ENDED:
                    return self._judged(job)
                if job.state is JobState.RUNNING:
                    self._sit_out(id, stop)
                else:
                    time.sleep(STOP_PAUSE)
        return None

    def _sit_out(self, id: str, stop: Callable[[], bool]) -> None:
        """Until it does not run any more, `stop()` turns true, the engine goes away, or for `WAIT` seconds: the caller
        looks. The answer has two parts: the headers come at once, the rest at the end."""
        with self._connection.operation(WAIT) as client:
            answer = client.post(
                f"{client.base_url}/v{client.api_version}/containers/{id}/wait",
                params={"condition": "not-running"},
                stream=True,
            )
            ending: CancellableStream[bytes] = CancellableStream(answer.iter_content(None), answer)
            with hung_up(ending, stop):
                for _ in ending:
                    pass

    def logs(self, id: str, after: str, stop: Callable[[], bool]) -> Iterator[tuple[str, bytes]]:
        unread = JobLog(self._connection, id, after)
        ended = False
        while not ended and not stop():
            with _outlasting(f"cannot read the log of container {id[:12]}", stop):
                ended = yield from self._follow(id, unread, stop)

    def _follow(
        self, id: str, unread: JobLog, stop: Callable[[], bool]
    ) -> Generator[tuple[str, bytes], None, bool]:
        """Whether it has ended."""
        self._present(id)
        with Bell.of(self._connection, id) as bell:
            while not stop():
                ended = observed_job(self._present(id)).state is JobState.ENDED
                yield from unread.unread()  # after the look: all that an ended one wrote is there
                if ended:
                    return True
                if not bell.wait(stop):
                    break
        return False

    # --- end ---------------------------------------------------------------------------------------------------

    def stop(self, id: str, grace: float) -> None:
        doing = f"cannot stop container {id[:12]}"
        with translated(doing):
            if self._owned(id, doing) is None:
                return
            try:
                self._connection.client.stop(id, timeout=math.ceil(grace))
            except docker.errors.NotFound:
                return

    def remove(self, id: str) -> None:
        doing = f"cannot remove container {id[:12]}"
        with translated(doing):
            if self._owned(id, doing) is None:
                return
            try:
                self._connection.client.remove_container(id, v=True, force=True)
            except docker.errors.APIError as error:
                if error.status_code not in (404, 409):  # gone, or on its way
                    raise


@contextmanager
def _outlasting(doing: str, stop: Callable[[], bool]) -> Iterator[None]:
    """What gets better by itself does so while a job runs on: swallowed, after a pause."""
    try:
        with translated(doing):
            yield
    except ContainerLost:
        raise
    except Transient as error:
        log.debug("%s", error)
        if not stop():
            time.sleep(STOP_PAUSE)
