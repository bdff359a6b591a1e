"""The labels that an engine keeps on workloads, jobs and networks. Objects without our value of `INSTANCE`
are never changed.

Keys and values fit into the labels of Kubernetes: at most 63 of `A-Za-z0-9._-`, a letter or digit at either end.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from controller.domain.apps.desired import Workload
from controller.domain.apps.spec import ComponentKind
from controller.domain.names import AppName

INSTANCE = "io.prichal.instance"
APP = "io.prichal.app"
COMPONENT = "io.prichal.component"
KIND = "io.prichal.kind"
FINGERPRINT = "io.prichal.fingerprint"
REVISION = "io.prichal.revision"
REPLICA = "io.prichal.replica"
PORT = "io.prichal.port"
GPU = "io.prichal.gpu-"  # and a number from 0 on: one label for each
GPU_SHARE = "io.prichal.gpu-share"  # how many containers may have each of its GPUs; absent: only this one
RUN = "io.prichal.run"
STAGE = "io.prichal.stage"
ATTEMPT = "io.prichal.attempt"
#: For components whose manifest does not say whether they write to their root file system: `read-only`, or
#: `writable` after they did not start with that.
ROOT = "io.prichal.root"

#: On images. Not `INSTANCE`: a container that a person starts from the image inherits its labels, and is not ours.
BUILT_BY = "io.prichal.built-by"
#: On containers that set the firewall, which are removed as soon as they have ended.
FIREWALL = "io.prichal.firewall"
#: On containers that limit the steps of builds, which are removed with the end of the build.
BUILD_LIMITS = "io.prichal.build-limits"

MAX_VALUE: Final = 63
_GPUS_BEFORE = "io.prichal.gpus"  # all ids, with commas between: on containers that release 0.1.0 started
_PLAIN = re.compile(r"[A-Za-z0-9_-]")
_ESCAPED = re.compile(r"\.([0-9a-f]{2})")


def of_app(instance: str, app: AppName) -> dict[str, str]:
    return {INSTANCE: instance, APP: app}


def of_workload(instance: str, workload: Workload) -> dict[str, str]:
    return {
        **of_app(instance, workload.app),
        COMPONENT: workload.component,
        KIND: ComponentKind.ML_COMPONENT,
        FINGERPRINT: workload.fingerprint,
        REVISION: workload.revision[:MAX_VALUE],
        REPLICA: str(workload.replica),
        PORT: str(workload.spec.port),
        **{f"{GPU}{number}": gpu_value(gpu) for number, gpu in enumerate(workload.gpus)},
        **_share(workload),
    }


def _share(workload: Workload) -> dict[str, str]:
    share = workload.spec.resources.per_gpu
    return {GPU_SHARE: str(share)} if workload.gpus and share > 1 else {}


def of_job(instance: str, app: AppName, run: str, stage: str, attempt: int) -> dict[str, str]:
    return {
        **of_app(instance, app),
        KIND: ComponentKind.EXPERIMENT_PIPELINE,
        RUN: run,
        STAGE: stage,
        ATTEMPT: str(attempt),
    }


def gpu_value(gpu: str) -> str:
    """Return the id of a GPU as the value of a label. Ids may have `:` and `/`, which labels may not: all but
    letters, digits, `_` and `-` are escaped as `.` and two hexadecimal digits, and so is what a value may not
    end with."""
    whole = [char if _PLAIN.fullmatch(char) else _escape(char) for char in gpu]
    if gpu[-1:] in ("-", "_"):
        whole[-1] = _escape(gpu[-1])
    return "".join(whole)


def _escape(char: str) -> str:
    return f".{ord(char):02x}"


def gpus(found: Mapping[str, str]) -> tuple[str, ...]:
    """Return the ids of the GPUs that a workload was given, from its labels."""
    if before := found.get(_GPUS_BEFORE):
        return tuple(filter(None, before.split(",")))
    numbered = [(int(number), value) for key, value in found.items() if (number := _number(key))]
    return tuple(_ESCAPED.sub(lambda match: chr(int(match[1], 16)), value) for _, value in sorted(numbered))


def gpu_share(found: Mapping[str, str]) -> int:
    """Return how many containers may have each of these GPUs; 1 for what cannot be read."""
    value = found.get(GPU_SHARE, "")
    return int(value) if re.fullmatch(r"[1-9][0-9]?", value) else 1


def _number(key: str) -> str:
    number = key.removeprefix(GPU)
    return number if key.startswith(GPU) and re.fullmatch(r"[0-9]{1,4}", number) else ""
