"""The GPUs of this host for all who show them: what the daemon wrote down of the driver, the leases of the store and
the configuration, put together. Called by the status, the metrics and the page of the platform's health."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

from controller.config import Settings
from controller.domain.gpu_devices import GpuHolder, GpuReport, GpuState, gpu_states, read_report
from controller.ports import Store

MOST: Final = 2**20  # bytes of the daemon's document


def read_gpus(store: Store, settings: Settings, now: float) -> tuple[GpuState, ...]:
    """Return all GPUs, none on a host that lends none and has none lent."""
    gpus, leases = settings.runs.gpus, store.gpus.leases()
    if not gpus and not leases:
        return ()
    return gpu_states(gpus, written_report(settings.gpu_report), leases, store.runs.active(), now)


def written_report(path: Path) -> GpuReport:
    """Return what the daemon has written; an empty one if there is none, or not one that can be read."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST + 1)
        return read_report(json.loads(content)) if len(content) <= MOST else GpuReport()
    except (OSError, ValueError, RecursionError):
        return GpuReport()


def gpu_document(gpu: GpuState, sees: Callable[[str], bool]) -> dict[str, object]:
    """Return a GPU for the status API. Holders that the caller may not see are counted."""
    device = gpu.device
    seen = [holder for holder in gpu.holders if sees(holder.app)]
    return {
        "id": gpu.id,
        "lent": gpu.lent,
        "index": device.index if device else None,
        "name": device.name if device else None,
        "memoryUsed": device.memory_used if device else None,
        "memoryTotal": device.memory_total if device else None,
        "utilization": device.utilization if device else None,
        "problem": gpu.problem,
        "holders": [_holder(holder) for holder in seen],
        "otherHolders": len(gpu.holders) - len(seen),
    }


def _holder(holder: GpuHolder) -> dict[str, object]:
    if holder.run:
        return {"app": holder.app, "run": holder.run, "stage": holder.stage, "share": holder.share}
    return {
        "app": holder.app,
        "component": holder.component,
        "container": holder.container,
        "share": holder.share,
    }
