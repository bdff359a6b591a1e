"""Addresses of pipelines and runs: how people name them on the command line. Pure.

A pipeline is written `APP/PATH`, the path of its API, or `APP/pipelines/NAME` in the API of all pipelines of an app;
its run `APP/PATH/ID`. The URLs that the run API knows them by, `…/runs` and `…/runs/ID`, are addresses, too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Self
from urllib.parse import quote, unquote, urlsplit

from controller.domain.names import is_dns_label
from controller.domain.runs.run import is_run_id
from controller.domain.storage.addresses import AddressInvalid

_RUNS = re.compile(r"(?P<path>.+)/runs(?:/(?P<id>[^/]+))?/?")


@dataclass(frozen=True)
class PipelineAddress:
    """`path` is that of the API, `APP/PATH`; `server` is where the platform answers,
    `https://host[:port][/prefix]`, "" if the address has none. `by_url`: the address is a URL, whose
    path may begin with a prefix."""

    path: str
    server: str = ""
    by_url: bool = False

    @property
    def url(self) -> str:
        """Return the URL of its runs, without a query."""
        return f"{self.server}/{quote(self.path)}/runs"

    @property
    def app(self) -> str:
        return self.path.partition("/")[0]

    def on(self, server: str) -> Self:
        return replace(self, server=server)

    def run(self, id: str) -> RunAddress:
        return RunAddress(self, id)

    def linked(self, link: str, pipeline: str) -> RunAddress:
        """The run that the API lists with `link`, its path on the server: in an API of all pipelines it lies
        below that of its `pipeline`. Raises AddressInvalid."""
        found = _RUNS.fullmatch(unquote(link))
        if found is None or not is_run_id(found["id"] or ""):
            raise AddressInvalid(f"{link!r} is not a link to a run")
        base = found["path"].strip("/")
        # A server may lie behind a prefix that its own links do not have.
        own = f"/{self.path}".endswith(f"/{base}")
        return (self if own else replace(self, path=f"{self.path}/{pipeline}")).run(found["id"])

    def __str__(self) -> str:
        return self.url if self.by_url else self.path


@dataclass(frozen=True)
class RunAddress:
    pipeline: PipelineAddress
    id: str

    @property
    def url(self) -> str:
        return f"{self.pipeline.url}/{self.id}"

    def __str__(self) -> str:
        return f"{self.pipeline}/{self.id}"


def parse_pipeline(text: str) -> PipelineAddress:
    """Raises AddressInvalid."""
    pipeline, id = _parse(text)
    if id:
        raise AddressInvalid(f"{text!r} is a run: a pipeline is APP/PATH")
    return pipeline


def parse_run(text: str) -> RunAddress | PipelineAddress:
    """Parse the address of a run, or of a pipeline, which stands for its newest run. Raises AddressInvalid."""
    pipeline, id = _parse(text)
    return pipeline.run(id) if id else pipeline


def _parse(text: str) -> tuple[PipelineAddress, str]:
    """Return the pipeline, and the id of the run or ""."""
    if "://" in text:
        return _parse_url(text)
    path, _, last = text.rpartition("/")
    path, id = (path, last) if is_run_id(last) else (text, "")
    app, _, rest = path.partition("/")
    if not is_dns_label(app) or not all(rest.split("/")) or not _plain(rest):
        raise AddressInvalid(f"{text!r} is not a pipeline or run: write APP/PATH or APP/PATH/ID")
    return PipelineAddress(path), id


def _parse_url(text: str) -> tuple[PipelineAddress, str]:
    parts = urlsplit(text)
    found = _RUNS.fullmatch(unquote(parts.path))
    if parts.scheme not in ("http", "https") or not parts.hostname or found is None:
        raise AddressInvalid(f"{text!r} is not a pipeline or run: a URL ends in /APP/PATH/runs or /runs/ID")
    if parts.username is not None or parts.query or parts.fragment:
        raise AddressInvalid("a URL as an address has neither credentials nor ? or #: see --user")
    if not is_run_id(found["id"] or "0" * 19):
        raise AddressInvalid(f"{found['id']!r} is not the id of a run: those have 19 hexadecimal digits")
    server = f"{parts.scheme}://{parts.netloc}"
    return PipelineAddress(found["path"].strip("/"), server, by_url=True), found["id"] or ""


def _plain(path: str) -> bool:
    return path.isprintable() and not set(path) & set("?#\\ ") and ".." not in path.split("/")
