"""Real Git servers on loopback, started by tests and stopped at the end of a `with` block.

`git daemon` (git://), `git http-backend` behind http.server with basic authentication, TLS and faults, and OpenSSH's
sshd with keys made on the spot. `Author` is a person with a work tree who commits and pushes. Git runs without any
configuration of this machine.
"""

from __future__ import annotations

import base64
import contextlib
import getpass
import http.client
import http.server
import io
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.ports import free_port

GIT_ENV = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C.UTF-8",
}


def git(folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> str:
    """Output of a git command in `folder`; an AssertionError with its words if it fails."""
    environment = {**os.environ, **GIT_ENV, **(env or {})}
    command = ["git", "-c", "safe.directory=*", "-C", str(folder), *arguments]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{command}: {result.stderr}"
    return result.stdout.strip()


class Author:
    """A bare repository `remote` and a work tree from which it is pushed to."""

    def __init__(self, remote: Path) -> None:
        self.remote = remote
        self.tree = remote.with_suffix(".work")
        if not remote.exists():
            remote.mkdir(parents=True)
            git(remote, "init", "--quiet", "--bare", "--initial-branch=main")
        self.tree.mkdir()
        git(self.tree, "init", "--quiet", "--initial-branch=main")
        git(self.tree, "remote", "add", "origin", str(remote))

    def commit(self, files: Mapping[str, str | bytes], message: str = "change", *options: str) -> str:
        """Write the files, commit, push the current branch (by force); the commit's id."""
        for name, content in files.items():
            path = self.tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        git(self.tree, "-c", "core.looseCompression=0", "add", "--all")
        git(self.tree, "commit", "--quiet", "--allow-empty", "-m", message, *options)
        return self.push()

    def push(self, *refspecs: str) -> str:
        # Nothing is compressed: large files of noise took most of the time of some tests.
        quick = ("-c", "pack.window=0", "-c", "pack.compression=0")
        git(self.tree, *quick, "push", "--quiet", "--force", "origin", *(refspecs or ("HEAD",)))
        return self.head()

    def tag(self, name: str, *options: str) -> None:
        git(self.tree, "tag", *options, name)
        self.push(f"refs/tags/{name}")

    def head(self) -> str:
        return git(self.tree, "rev-parse", "HEAD")


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        assert process.poll() is None, f"{process.args!r} ended with {process.returncode}"
        assert time.monotonic() < deadline, f"nothing listens on port {port}"
        time.sleep(0.02)


@contextlib.contextmanager
def _running(command: list[str], port: int, **options: object) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, **options)  # type: ignore[call-overload]
    try:
        wait_for_port(port, process)
        yield
    finally:
        process.terminate()
        process.wait(20)


