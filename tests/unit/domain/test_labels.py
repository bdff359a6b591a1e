"""Everything that an engine is asked to keep on workloads fits into labels of Kubernetes, and can be read again."""

from __future__ import annotations

import re
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from controller.domain import labels
from controller.domain.apps.fingerprint import fingerprints
from controller.domain.apps.spec import EnvVar
from controller.domain.names import AppName, ComponentName, job_name, short, workload_name
from controller.domain.runs.run import new_run_id
from controller.domain.secret import Secret
from tests.support.builders import spec
from tests.support.engines import own_server_workload

#: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/, and names of objects beside it.
VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
KEY = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
OBJECT = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")

names = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True)
commits = st.from_regex(r"[0-9a-f]{40}([0-9a-f]{24})?", fullmatch=True)
gpus = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9:/_.-]{0,20}", fullmatch=True)


def fit(found: dict[str, str]) -> bool:
    return all(KEY.fullmatch(key) and VALUE.fullmatch(value) for key, value in found.items())


def is_name(text: str) -> bool:
    return OBJECT.fullmatch(text) is not None and len(text) <= 253


@given(names, names, names, st.integers(0, 99), st.text(max_size=20), commits, st.lists(gpus, unique=True))
def test_labels_and_name_of_a_workload(
    instance: str,
    app: str,
    component: str,
    replica: int,
    variable: str,
    commit: str,
    lent: list[str],
) -> None:
    declared = replace(spec(component), env=(EnvVar("V", variable),))
    fingerprint = fingerprints(declared, "web@sha256:aa", (("V", Secret(variable)),), b"k" * 32)[-1]
    workload = replace(
        own_server_workload("web:1", AppName(app)),
        component=ComponentName(component),
        fingerprint=fingerprint,
        revision=commit,
        replica=replica,
        gpus=tuple(lent),
    )
    found = labels.of_workload(instance, workload)
    assert fit(found)
    assert labels.gpus(found) == tuple(lent)
    assert found[labels.FINGERPRINT] == fingerprint
    assert is_name(workload_name(instance, AppName(app), ComponentName(component), fingerprint, replica))
    assert re.fullmatch("[0-9a-f]{8}", short(fingerprint))


@given(names, names, st.floats(0, 4e9), st.integers(0), names, st.integers(1, 999))
def test_labels_and_name_of_a_job(
    instance: str, app: str, now: float, random: int, stage: str, attempt: int
) -> None:
    run = new_run_id(now, random)
    assert fit(labels.of_job(instance, AppName(app), run, stage, attempt))
    assert is_name(job_name(instance, AppName(app), run, stage, attempt))


@given(names, names)
def test_labels_of_what_an_app_shares(instance: str, app: str) -> None:
    assert fit(labels.of_app(instance, AppName(app)))


def test_every_key_fits() -> None:
    keys = [value for name, value in vars(labels).items() if name.isupper() and isinstance(value, str)]
    assert labels.BUILT_BY in keys
    assert all(KEY.fullmatch(f"{key}0") for key in keys)


def test_gpus_of_a_container_that_an_earlier_release_started() -> None:
    assert labels.gpus({"io.prichal.gpus": "0,GPU-b:1/2"}) == ("0", "GPU-b:1/2")


def test_gpus_are_in_the_order_of_their_numbers() -> None:
    lent = tuple(f"GPU-{number}" for number in range(12))
    workload = replace(own_server_workload("web:1", AppName("demo")), gpus=lent)
    assert labels.gpus(labels.of_workload("prichal", workload)) == lent


def test_a_label_that_somebody_made_up_is_none_of_ours() -> None:
    assert labels.gpus({"io.prichal.gpu-x": "0", "io.prichal.gpu-": "1"}) == ()
