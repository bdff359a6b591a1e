"""The server process: started by the first call that needs it, watched, and restarted when it dies.

A single thread does all of that as long as the daemon lives: the kernel sends the signal that ends the server
with us (PR_SET_PDEATHSIG) when the *thread* that started it ends. Callers only wait for it.
"""

from __future__ import annotations

import logging
import os
import select
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from controller.adapters.embedded import preallocate
from controller.adapters.embedded.volume import StorageVolume, find_program
from controller.config.settings import StorageSettings
from controller.domain.backoff import Backoff
from controller.domain.errors import ControllerError, Transient
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason
from controller.domain.storage.box import StorageAccount
from controller.guards import Pauses, Tell, dying_with_us, how_ended, report

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GatewayTiming:
    """All in seconds."""

    start: float = 30.0  # until the first response; with millions of files it reads its metadata for a while
    caller_wait: float = 10.0  # that a caller waits for a start
    tick: float = 5.0  # between checks of the log, the disk, and whether it answers
    silence: float = 60.0  # without a response: it hangs, and is ended
    first_pause: float = 0.2  # before it is restarted; doubled each time that it dies young
    last_pause: float = 30.0
    grown: float = 60.0  # a server that lives this long does not die young
    stop: float = 10.0  # after SIGTERM


class GatewayState(Enum):
    STARTING = "starting"
    SERVING = "serving"
    DOWN = "down"  # the reason is known; it will be restarted
    CLOSED = "closed"


