"""`python -m benchmarks [--quick] [deploy builds heal push serving processes batches tensors gateway streams sockets
idle apps files listing runs queue logs shares pages]`: measure, print a table, write build/bench.json, or the file that
BENCH_RESULT names. With --quick everything is done once or a few times only: it shows that the measurements work, and
its figures mean nothing.

Needs a Docker engine and the examples' base image, which `make bench` sees to. No figure passes or fails: the aims are
shown beside what was measured. The exit code is 1 only if a measurement could not be made.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import docker

from benchmarks import (
    batches,
    builds,
    deploy,
    healing,
    idle,
    many_apps,
    pages,
    processes,
    pushes,
    runs,
    serving,
    shares,
    sockets,
    storage,
    streams,
    tensors,
)
from benchmarks.environment import Environment, prepared
from benchmarks.figures import Figure, Section
from benchmarks.limits import Endless, ended_after

RESULT = Path(os.environ.get("BENCH_RESULT") or Path(__file__).parent.parent / "build" / "bench.json")
LIMIT, QUICK_LIMIT = 3600, 300  # seconds that a measurement may take, and a shortened one
SECTIONS: Mapping[str, Callable[[Environment], Section]] = {
    "deploy": deploy.measure,
    "builds": builds.measure,
    "heal": healing.measure,
    "push": pushes.measure,
    "serving": serving.measure_library,
    "processes": processes.measure,
    "batches": batches.measure,
    "tensors": tensors.measure,
    "gateway": serving.measure_path,
    "streams": streams.measure,
    "sockets": sockets.measure,
    "idle": idle.measure,
    "apps": many_apps.measure,
    "files": storage.measure_files,
    "listing": storage.measure_large_listing,
    "runs": runs.measure_runs,
    "queue": runs.measure_queue,
    "logs": runs.measure_logs,
    "shares": shares.measure_shares,
    "pages": pages.measure_pages,
}


def main(arguments: list[str]) -> int:
    quick = "--quick" in arguments
    arguments = [argument for argument in arguments if argument != "--quick"]
    unknown = set(arguments) - set(SECTIONS)
    if unknown:
        print(
            f"no such measurement: {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}",
            file=sys.stderr,
        )
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is ended on the way out
    home = Path(tempfile.mkdtemp(prefix="prichal-bench-"))
    try:
        with prepared(home, quick) as ground:
            machine = describe(ground.docker)
            print(f"{machine}\n\n{_row('', 'min', 'median', 'max', '', '')}", flush=True)
            results = [_measured(name, ground) for name in arguments or SECTIONS]
    finally:
        shutil.rmtree(home, ignore_errors=True)
    RESULT.parent.mkdir(exist_ok=True)
    document = {"machine": machine, "at": time.time(), "sections": {r.name: r.document() for r in results}}
    RESULT.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    print(f"\nwritten to {os.path.relpath(RESULT)}")
    return 1 if any(not result.figures for result in results) else 0


def _measured(name: str, ground: Environment) -> Section:
    """One that fails, or does not end, is told and does not take the others with it."""
    begun = time.monotonic()
    try:
        with ended_after(ground.count(LIMIT, QUICK_LIMIT)):
            section = SECTIONS[name](ground)
    except (Exception, Endless) as error:  # noqa: BLE001 - whatever it was
        section = Section(name, "failed", notes=[f"{type(error).__name__}: {error}"])
    print(f"\n{section.name}: {section.title} ({time.monotonic() - begun:.0f} s)", flush=True)
    for figure in section.figures:
        print(_line(figure))
    for note in section.notes:
        print(f"  ! {note}")
    sys.stdout.flush()
    return section


def _line(figure: Figure) -> str:
    low, middle, high = (_number(value) for value in (figure.low, figure.median, figure.high))
    return _row(figure.name, low, middle, high, figure.unit, figure.aim and f"aim: {figure.aim}")


def _row(name: str, low: str, middle: str, high: str, unit: str, aim: str) -> str:
    return f"  {name:52}{low:>9}{middle:>9}{high:>9} {unit:6}{aim}".rstrip()


def _number(value: float) -> str:
    """Three digits that mean something; whole numbers as they are."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def describe(client: docker.APIClient) -> str:
    model = next(
        (
            line.partition(": ")[2]
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return (
        f"{os.cpu_count()} processors ({model}), {memory:.0f} GiB, load {os.getloadavg()[0]:.1f} at the start; "
        f"Linux {platform.release()}, Docker {client.version()['Version']}, Python {platform.python_version()}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
