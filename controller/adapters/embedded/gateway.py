"""The server process: started by the first call that needs it, watched, and started again when it dies.

One thread does all of that for as long as the daemon lives. It has to be one and the same: the kernel sends the signal
that ends the server with us (PR_SET_PDEATHSIG) when the *thread* that started it ends. Callers only wait for its word.
"""

from __future__ import annotations

import logging
import os
import select
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from controller.adapters.embedded import room
from controller.adapters.embedded.volume import Volume, find_program
from controller.config.settings import StorageSettings
from controller.domain.errors import ControllerError, Transient
from controller.domain.storage import Account

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Timing:
    """Seconds."""

    start: float = 30.0  # until the first answer; with millions of files it reads its metadata for a while
    patience: float = 10.0  # that a caller waits for a start
    tick: float = 5.0  # between looks at the log, the disk, and whether it answers
    silence: float = 60.0  # without an answer: it hangs, and is ended
    first_pause: float = 0.2  # before it is started again; doubled each time that it dies young
    last_pause: float = 30.0
    grown: float = 60.0  # what lives that long does not die young
    stop: float = 10.0  # after SIGTERM
    address: float = 3.0  # that a taken address gets to become free


class State(Enum):
    STARTING = "starting"
    SERVING = "serving"
    DOWN = "down"  # the reason is known; another start will come
    CLOSED = "closed"


class Gateway:
    """`answers` asks the server something and raises ControllerError unless it is ours and answers."""

    def __init__(
        self,
        settings: StorageSettings,
        volume: Volume,
        root: Account,
        answers: Callable[[], object],
        timing: Timing,
    ) -> None:
        self._settings = settings
        self._volume = volume
        self._root = root
        self._answers = answers
        self._timing = timing
        self._changed = threading.Condition()
        self._state = State.STARTING
        self._fault: ControllerError = Transient("StorageUnreachable", "the embedded storage is starting")
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)

    def require(self) -> None:
        """Returns when the server answers; starts it first if this is the first call. Raises why it does not."""
        with self._changed:
            if self._thread is None and self._state is not State.CLOSED:
                self._thread = threading.Thread(target=self._supervise, name="storage", daemon=True)
                self._thread.start()
            self._changed.wait_for(lambda: self._state is not State.STARTING, self._timing.patience)
            if self._state is not State.SERVING:
                raise self._fault

    def close(self) -> None:
        """End the server and wait for its end. May be called again."""
        with self._changed:
            if self._state is State.CLOSED:
                return
            self._closing.set()
            os.eventfd_write(self._wake, 1)
        if self._thread is not None:
            self._thread.join()
        self._become(State.CLOSED, Transient("StorageUnreachable", "the daemon is stopping"))
        os.close(self._wake)

    # --- the thread --------------------------------------------------------------------------------------------

    def _supervise(self) -> None:
        pause = self._timing.first_pause
        while not self._closing.is_set():
            born = time.monotonic()
            try:
                self._live()
            except ControllerError as error:
                self._mourn(error)
            except (OSError, subprocess.SubprocessError) as error:
                self._mourn(self._volume.fault(f"cannot start the embedded storage: {error}"))
            except Exception:
                log.exception("bug in the supervision of the embedded storage")
                self._become(State.DOWN, Transient("StorageUnreachable", "a bug; the daemon's log has more"))
            if time.monotonic() - born > self._timing.grown:
                pause = self._timing.first_pause
            self._wait(pause)
            pause = min(2 * pause, self._timing.last_pause)

    def _live(self) -> None:
        """One life of the server: returns when it was closed, raises why it ended otherwise."""
        self._become(State.STARTING)
        process = self._start()
        try:
            self._await_answer(process)
            if not self._closing.is_set():
                self._become(State.SERVING)
                log.info("the embedded storage serves", extra={"listen": self._settings.listen})
                self._watch(process)
        finally:
            self._stop(process)

    def _start(self) -> subprocess.Popen[bytes]:
        program = find_program()
        self._volume.end_orphans()
        self._volume.make(program)
        self._await_address()
        with self._volume.log.open("ab") as output:
            return subprocess.Popen(
                [*_dying_with_us(), str(program), *self._arguments()],
                env=self._environment(),
                cwd=self._volume.folder,
                umask=0o077,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in a terminal is for the daemon, which ends it in its turn
            )

    def _await_address(self) -> None:
        """What a server that was killed listened on is free only a moment after it has gone."""
        patience = time.monotonic() + self._timing.address
        while True:
            try:
                return _check_free(self._settings.listen)
            except Transient:
                if time.monotonic() > patience or self._closing.is_set():
                    raise
            self._wait(self._timing.first_pause)

    def _arguments(self) -> list[str]:
        buffers = self._settings.memory // 4 // 2**20  # MiB
        return [
            *("gateway", self._volume.metadata, self._settings.listen),
            *("--no-agent", "--no-usage-report", "--no-banner"),
            *("--multi-buckets", "--keep-etag", "--object-meta", "--object-tag"),
            *("--bucket", self._volume.data),  # the metadata know where it was made; the state may have moved
            *("--cache-size", "0"),  # it would be a cache of local files in other local files
            *("--buffer-size", str(buffers)),
            *("--io-retries", "1"),  # a full disk is told within a second
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
                self._keep_house()
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

    def _keep_house(self) -> None:
        try:
            self._volume.trim_log()
            room.allocate(self._volume)
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
        """So long, but not beyond `close()` or the end of the process that `ended` (a pidfd) tells."""
        poller = select.poll()
        for descriptor in (self._wake, ended):
            if descriptor is not None:
                poller.register(descriptor, select.POLLIN)
        poller.poll(seconds * 1000)

    # --- telling -----------------------------------------------------------------------------------------------

    def _become(self, state: State, fault: ControllerError | None = None) -> None:
        with self._changed:
            self._state = state
            self._fault = fault or self._fault
            self._changed.notify_all()

    def _mourn(self, error: ControllerError) -> None:
        if not self._closing.is_set():
            log.error(error.message, extra={"reason": error.reason})
        self._become(State.DOWN, error)

    def _death(self, process: subprocess.Popen[bytes]) -> ControllerError:
        code = process.returncode
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
        return self._volume.fault(
            f"the embedded storage ended {how}; its last words: {self._volume.last_words()}"
        )

    def _silence(self, seconds: float) -> ControllerError:
        return self._volume.fault(
            f"the embedded storage has not answered for {seconds:.0f} s; its last words: {self._volume.last_words()}"
        )


def _dying_with_us() -> list[str]:
    """What to put before a command so that it is ended when the thread that runs it ends, however it ends. Nothing
    where util-linux is missing, and under systemd, whose filter forbids its program to start: there systemd ends what
    is left, and everywhere `Volume.end_orphans` does."""
    program = shutil.which("setpriv")
    command = [program, "--pdeathsig", "TERM"] if program else []
    works = program and subprocess.run([*command, program, "--version"], capture_output=True).returncode == 0
    return command if works else []


def _check_free(listen: str) -> None:
    """The server says of a port that is taken no more than that it is."""
    host, _, port = listen.rpartition(":")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        text = f"the embedded storage cannot listen on {listen}: {error.strerror or error}"
        advice = "end what uses the address, or set storage.listen to another one"
        raise Transient("StorageAddressTaken", f"{text}; {advice}") from error
