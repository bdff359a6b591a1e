"""Paths that a manifest gives: where variables are mounted, and what is looked for in boxes."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.apps.mounts import nested, unmountable
from controller.manifests.validate import validate_folder


def problems(folder: Path, **mount_to: str) -> list[str]:
    """Of a pipeline whose stage takes in `a` and `b` and makes `c`."""
    variables = [{"name": n, **({"mountTo": mount_to[n]} if n in mount_to else {})} for n in "abc"]
    return check(
        folder,
        f"""
        apiVersion: unified-platform.cs.hse.ru/v1
        kind: ExperimentPipeline
        metadata: {{name: train}}
        spec:
          vars: {variables}
          stages:
            - name: fit
              image: {{existingImageName: "x:1"}}
              inputs: [{{name: a}}, {{name: b}}]
              outputs: [{{name: c}}]
        """,
    )


def check(folder: Path, text: str) -> list[str]:
    (folder / "all.yaml").write_text(dedent(text))
    return [str(problem) for problem in validate_folder(folder).problems]


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/bin",
        "/bin/",
        "/sbin",
        "/lib",
        "/lib64/x",
        "/boot",
        "/dev",
        "/dev/shm",
        "/etc",
        "/etc/hosts",
        "/etc/passwd",
        "/proc",
        "/proc/1",
        "/sys",
        "/sys/fs/cgroup",
        "/usr",
        "/usr/bin",
        "/usr/lib/python3",
        "/usr/local",
        "/usr/local/bin",
        "/usr/share",
        "/var",
        "/var/lib",
        "/var/run/docker.sock",
        "/home",
        "/root",
        "/tmp",
        "/opt",
        "/opt/prichal",
        "/opt/prichal/prichal_serving",
        "/opt/prichal/model",
        "/opt/prichal/progress",
        "/unip",
        "/unip/b",
        "/unip/c/x",
        "work",
        "./work",
        "../work",
        "/work/../etc",
        "/work/..",
        "/work/./x",
        "/work//x",
        "//",
        "''",
    ],
)
def test_where_nothing_can_be_mounted(tmp_path: Path, target: str) -> None:
    (found,) = problems(tmp_path, a=target.replace("''", ""))
    assert found.startswith("all.yaml:6:"), "at its place"
    assert "spec.vars[0].mountTo: " in found


@pytest.mark.parametrize(
    "target",
    ["/data", "/work/data/", "/opt/app/data", "/usr/src/app/data", "/var/lib/app", "/home/me/x", "/unip/a"],
)
def test_where_variables_may_lie(tmp_path: Path, target: str) -> None:
    assert problems(tmp_path, a=target) == []


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("/data", "/data"),
        ("/data/", "/data"),
        ("/data", "/data/b"),
        ("/data/a/x/", "/data/a"),
        ("/unip/a", "/unip/a"),
    ],
)
def test_one_within_another(tmp_path: Path, a: str, b: str) -> None:
    found = problems(tmp_path, a=a, b=b)
    assert found
    assert "spec.vars[1].mountTo: " in found[-1]
    assert "choose another path" in found[-1]


def test_in_different_stages_one_may_lie_within_another(tmp_path: Path) -> None:
    text = """
        apiVersion: unified-platform.cs.hse.ru/v1
        kind: ExperimentPipeline
        metadata: {name: train}
        spec:
          vars: [{name: a, mountTo: /data}, {name: b, mountTo: /data/b}]
          stages:
            - {name: fit, image: {existingImageName: "x:1"}, outputs: [{name: a}]}
            - {name: tell, image: {existingImageName: "x:1"}, outputs: [{name: b}]}
        """
    assert check(tmp_path, text) == []


@pytest.mark.parametrize("path", ["a//b", "a/./b", ".", "a\\\\b", "x" * 256, "a/" + "y" * 256, " ../x"])
@pytest.mark.parametrize("field", ["modelPath", "mountFrom", "publishTo"])
def test_paths_in_boxes(tmp_path: Path, field: str, path: str) -> None:
    model = f'server: own, modelBox: box, modelPath: "{path}"' if field == "modelPath" else "server: own"
    place = (
        f', {field}: {{box: box, path: "{path}{"/" if field == "publishTo" else ""}"}}'
        if field != "modelPath"
        else ""
    )
    use = "outputs: [{name: v}]" if field == "publishTo" else "inputs: [{name: v}]"
    found = check(
        tmp_path,
        f"""
        apiVersion: unified-platform.cs.hse.ru/v1
        kind: DataBox
        metadata: {{name: box}}
        spec: {{s3DefaultStorage: {{}}}}
        ---
        apiVersion: unified-platform.cs.hse.ru/v1
        kind: MLComponent
        metadata: {{name: serve}}
        spec: {{image: {{existingImageName: "x:1"}}, mlService: {{{model}}}}}
        ---
        apiVersion: unified-platform.cs.hse.ru/v1
        kind: ExperimentPipeline
        metadata: {{name: train}}
        spec:
          vars: [{{name: v{place}}}]
          stages: [{{name: fit, image: {{existingImageName: "x:1"}}, {use}}}]
        """,
    )
    assert found
    assert all(field in problem for problem in found), found


SEGMENTS = st.lists(
    st.sampled_from(["a", "b", "usr", "etc", "proc", "unip", "opt", "prichal", "bin", "local"]), max_size=4
)


@given(SEGMENTS, SEGMENTS)
def test_nesting(one: list[str], other: list[str]) -> None:
    """It is symmetric, and so are parts of paths, not of their text."""
    first, second = "/" + "/".join(one), "/" + "/".join(other)
    short = min(len(one), len(other))
    assert nested(first, second) == nested(second, first) == (one[:short] == other[:short])


@given(SEGMENTS)
def test_what_is_below_the_system_is_as_the_system(segments: list[str]) -> None:
    target = "/" + "/".join(segments)
    if segments[:1] in (["etc"], ["proc"], ["bin"]) or segments[:2] in (["usr", "bin"], ["opt", "prichal"]):
        assert unmountable("a", target)
