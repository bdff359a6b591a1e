"""What the operator demands: names of images as people write them, and patterns for them."""

from __future__ import annotations

import pytest

from controller.domain.apps.policies import NO_POLICIES, Policies, whole_name

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("python", "docker.io/library/python"),
        ("python:3.12-slim", "docker.io/library/python"),
        (f"python:3.12@{DIGEST}", "docker.io/library/python"),
        (f"python@{DIGEST}", "docker.io/library/python"),
        ("team/tool:1", "docker.io/team/tool"),
        ("docker.io/python", "docker.io/library/python"),
        ("index.docker.io/team/tool", "docker.io/team/tool"),
        ("registry-1.docker.io/library/python", "docker.io/library/python"),
        ("localhost/tool", "localhost/tool"),
        ("127.0.0.1:5000/team/tool:2", "127.0.0.1:5000/team/tool"),
        ("Registry.Example.org/team/tool", "registry.example.org/team/tool"),
        ("registry.example.org:5000/a/b/c", "registry.example.org:5000/a/b/c"),
        ("team.tools/x", "team.tools/x"),
        ("EVIL/team/x", "evil/team/x"),
        ("Localhost/x", "localhost/x"),
        ("team/registry.example.org/x", "docker.io/team/registry.example.org/x"),
    ],
)
def test_names_of_images(reference: str, name: str) -> None:
    assert whole_name(reference) == name


@pytest.mark.parametrize(
    ("patterns", "reference", "allowed"),
    [
        ((), "anything:1", True),
        (("registry.example.org/*",), "registry.example.org/team/tool:1", True),
        (("registry.example.org/*",), "registry.example.org.evil.example/team/tool", False),
        (("registry.example.org/*",), "evil.example/registry.example.org/tool", False),
        (("registry.example.org/*",), "registry.example.org:5000/tool", False),
        (("docker.io/library/python",), "python:3.12", True),
        (("docker.io/library/python",), "python-evil:3.12", False),
        (("docker.io/library/*",), "team/tool", False),
        (("docker.io/library/*", "team.example/*"), "team.example/x", True),
    ],
)
def test_where_images_come_from(patterns: tuple[str, ...], reference: str, allowed: bool) -> None:
    assert Policies(images=patterns).allows_image(reference) is allowed


@pytest.mark.parametrize(
    ("images", "patterns", "reference", "allowed"),
    [
        ((), (), "team.example/ci/x:1", False),
        ((), ("*",), "team.example/ci/x:1", True),
        ((), ("team.example/ci/*",), "team.example/ci/x@sha256:" + "0" * 64, True),
        ((), ("team.example/ci/*",), "team.example/x/ci/x", False),
        ((), ("docker.io/library/*",), "python:3.12", True),
        (("docker.io/*",), ("*",), "team.example/ci/x:1", False),
        (("docker.io/*",), (), "python:3.12", False),
    ],
)
def test_which_images_builds_may_have_as_cache(
    images: tuple[str, ...], patterns: tuple[str, ...], reference: str, allowed: bool
) -> None:
    """None without a word of the operator, and none that is not allowed as an image."""
    assert Policies(images=images, cache_images=patterns).allows_cache(reference) is allowed


def test_build_arguments_and_names() -> None:
    policies = Policies(forbidden_build_args=("*_PROXY",), names="team-[a-z0-9-]+")
    assert [policies.allows_build_arg(name) for name in ("HTTP_PROXY", "PROXY", "PIP")] == [False, True, True]
    assert [policies.allows_name(name) for name in ("team-a", "team-", "a-team-a", "team-a\n")] == [
        *(True, False, False, False)
    ]
    assert NO_POLICIES.allows_build_arg("HTTP_PROXY")
    assert NO_POLICIES.allows_name("anything")