class GatewayProcess:
    """`answers` calls the server, and raises ControllerError unless it is ours and answers; `tell` is called
    at each unexpected end; `serves` is called each time that it has begun to serve, since its address may
    have changed.
    """

    def __init__(
        self,
        settings: StorageSettings,
        volume: StorageVolume,
        root: StorageAccount,
        answers: Callable[[], object],
        timing: GatewayTiming,
        tell: Tell,
        serves: Callable[[], object] = lambda: None,
    ) -> None:
        self._settings = settings
        self._volume = volume
        self._root = root
        self._answers = answers
        self._timing = timing
        self._tell = tell
        self._serves = serves
        self._changed = threading.Condition()
        self._state = GatewayState.STARTING
        self._fault: ControllerError = Transient(
            Reason.STORAGE_UNREACHABLE, Localizable("the embedded storage is starting")
        )
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self.address = ""  # where it listens, once it was started: HOST:PORT
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)

    def require(self) -> None:
        """Wait until the server answers, and start it at the first call. Raises the reason if it does not
        answer.
        """
        with self._changed:
            if self._thread is None and self._state is not GatewayState.CLOSED:
                self._thread = threading.Thread(target=self._supervise, name="storage", daemon=True)
                self._thread.start()
            self._changed.wait_for(lambda: self._state is not GatewayState.STARTING, self._timing.caller_wait)
            if self._state is not GatewayState.SERVING:
                raise self._fault

    def close(self) -> None:
        """End the server and wait for its end. May be called again."""
        with self._changed:
            if self._state is GatewayState.CLOSED:
                return
            self._closing.set()
            os.eventfd_write(self._wake, 1)
        if self._thread is not None:
            self._thread.join()
        self._become(
            GatewayState.CLOSED, Transient(Reason.STORAGE_UNREACHABLE, Localizable("the daemon is stopping"))
        )
        os.close(self._wake)

    # --- the thread --------------------------------------------------------------------------------------------

    def _supervise(self) -> None:
        pauses = Pauses(Backoff(self._timing.first_pause, self._timing.last_pause))
        while not self._closing.is_set():
            born = time.monotonic()
            try:
                self._live()
            except ControllerError as error:
                self._record_death(error)
            except (OSError, subprocess.SubprocessError) as error:
                self._record_death(
                    self._volume.fault(Localizable("cannot start the embedded storage: {error}", error=error))
                )
            except BaseException as error:  # a thread cannot hand on SystemExit and the like
                log.exception("bug in the supervision of the embedded storage")
                self._record_death(
                    Transient(
                        Reason.STORAGE_UNREACHABLE,
                        Localizable(
                            "internal error ({name}); see the daemon's log", name=type(error).__name__
                        ),
                    )
                )
            if time.monotonic() - born > self._timing.grown:
                pauses.reset()
            self._wait(pauses.next())

    def _live(self) -> None:
        """Run the server once: return when it was closed, otherwise raise why it ended."""
        self._become(GatewayState.STARTING)
        process = self._start()
        try:
            self._await_answer(process)
            if not self._closing.is_set():
                self._serves()
                self._become(GatewayState.SERVING)
                log.info("the embedded storage serves", extra={"listen": self.address})
                self._watch(process)
        finally:
            self._stop(process)

    def _start(self) -> subprocess.Popen[bytes]:
        program = find_program()
        self._volume.end_orphans()
        self._volume.make(program)
        self.address = self._volume.take_address()
        with self._volume.log.open("ab") as output:
            return subprocess.Popen(
                [*dying_with_us(), str(program), *self._arguments()],
                env=self._environment(),
                cwd=self._volume.folder,
                umask=0o077,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in a terminal is for the daemon, which ends it in turn
            )

    def _arguments(self) -> list[str]:
        buffers = self._settings.memory // 4 // 2**20  # MiB
        return [
            *("gateway", self._volume.metadata, self.address),
            *("--no-agent", "--no-usage-report", "--no-banner"),
            *("--multi-buckets", "--keep-etag", "--object-meta", "--object-tag"),
            # the metadata contain the place where it was created, but the state may have moved
            *("--bucket", self._volume.data),
            *("--cache-size", "0"),  # it would be a cache of local files in other local files
            *("--buffer-size", str(buffers)),
            *("--io-retries", "1"),  # a full disk is reported within a second
            *("--backup-meta", "1h"),
            *("--metrics", "127.0.0.1:0"),  # has no switch; a port of the kernel's choice collides with none
        ]

    def _environment(self) -> dict[str, str]:
        return {
            **self._volume.environment,
            "MINIO_ROOT_USER": self._root.name,
            "MINIO_ROOT_PASSWORD": self._root.secret.reveal(),
            "MINIO_REGION": self._settings.region,
            "MINIO_BROWSER": "off",  # a page for people to log in at; ours is another one
            # Bytes that the Go runtime collects garbage to stay below.
            "GOMEMLIMIT": str(self._settings.memory),
        }

    def _await_answer(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self._timing.start
        while not self._answers_now():
            if process.poll() is not None:
                raise self._death(process)
            if time.monotonic() > deadline:
                raise self._silence(self._timing.start)
            if self._closing.wait(0.02):
                return

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        heard = time.monotonic()
        ended = os.pidfd_open(process.pid)
        try:
            while not self._closing.is_set():
                self._housekeeping()
                self._wait(self._timing.tick, ended)
                if process.poll() is not None:
                    raise self._death(process)
                if self._answers_now():
                    heard = time.monotonic()
                elif time.monotonic() - heard > self._timing.silence:
                    raise self._silence(self._timing.silence)
        finally:
            os.close(ended)

    def _answers_now(self) -> bool:
        try:
            self._answers()
        except ControllerError:
            return False
        return True

    def _housekeeping(self) -> None:
        try:
            self._volume.trim_log()
            preallocate.preallocate(self._volume)
        except OSError as error:  # a full disk above all; the server lives on without
            log.warning("cannot prepare for a full disk", extra={"error": str(error)})

    def _stop(self, process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        try:
            process.wait(self._timing.stop)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _wait(self, seconds: float, ended: int | None = None) -> None:
        """Wait this long, but at most until `close()` or the end of the process, which `ended` (a pidfd) reports."""
        poller = select.poll()
        for descriptor in (self._wake, ended):
            if descriptor is not None:
                poller.register(descriptor, select.POLLIN)
        poller.poll(seconds * 1000)

    # --- telling -----------------------------------------------------------------------------------------------

    def _become(self, state: GatewayState, fault: ControllerError | None = None) -> None:
        with self._changed:
            self._state = state
            self._fault = fault or self._fault
            self._changed.notify_all()

    def _record_death(self, error: ControllerError) -> None:
        if not self._closing.is_set():
            log.error(error.message, extra={"reason": error.reason})
            try:
                self._tell("storage", error.message)
            except Exception as fault:  # noqa: BLE001 - it is started again nevertheless
                report("could not record that the embedded storage ended", fault)
        self._become(GatewayState.DOWN, error)

    def _death(self, process: subprocess.Popen[bytes]) -> ControllerError:
        return self._volume.fault(
            Localizable(
                "the embedded storage ended {how}; its last words: {words}",
                how=how_ended(process.returncode),
                words=self._volume.last_words(),
            )
        )

    def _silence(self, seconds: float) -> ControllerError:
        return self._volume.fault(
            Localizable(
                "the embedded storage has not answered for {seconds} s; its last words: {words}",
                seconds=round(seconds),
                words=self._volume.last_words(),
            )
        )
