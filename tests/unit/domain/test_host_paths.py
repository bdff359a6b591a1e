"""Nobody who calls learns where something lies on the host, and what is said stays understandable."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.host_paths import may_have_host_paths, without_host_paths

STATE = Path("/var/lib/prichal")
RUN = f"{STATE}/runs/19c0a7f3e2d5b1f04a6"
OVERLAY = "/var/lib/docker/overlay2/0f4c/merged"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("it needs more than 1Gi", "it needs more than 1Gi"),
        (
            f"[Errno 13] Permission denied: '{RUN}/fit.1/out/model/x'",
            "[Errno 13] Permission denied: 'fit.1/out/model/x'",
        ),
        (f"cannot write {STATE}/models/abc: full", "cannot write the state folder: full"),
        (f"no space below {STATE}", "no space below the state folder"),
        (
            f'error mounting "{RUN}/in/t" to rootfs at "{OVERLAY}/data"',
            'error mounting "in/t" to rootfs at "/data"',
        ),
        (f"mkdir {OVERLAY}/etc/hostname: not a directory", "mkdir /etc/hostname: not a directory"),
        (
            "write /var/lib/docker/tmp/x: no space left on device",
            "write the engine's folder: no space left on device",
        ),
        ("dial unix /var/run/docker.sock: refused", "dial unix the engine's folder: refused"),
        ("/data is a folder in the image", "/data is a folder in the image"),
        ("/var/lib/prichals-cousin/x is yours", "/var/lib/prichals-cousin/x is yours"),
    ],
)
def test_messages(text: str, expected: str) -> None:
    assert without_host_paths(text, STATE) == expected
    assert may_have_host_paths(text, STATE) or expected == text


#: What it was done with before, in time that grows with the cube of a path's length.
_REST = r"[^\s\"'`:;,()]*"
_SLOW = re.compile(rf"/{_REST}?/(?:overlay2?|vfs)/{_REST}?/(?:merged|fs)\b")


@given(st.lists(st.sampled_from(["/overlay2", "/vfs", "/merged", "/fs", "/", "x", "s", " "])).map("".join))
def test_roots_of_containers_are_found_as_by_one_pattern(text: str) -> None:
    assert without_host_paths(text, STATE) == _SLOW.sub("", text)


@given(
    st.lists(
        st.sampled_from([RUN, str(STATE), OVERLAY, "/x", " ", "'", '"', ": ", "out", "/", "é"]), max_size=12
    )
)
def test_no_path_of_the_host_is_left(parts: list[str]) -> None:
    """And doing it again changes nothing."""
    found = without_host_paths(" ".join(parts), STATE)
    assert "overlay2" not in found
    assert f"{RUN}/" not in found
    assert without_host_paths(found, STATE) == found


_PARTS = (
    str(STATE),
    "/overlay2",
    "/merged",
    "/fs",
    "/run/",
    "docker",
    "containerd",
    "http+unix://",
    "x",
    "/",
    " ",
)


@given(st.lists(st.sampled_from(_PARTS), max_size=8).map("".join))
def test_what_can_have_none_is_left_alone(text: str) -> None:
    assert may_have_host_paths(text, STATE) or without_host_paths(text, STATE) == text
