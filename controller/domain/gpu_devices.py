"""GPUs of this host as their driver shows them, beside those that the platform lends (`runs.gpus`) and those who hold
them. Pure: the adapter asks the driver, the daemon writes down what it says, and all others read that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from controller.domain.localizable import Localizable, as_document, restored
from controller.domain.names import AppName
from controller.domain.runs.gpus import Lease
from controller.domain.runs.run import Run
from controller.domain.text import excerpt, printable

FRESH: Final = 60.0  # seconds for which a report counts
_LEAST_ID: Final = len("GPU-") + 1  # characters of an id from which on its beginning may stand for it


@dataclass(frozen=True)
class GpuDevice:
    """A GPU, or an instance of one in MIG mode. `index` is the driver's, such as `0`, or `0:1` for an instance. What
    the driver does not say is None or empty; `memory_used` and `memory_total` are in bytes, `utilization` is 0 to 1.
    `problem` is why less is known of it; if it is `lost`, nothing can run on it. One that is `partitioned` has
    instances, and cannot be lent as a whole."""

    index: str
    id: str = ""
    name: str = ""
    memory_used: int | None = None
    memory_total: int | None = None
    utilization: float | None = None
    problem: str = ""
    lost: bool = False
    partitioned: bool = False


@dataclass(frozen=True)
class GpuReport:
    """What the driver said at `at`, in Unix seconds; 0 means that nobody has asked it. `problem` is why it said
    nothing."""

    at: float = 0.0
    driver: str = ""
    devices: tuple[GpuDevice, ...] = ()
    problem: str = ""

    def is_fresh(self, now: float) -> bool:
        return not self.problem and abs(now - self.at) <= FRESH


@dataclass(frozen=True)
class GpuHolder:
    """Who has a GPU: a container of a component, or a stage of a run. `share` is how many may have it at once."""

    app: AppName
    component: str = ""
    container: str = ""
    pipeline: str = ""
    run: str = ""
    stage: str = ""
    share: int = 1


@dataclass(frozen=True)
class GpuState:
    """One GPU. `id` is the one of the configuration if it is `lent`, else the driver's. `problem` is why it is not
    given to anybody at the moment (`blocked`), or why less is known of it. `device` is None if the driver does not
    show it."""

    id: str
    lent: bool
    device: GpuDevice | None = None
    problem: str = ""
    holders: tuple[GpuHolder, ...] = ()
    blocked: bool = False

    @property
    def usable(self) -> bool:
        """Return True if it is lent to those who ask, or would be if nobody had it."""
        return self.lent and not self.blocked


def find_device(id: str, devices: Sequence[GpuDevice]) -> GpuDevice | None:
    """Return the device that a configured id means, as NVIDIA's runtime reads it: an index, or a UUID or its
    beginning."""
    wanted = id.casefold()
    exact = [device for device in devices if wanted in (device.index, device.id.casefold())]
    if exact or len(id) < _LEAST_ID:
        return exact[0] if exact else None
    beginning = [device for device in devices if device.id.casefold().startswith(wanted)]
    return beginning[0] if len(beginning) == 1 else None


def unusable(gpus: Iterable[str], report: GpuReport, now: float) -> Mapping[str, str]:
    """Return the configured GPUs that cannot be lent, with the reason. None if the driver says nothing: it may be that
    only its library is missing."""
    if not report.is_fresh(now):
        return {}
    found: dict[str, str] = {}
    owners: dict[str, str] = {}
    for id in gpus:
        device = find_device(id, report.devices)
        if device is None:
            found[id] = Localizable("the driver does not know it")
        elif device.lost:
            found[id] = device.problem
        elif device.partitioned:
            found[id] = Localizable("it is in MIG mode: lend its instances")
        elif device.index in owners:
            found[id] = Localizable("it is the same as {gpu}", gpu=owners[device.index])
        else:
            owners[device.index] = id
    return found


def gpu_states(
    gpus: Sequence[str], report: GpuReport, leases: Iterable[Lease], active: Iterable[Run], now: float
) -> tuple[GpuState, ...]:
    """Return all GPUs: those of the configuration in its order, those that others still hold, and those that the driver
    shows besides."""
    holders = _holders(leases, active)
    problems, devices = unusable(gpus, report, now), report.devices if report.is_fresh(now) else ()
    found: list[GpuState] = []
    seen = set[str]()
    for id in (*gpus, *sorted(holders.keys() - set(gpus))):
        device = find_device(id, devices)
        problem = problems.get(id) or (device.problem if device else "")
        owners = tuple(holders.get(id, ()))
        found.append(GpuState(id, id in gpus, device, problem, owners, blocked=id in problems))
        if device:
            seen.add(device.index)
    rest = (device for device in devices if device.index not in seen)
    found += [GpuState(each.id or each.index, False, each, each.problem) for each in rest]
    return tuple(found)


def _holders(leases: Iterable[Lease], active: Iterable[Run]) -> dict[str, list[GpuHolder]]:
    found: dict[str, list[GpuHolder]] = {}
    for gpu, holder in (*_components(leases), *_stages(active)):
        found.setdefault(gpu, []).append(holder)
    return found


def _components(leases: Iterable[Lease]) -> Iterator[tuple[str, GpuHolder]]:
    for lease in leases:
        for gpu in lease.gpus:
            yield gpu, GpuHolder(lease.app, lease.component, lease.workload, share=lease.share)


def _stages(active: Iterable[Run]) -> Iterator[tuple[str, GpuHolder]]:
    for run in active:
        for stage in run.stages:
            for attempt in stage.attempts:
                for gpu in attempt.gpus if not attempt.ended else ():
                    share = run.pipeline.stage(stage.name).resources.per_gpu
                    yield (
                        gpu,
                        GpuHolder(run.app, pipeline=run.name, run=run.id, stage=stage.name, share=share),
                    )


def use_of(gpus: Sequence[str], report: GpuReport, now: float) -> tuple[float | None, float | None]:
    """Return the mean use of these GPUs, 0 to 1, and the bytes of their memory that are in use, by all containers; None
    for what is not known of all of them."""
    if not gpus or not report.is_fresh(now):
        return None, None
    found = [find_device(gpu, report.devices) for gpu in gpus]
    shares = [device.utilization for device in found if device and device.utilization is not None]
    memory = [device.memory_used for device in found if device and device.memory_used is not None]
    return (
        sum(shares) / len(gpus) if len(shares) == len(gpus) else None,
        float(sum(memory)) if len(memory) == len(gpus) else None,
    )


# --- as a document ----------------------------------------------------------------------------------------------

_MOST_DEVICES: Final = 1024
_LONGEST: Final = 200  # characters of a text
_LARGEST: Final = 2**50  # bytes of memory


def read_report(document: object, at: float = 0.0) -> GpuReport:
    """Return the report of a document that another process wrote; a report of a problem if it is none. `at` counts if
    the document has no time."""
    try:
        return _report(document, at)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return GpuReport(at, problem=Localizable("what was said of them cannot be read"))


def _report(raw: Any, at: float) -> GpuReport:
    devices = raw.get("devices", []) if isinstance(raw, dict) else None
    if not isinstance(devices, list) or len(devices) > _MOST_DEVICES:
        raise ValueError("no list of devices")
    return GpuReport(
        at=float(raw.get("at", at)),
        driver=_text(raw.get("driver", "")),
        devices=tuple(map(_read_device, devices)),
        problem=restored(_text(raw.get("problem", "")), raw.get("told")),
    )


def _read_device(raw: Any) -> GpuDevice:
    use = raw.get("utilization")
    return GpuDevice(
        index=_text(raw["index"]),
        id=_text(raw.get("id", "")),
        name=_text(raw.get("name", "")),
        memory_used=_size(raw.get("memory_used")),
        memory_total=_size(raw.get("memory_total")),
        utilization=min(1.0, max(0.0, float(use))) if isinstance(use, int | float) and use == use else None,
        problem=_text(raw.get("problem", "")),
        lost=raw.get("lost") is True,
        partitioned=raw.get("partitioned") is True,
    )


def _text(raw: object) -> str:
    if not isinstance(raw, str):
        raise TypeError("no text")
    return excerpt(printable(raw), _LONGEST)


def _size(raw: object) -> int | None:
    return raw if isinstance(raw, int) and 0 <= raw <= _LARGEST else None


def write_report(report: GpuReport) -> dict[str, object]:
    """Return the document that `read_report` reads."""
    return {
        **asdict(report),
        "devices": [asdict(device) for device in report.devices],
        "told": as_document(report.problem),
    }
