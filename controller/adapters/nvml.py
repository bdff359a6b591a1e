"""What NVIDIA's driver says of the GPUs, by its management library (NVML) and the binding `nvidia-ml-py`. Both are
optional: without them it is unknown what GPUs do, and they are lent all the same.

The driver is asked in a process of its own (`python -m controller.adapters.nvml`), which ends at once: so a library
that crashes or hangs does neither to the daemon, and no open handle keeps a GPU from being reset. That process imports
nothing of ours; `gpu_driver` starts it and reads its answer.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final, TypeVar

T = TypeVar("T")
Json = dict[str, Any]

MAX_DEVICES: Final = 128
NOT_INSTALLED: Final = "nvidia-ml-py is not installed"
NO_LIBRARY: Final = "libnvidia-ml.so.1 of NVIDIA's driver is not installed"
#: What the binding raises beside its own errors, if a library is another one than it expects.
_OTHER_ERRORS: Final = (OSError, ValueError, TypeError, AttributeError)
#: Nothing can run on the GPU until a person does something.
_LOST: Final = ("GPU_IS_LOST", "RESET_REQUIRED", "INSUFFICIENT_POWER", "IRQ_ISSUE", "GPU_NOT_FOUND")
#: This GPU, or this driver, does not say it, which is not a problem.
_UNSUPPORTED: Final = ("NOT_SUPPORTED", "FUNCTION_NOT_FOUND")


class Driver:
    """`nvml` is the module of the binding."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self._errors = (nvml.NVMLError, *_OTHER_ERRORS)

    def ask(self) -> Json:
        """Return all that the driver says, as a document."""
        try:
            self._nvml.nvmlInit()
        except self._errors as error:
            return {"problem": self._told(error)}
        try:
            devices: list[Json] = []
            for index in range(min(self._nvml.nvmlDeviceGetCount(), MAX_DEVICES)):
                devices += self._devices(index)
            return {"driver": self._try(self._nvml.nvmlSystemGetDriverVersion) or "", "devices": devices}
        except self._errors as error:
            return {"problem": self._told(error)}
        finally:
            self._try(self._nvml.nvmlShutdown)

    def _devices(self, index: int) -> Iterator[Json]:
        """Yield a GPU and its instances. Each is asked by itself: one that does not answer hides no other."""
        nvml = self._nvml
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
        except self._errors as error:
            yield {"index": str(index), "problem": self._told(error), "lost": self._is(error, _LOST)}
            return
        mode = self._try(lambda: nvml.nvmlDeviceGetMigMode(handle)[0])
        yield self._device(str(index), handle) | {"partitioned": mode == 1}
        if mode == 1:
            most = self._try(lambda: nvml.nvmlDeviceGetMaxMigDeviceCount(handle)) or 0
            for number in range(min(most, MAX_DEVICES)):
                with suppress(*self._errors):  # most of the places are empty
                    instance = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
                    yield self._device(f"{index}:{number}", instance)

    def _device(self, index: str, handle: Any) -> Json:
        problems: list[Exception] = []

        def read(call: Callable[[Any], T]) -> T | None:
            try:
                return call(handle)
            except self._errors as error:
                problems.append(error)
                return None

        nvml = self._nvml
        memory, use = read(nvml.nvmlDeviceGetMemoryInfo), read(nvml.nvmlDeviceGetUtilizationRates)
        found = {
            "index": index,
            "id": read(nvml.nvmlDeviceGetUUID) or "",
            "name": read(nvml.nvmlDeviceGetName) or "",
            "memory_used": memory.used if memory else None,
            "memory_total": memory.total if memory else None,
            "utilization": use.gpu / 100 if use else None,
        }
        lost = [error for error in problems if self._is(error, _LOST)]
        told = lost or [error for error in problems if not self._is(error, _UNSUPPORTED)]
        return found | {"problem": self._told(told[0]) if told else "", "lost": bool(lost)}

    def _is(self, error: Exception, names: tuple[str, ...]) -> bool:
        codes = {getattr(self._nvml, f"NVML_ERROR_{name}", -1) for name in names}
        return getattr(error, "value", None) in codes

    def _told(self, error: Exception) -> str:
        """Return the driver's words for an error. The binding finds some of them only in a library that works."""
        if self._is(error, ("LIBRARY_NOT_FOUND",)):
            return NO_LIBRARY
        return self._try(lambda: str(error)) or f"error {getattr(error, 'value', type(error).__name__)}"

    def _try(self, call: Callable[[], T]) -> T | None:
        try:
            return call()
        except self._errors:
            return None


def main() -> None:
    try:
        import pynvml  # optional
    except ImportError:
        found: Json = {"problem": NOT_INSTALLED}
    else:
        found = Driver(pynvml).ask()
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
