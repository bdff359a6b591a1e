"""Keeps the steps of BuildKit within limits, which its API has none of: a container that runs beside a build finds the
control groups of steps and sets their memory, CPUs and processes, and tells how much room the engine's disk has.

BuildKit names a step's group by 25 letters and digits, unlike those of containers. It says nowhere whose build a step
belongs to: steps of other people's builds by the same engine get the same limits as long as a build of ours runs.
Limits are only lowered, so that of several instances on a host the strictest counts. A step has some milliseconds until
its limits are set. Steps that run at the same time have a limit together, where the engine has a group for all of them;
when the container ends, it is as before.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import docker.errors
import requests.exceptions
from docker import APIClient

from controller.adapters.docker.connection import EngineConnection
from controller.adapters.docker.error_rules import translated
from controller.adapters.docker.host_programs import config, empty_image
from controller.config import DockerSettings
from controller.domain import labels
from controller.domain.errors import Transient
from controller.domain.localizable import Localizable, joined
from controller.domain.reasons import Reason
from controller.domain.units import about_size

log = logging.getLogger(__name__)

_STARTED = 30.0  # seconds until it has to say that it has begun
_PAUSE = 0.05
_LOOK = 1.0  # seconds between two looks at the disk
_WORDS = 2000
_ID = "[0-9a-z]" * 25
#: Where the groups of steps are, by how the engine manages them: below `docker`, or as units of systemd.
_PLACES = (
    f"docker/buildkit/{_ID}",
    f"*/docker/buildkit/{_ID}",
    f"*.slice/docker-{_ID}.scope",
    f"*/*/buildkit/{_ID}",
)
#: The groups above them, which have nothing else; units of systemd have none.
_ABOVE = ("docker/buildkit", "*/docker/buildkit", "*/*/buildkit")
#: How many steps all of them together may take the limits of. Stages of one build that do not need each other run at
#: the same time, and so do several builds.
TOGETHER = 4
_END = 5  # seconds for the container to put back what it has changed


def script(settings: DockerSettings) -> str:
    """Return a script that sets limits until it is ended. Both versions of control groups have other files.

    At its end it puts back what it has lowered last: another instance may have ended since the first time, whose limit
    would stay otherwise, so it looks once more before. A signal only ends the loop, since a limit that is set and not
    yet noted would stay as well.
    """
    quota = round(settings.build_cpus * 100_000)
    memory, pids = TOGETHER * settings.build_memory, TOGETHER * settings.build_pids
    second_above = "\n".join(
        f"  for g in {place}; do lower $g/memory.max {memory}; lower $g/pids.max {pids};"
        f" lower $g/cpu.max '{TOGETHER * quota} 100000'; done"
        for place in _ABOVE
    )
    first_above = "\n".join(
        f"  for g in memory/{place}; do lower $g/memory.limit_in_bytes {memory};"
        f" lower $g/memory.memsw.limit_in_bytes {memory}; done\n"
        f"  for g in pids/{place}; do lower $g/pids.max {pids}; done\n"
        f"  for g in cpu,cpuacct/{place} cpu/{place}; do lower $g/cpu.cfs_quota_us {TOGETHER * quota}; done"
        for place in _ABOVE
    )
    second = "\n".join(
        f"  for g in {place}; do put $g/memory.max {settings.build_memory}; put $g/memory.swap.max 0;"
        f" put $g/pids.max {settings.build_pids}; put $g/cpu.max '{quota} 100000'; done"
        for place in _PLACES
    )
    first = "\n".join(
        f"  for g in memory/{place}; do put $g/memory.limit_in_bytes {settings.build_memory};"
        f" put $g/memory.memsw.limit_in_bytes {settings.build_memory}; done\n"
        f"  for g in pids/{place}; do put $g/pids.max {settings.build_pids}; done\n"
        f"  for g in cpu,cpuacct/{place} cpu/{place}; do put $g/cpu.cfs_quota_us {quota}; done"
        for place in _PLACES
    )
    return f"""set -u
cd /groups
put() {{
  had=
  [ -w $1 ] || return 1
  read -r had rest <$1 2>/dev/null || return 1
  case $had in max|-1) ;; *) [ "$had" -gt "${{2%% *}}" ] || return 1 ;; esac
  echo "$2" >$1 2>/dev/null
}}
lower() {{
  put "$1" "$2" && [ -n "${{had-}}" ] && changed="$1 $had $rest
$changed"
  had=
}}
back() {{
  seen=
  echo "$changed" | while read -r file value; do
    case "$seen " in *" $file "*) continue ;; esac
    seen="$seen $file"
    [ -z "$file" ] || echo "$value" >"$file" 2>/dev/null
  done
}}
changed=
ended=
trap 'ended=yes' TERM
second() {{
{second}
{second_above}
}}
first() {{
{first}
{first_above}
}}
if [ -e cgroup.controllers ]; then each=second; else each=first; fi
if [ $each = first ] && ! [ -d memory ]; then echo 'the host has no control group for memory' >&2; exit 1; fi
n=0
while [ -z "$ended" ]; do
  $each
  if [ $n -eq 0 ]; then df -Pk / | sed -n '2s/^[^ ]* *[0-9]* *[0-9]* *\\([0-9]*\\).*/free \\1/p'; fi
  n=$(( (n + 1) % {round(_LOOK / _PAUSE)} ))
  sleep {_PAUSE}
