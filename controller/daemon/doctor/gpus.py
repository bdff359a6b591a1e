"""The check of GPUs: what is lent, what the driver shows, and who has it."""

from __future__ import annotations

from controller.adapters.gpu_driver import NOT_INSTALLED, GpuDriver
from controller.config import Settings
from controller.domain.findings import Finding
from controller.domain.gpu_devices import GpuState, gpu_states
from controller.domain.localizable import Localizable, joined
from controller.domain.runs.gpus import Lease
from controller.domain.runs.run import Run
from controller.domain.units import about_size
from controller.store import open_guest_store


def check_gpus(settings: Settings) -> str:
    """Compare the GPUs of the configuration with those that the driver shows, and say who has them."""
    lent = settings.runs.gpus
    if not settings.docker.is_here:
        return Localizable(
            "{lent} lent (runs.gpus), on the engine's host, whose driver is not asked", lent=len(lent)
        )
    report = GpuDriver().read()
    if not lent:
        shown = ", ".join(f"{device.index} ({device.name} {device.id})" for device in report.devices)
        return Localizable(
            "none are lent (runs.gpus); the driver shows {shown}", shown=shown or Localizable("none")
        )
    states = gpu_states(lent, report, *_holders(settings), report.at)
    told = joined(map(_told_gpu, states))
    if report.problem == NOT_INSTALLED:
        return Localizable("{told}. What they do is unknown: {problem}", told=told, problem=report.problem)
    if report.problem:
        advice = Localizable(
            "check the driver: nvidia-smi; after an update of it, restart the host. The unit may hide "
            "devices: docs/guide/operations.md, GPUs. GPUs are lent all the same"
        )
        raise Finding(
            Localizable("{told}. What they do is unknown: {problem}", told=told, problem=report.problem),
            advice,
        )
    if any(state.blocked for state in states):
        advice = Localizable(
            "list in runs.gpus what `nvidia-smi -L` shows, each once, and restart the daemon; a GPU that is "
            "lost needs a reset (nvidia-smi --gpu-reset) or a restart of the host"
        )
        raise Finding(told, advice)
    return told


def _holders(settings: Settings) -> tuple[tuple[Lease, ...], tuple[Run, ...]]:
    if not settings.database.exists():
        return (), ()
    store = open_guest_store(settings.database)
    try:
        return store.gpus.leases(), store.runs.active()
    finally:
        store.close()


def _told_gpu(state: GpuState) -> str:
    device = state.device
    facts = [device.name] if device and device.name else []
    if device and device.memory_used is not None and device.memory_total is not None:
        facts.append(
            Localizable(
                "{memory_used} of {memory_total} in use",
                memory_used=about_size(device.memory_used),
                memory_total=about_size(device.memory_total),
            )
        )
    if device and device.utilization is not None:
        facts.append(Localizable("{share} busy", share=f"{device.utilization:.0%}"))
    if state.problem:
        facts.append(state.problem)
    if not state.lent:
        facts.append(Localizable("not lent"))
    owners = [f"{holder.app}/{holder.component or holder.stage}" for holder in state.holders]
    facts.append(Localizable("held by {owners}", owners=", ".join(owners)) if owners else Localizable("free"))
    return joined((state.id, joined(facts, ", ")), ": ")
