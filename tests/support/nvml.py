"""A stand-in for the library of NVIDIA's driver, which the real binding loads in a process of its own: no machine of
the tests has a GPU. `nvml_stand_in.c` is compiled into a folder, and that folder stands in LD_LIBRARY_PATH."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).with_name("nvml_stand_in.c")
GIB: Final = 2**30


@dataclass(frozen=True)
class StandInGpu:
    """`parent` is the place of the GPU that it is an instance of. `mig` is -1 where the mode is not known. The codes
    are what calls return instead: for the handle, the memory, the use and the id."""

    uuid: str
    name: str = "NVIDIA-A100"
    total: int = 40 * GIB
    used: int = GIB
    percent: int = 25
    mig: int = 0
    parent: int = -1
    handle_code: int = 0
    memory_code: int = 0
    use_code: int = 0
    id_code: int = 0

    @property
    def record(self) -> str:
        codes = f"{self.handle_code} {self.memory_code} {self.use_code} {self.id_code}"
        size = f"{self.total} {self.used} {self.percent} {self.mig}"
        return f"device {self.parent} {self.uuid} {self.name} {size} {codes}\n"


class StandInDriver:
    """Says what `says` wrote last. `env` are the variables by which a process finds it."""

    def __init__(self, folder: Path, *, old: bool = False) -> None:
        self._script = folder / "says"
        library = folder / "libnvidia-ml.so.1"
        flags = ["-DOLD"] if old else []
        # Without the C library of the compiler, which need not be installed: the process has one.
        command = ["cc", "-w", "-shared", "-fPIC", "-nostdlib", *flags, "-o", str(library), str(SOURCE)]
        subprocess.run(command, check=True)
        self.env: Mapping[str, str] = {"LD_LIBRARY_PATH": str(folder), "NVML_STAND_IN": str(self._script)}
        self.says()

    def says(self, *gpus: StandInGpu, init: int = 0, count: int = 0, driver: str = "550.54.15") -> None:
        records = [f"init {init}\n", f"count {count}\n", f"driver {driver}\n", *(gpu.record for gpu in gpus)]
        self._script.write_text("".join(records))

    def hangs(self) -> None:
        self._script.write_text("H\n")

    def crashes(self) -> None:
        self._script.write_text("C\n")


def has_compiler() -> bool:
    return shutil.which("cc") is not None