done
$each
back
"""


class StepLimits:
    """Of the builds of one instance."""

    def __init__(self, connection: EngineConnection, settings: DockerSettings, instance: str) -> None:
        self._connection = connection
        self._settings = settings
        self._instance = instance

    @contextmanager
    def held(self, doing: str) -> Iterator[DiskWatch]:
        """Hold the limits of all steps until the end of the block. Raises Transient `BuildUnlimited` if they cannot be
        set."""
        client = self._connection.client
        with empty_image(client, self._instance) as image:
            made = client.create_container_from_config(self._config(image))["Id"]  # type: ignore[no-untyped-call]
            try:
                client.start(made)
                free = self._begun(made, doing)
                yield DiskWatch(lambda: self._still_free(made), free, self._settings.build_disk)
            finally:
                _remove(client, made)

    def collect(self) -> None:
        """Remove those whose daemon was killed. None may be in use."""
        client = self._connection.client
        ours = {"label": f"{labels.BUILD_LIMITS}={self._instance}"}
        with translated(Localizable("cannot remove containers that limit builds")):
            for entry in client.containers(all=True, filters=ours):
                _remove(client, entry["Id"])

    def _config(self, image: str) -> dict[str, object]:
        groups = {"Type": "bind", "Source": "/sys/fs/cgroup", "Target": "/groups"}
        more = {
            "UsernsMode": "host",  # else it may not write to groups of the host
            "Mounts": [groups],
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "64k", "max-file": "1"}},
        }
        named = {labels.BUILT_BY: self._instance, labels.BUILD_LIMITS: self._instance}
        return config(image, script(self._settings), named, more)

    def _begun(self, container: str, doing: str) -> int:
        deadline = time.monotonic() + _STARTED
        while time.monotonic() < deadline:
            free = self._free(container)
            if free is not None:
                return free
            if self._connection.client.inspect_container(container)["State"]["Status"] not in (
                "created",
                "running",
            ):
                break
            time.sleep(_PAUSE)
        said = self._connection.client.logs(container)[-_WORDS:].decode(errors="replace").strip()
        raise Transient(
            Reason.BUILD_UNLIMITED,
            Localizable(
                "{doing}: cannot limit its steps: {said}",
                doing=doing,
                said=said or Localizable("the container has not begun"),
            ),
        )

    def _still_free(self, container: str) -> int | None:
        """Raises Transient `BuildUnlimited` if the container does not run any more: nothing limits new steps then, and
        what it has said last stays as it is."""
        try:
            if self._connection.client.inspect_container(container)["State"]["Running"]:
                return self._free(container)
        except docker.errors.NotFound:
            pass
        raise Transient(Reason.BUILD_UNLIMITED, Localizable("the container that limits its steps has ended"))

    def _free(self, container: str) -> int | None:
        """Return the free bytes of the engine's disk as the container said last."""
        said = self._connection.client.logs(container, stderr=False, tail=1).decode(errors="replace").split()
        return int(said[1]) * 1024 if len(said) == 2 and said[0] == "free" else None


def _remove(client: APIClient, container: str) -> None:
    """End a container that may be gone, or on its way, and remove it."""
    try:
        client.stop(container, timeout=_END)
        client.remove_container(container, v=True, force=True)
    except docker.errors.APIError as error:
        if error.status_code not in (404, 409):
            raise


class DiskWatch:
    """Ends a build that takes too much of the disk, or that nothing limits any more. It is the disk of the engine: what
    others write meanwhile counts, too, so the verdict is never final. One thread calls `is_full`."""

    def __init__(
        self,
        look: Callable[[], int | None],
        free: int,
        most: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look = look
        self._free = free
        self._most = most
        self._clock = clock
        self._not_before = 0.0
        self.used = 0
        self.excess = ""
        self._reason = Reason.BUILD_TOO_LARGE

    def is_full(self) -> bool:
        if not self.excess and self._clock() >= self._not_before:
            self._not_before = self._clock() + _LOOK
            try:
                free = self._look()
            except Transient as error:
                self.excess, self._reason = error.message, error.reason
                return True
            except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
                log.debug("could not measure what a build writes: %s", error)
                return False
            self.used = max(0, self._free - free) if free is not None else self.used
            if self.used > self._most:
                self.excess = Localizable(
                    "meanwhile {used} were written to the disk of the engine, and a build may write {most} "
                    "(docker.buildDisk)",
                    used=about_size(self.used),
                    most=about_size(self._most),
                )
        return bool(self.excess)

    def error(self, doing: str) -> Transient:
        return Transient(self._reason, joined((doing, self.excess), ": "))