@contextlib.contextmanager
def git_daemon(folder: Path, port: int | None = None) -> Iterator[str]:
    """URL under which the repositories of `folder` are served without authentication."""
    port = port or free_port()
    # Not `git daemon`: that is a wrapper which, when terminated, leaves the daemon behind.
    binary = Path(git(folder, "--exec-path")) / "git-daemon"
    command = [
        str(binary),
        "--reuseaddr",
        "--listen=127.0.0.1",
        f"--port={port}",
        "--export-all",
        f"--base-path={folder}",
    ]
    env = {**os.environ, **GIT_ENV, "GIT_CONFIG_COUNT": "1"}
    env |= {"GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
    with _running([*command, str(folder)], port, env=env, stderr=subprocess.DEVNULL):
        yield f"git://127.0.0.1:{port}"


# --- http -------------------------------------------------------------------------------------------------------


@dataclass
class HttpServer:
    """`password` None: open to all. `stall_after`: bytes of a reply's body after which it goes on only when
    `resume` is set; `stalled` tells that it has come so far. `requests` counts what was asked."""

    url: str
    folder: Path
    password: str | None = None
    user: str = "ivanov"
    stall_after: int | None = None
    stalled: threading.Event = field(default_factory=threading.Event)
    resume: threading.Event = field(default_factory=threading.Event)
    requests: list[str] = field(default_factory=list)
    status: int | None = None  # answer everything with this
    redirect: tuple[str, str] | None = None  # from paths that begin so, to this URL and the rest of the path

    def url_with(self, user: str, password: str) -> str:
        return self.url.replace("://", f"://{user}:{password}@")


@contextlib.contextmanager
def http_backend(folder: Path, password: str | None = None, tls: Path | None = None) -> Iterator[HttpServer]:
    """`tls`: a PEM file with key and certificate."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Cgi)
    server.daemon_threads = True
    scheme = "http"
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        scheme = "https"
    described = HttpServer(f"{scheme}://127.0.0.1:{server.server_port}", folder, password)
    server.described = described  # type: ignore[attr-defined]
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that leave are what tests are about
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield described
    finally:
        described.resume.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Cgi(http.server.BaseHTTPRequestHandler):
    """`git http-backend` is a CGI program (RFC 3875); this is as much of a CGI server as it needs."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # a reply in one piece: two small ones would wait for the client's delayed acknowledgement

    @property
    def described(self) -> HttpServer:
        return self.server.described  # type: ignore[attr-defined, no-any-return]

    def log_message(self, *arguments: object) -> None:
        """Silence: tests look at `requests`."""

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.described.requests.append(f"{self.command} {self.path}")
        body = self._body()
        start, target = self.described.redirect or (None, "")
        if start is not None and self.path.startswith(start):
            self._refuse(302, ("Location", target + self.path.removeprefix(start)))
        elif self.described.status is not None:
            self._refuse(self.described.status)
        elif not self._authorised():
            self._refuse(401, ("WWW-Authenticate", 'Basic realm="git"'))
        else:
            self._run(body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _authorised(self) -> bool:
        if self.described.password is None:
            return True
        right = base64.b64encode(f"{self.described.user}:{self.described.password}".encode()).decode()
        return self.headers.get("Authorization") == f"Basic {right}"

    def _refuse(self, status: int, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for header in (*headers, ("Content-Length", "0")):
            self.send_header(*header)
        self.end_headers()
        self.wfile.flush()

    def _run(self, body: bytes) -> None:
        path, _, query = self.path.partition("?")
        env = {**os.environ, **GIT_ENV, "GIT_CONFIG_COUNT": "1"}
        env |= {"GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
        env |= {"GIT_PROJECT_ROOT": str(self.described.folder), "GIT_HTTP_EXPORT_ALL": "1"}
        env |= {"REQUEST_METHOD": self.command, "PATH_INFO": path, "QUERY_STRING": query}
        env |= {"CONTENT_TYPE": self.headers.get("Content-Type", ""), "CONTENT_LENGTH": str(len(body))}
        if encoding := self.headers.get("Content-Encoding"):
            env["HTTP_CONTENT_ENCODING"] = encoding
        result = subprocess.run(
            ["git", "http-backend"], input=body, env=env, capture_output=True, check=False
        )
        head, _, content = result.stdout.partition(b"\r\n\r\n")
        headers = http.client.parse_headers(io.BytesIO(head + b"\r\n\r\n"))
        self.send_response(int((headers.get("Status") or "200").split()[0]))
        self.send_header("Content-Type", headers.get("Content-Type", "text/plain"))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self._send(content)

    def _send(self, content: bytes) -> None:
        limit = self.described.stall_after
        if limit is None or len(content) <= limit:
            self.wfile.write(content)
            self.wfile.flush()
            return
        self.wfile.write(content[:limit])
        self.wfile.flush()
        self.described.stalled.set()
        self.described.resume.wait()
        self.wfile.write(content[limit:])
        self.wfile.flush()


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A PEM file with key and certificate for 127.0.0.1, and its authority's certificate (which is itself)."""
    both, certificate = folder / "server.pem", folder / "ca.pem"
    request = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(both), "-out", str(certificate)]
    subprocess.run([*request.split(), *names], check=True, capture_output=True)
    both.write_text(both.read_text() + certificate.read_text())
    return both, certificate


# --- ssh --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SshServer:
    url: str
    port: int
    private_key: str
    known_hosts: str
    folder: Path


def make_key(path: Path, kind: str = "ed25519", passphrase: str = "") -> str:
    """A key pair by ssh-keygen; the public half as its line."""
    command = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", "test", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return Path(f"{path}.pub").read_text().strip()


@contextlib.contextmanager
def sshd(folder: Path, repositories: Path, authorized: str = "") -> Iterator[SshServer]:
    """OpenSSH for the user that runs the tests; `folder` takes keys and configuration."""
    binary = shutil.which("sshd") or "/usr/sbin/sshd"
    assert Path(binary).exists(), "sshd is not installed: apt-get install openssh-server"
    port = free_port()
    folder.mkdir()
    hosts = {kind: make_key(folder / f"host_{kind}", kind) for kind in ("ed25519", "ecdsa", "rsa")}
    user_key = make_key(folder / "user")
    (folder / "authorized").write_text(f"{user_key}\n{authorized}\n")
    (folder / "authorized").chmod(0o600)
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nPidFile none\nUsePAM no\nStrictModes no\n"
        f"PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n"
        f"AuthorizedKeysFile {folder}/authorized\nSetEnv GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory"
        " GIT_CONFIG_VALUE_0=*\n" + "".join(f"HostKey {folder}/host_{kind}\n" for kind in hosts)
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where privileges are separated
    with (
        open(folder / "log", "wb") as log,
        _running([binary, "-f", f"{folder}/sshd_config", "-D", "-e"], port, stderr=log),
    ):
        yield SshServer(
            url=f"ssh://{getpass.getuser()}@127.0.0.1:{port}{repositories}",
            port=port,
            private_key=(folder / "user").read_text(),
            known_hosts="".join(
                f"[127.0.0.1]:{port} {' '.join(key.split()[:2])}\n" for key in hosts.values()
            ),
            folder=folder,
        )
