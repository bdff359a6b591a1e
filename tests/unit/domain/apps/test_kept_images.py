"""What the platform keeps on the engine, and what becomes of it."""

from __future__ import annotations

from typing import Any

import pytest

from controller.domain.apps.history import AppliedRevision
from controller.domain.apps.kept_images import (
    MOST_UNFINISHED,
    ImageKind,
    KeptImage,
    kept_images,
    needs_of,
    superfluous,
    verdicts,
)
from controller.domain.apps.status import AppStatus, ComponentStatus
from controller.domain.names import AppName, ComponentName

DEMO = AppName("demo")
NOON = 1_700_000_000


def image(id: str, created: int = NOON, *tags: str) -> dict[str, Any]:
    return {"Id": id, "Created": created, "Size": 5, "RepoTags": list(tags) or None}


def test_images_are_listed_for_each_app_that_has_them() -> None:
    shared = image("a", NOON, "prichal.local/one/build:1", "prichal.local/two/build:1", "python:3.12")
    pulled = image("b", NOON + 5, "prichal.local/one/pulled:17-b", "python:3.13")
    found = kept_images([shared, pulled], [image("c", NOON)], [{"ImageID": "a"}] * 2, "prichal", 60.0)
    assert [(each.app, each.kind, each.id, each.containers) for each in found] == [
        ("one", ImageKind.PULLED, "b", 0),
        ("one", ImageKind.BUILT, "a", 2),
        ("two", ImageKind.BUILT, "a", 2),
        ("", ImageKind.UNFINISHED, "c", 0),
    ]
    assert [each.due for each in found] == [None, None, None, NOON + 60.0]
    why = [each.why for each in verdicts(found, {"one": {}, "two": {}}, NOON, 60.0)]
    assert why[1] == "kept while it is used"
    assert len(set(why)) == 3


def test_another_instance_is_left_out() -> None:
    assert kept_images([image("a", NOON, "other.local/one/build:1")], [], [], "prichal", 60.0) == ()


def test_what_is_left_is_bounded_by_age_and_number() -> None:
    many = [image(f"{number:04}", NOON - number) for number in range(MOST_UNFINISHED + 7)]
    assert len(superfluous(many, (), NOON, 1e9)) == 7
    assert superfluous(many[-7:], (), NOON, 1e9) == ()
    assert len(superfluous(many, (), NOON, 9.0)) == MOST_UNFINISHED - 2, "ten are younger"
    assert len(superfluous(many, (), NOON, 0.0)) == len(many)


def test_what_is_used_stays_and_does_not_count() -> None:
    many = [image(f"{number:04}", NOON - number) for number in range(MOST_UNFINISHED + 1)]
    assert superfluous(many, {"0000"}, NOON, 1e9) == ()
    assert superfluous(many[:1], {"0000"}, NOON, 0.0) == ()


def test_those_beyond_the_number_are_due_at_once() -> None:
    many = [image(f"{number:04}", NOON - number) for number in range(MOST_UNFINISHED + 1)]
    found = kept_images([], many, [], "prichal", 60.0)
    assert [each.due for each in found][-2:] == [NOON - MOST_UNFINISHED + 1 + 60.0, NOON - MOST_UNFINISHED]


def test_a_person_may_have_removed_what_nothing_needs() -> None:
    def kept(app: str, kind: ImageKind, age: float = 100.0, containers: int = 0) -> KeptImage:
        return KeptImage(app, kind, f"sha256:{app}", "", 5, NOON - age, containers)

    cases = {
        kept("", ImageKind.UNFINISHED): "a build that has ended has left it",
        kept("gone", ImageKind.BUILT): "its app is gone",
        kept("gone", ImageKind.PULLED): "its app is gone",
        kept("", ImageKind.UNFINISHED, age=59.0): "",
        kept("gone", ImageKind.BUILT, age=59.0): "",
        kept("", ImageKind.UNFINISHED, containers=1): "",
        kept("gone", ImageKind.BUILT, containers=1): "",
        kept("demo", ImageKind.BUILT): "",
        kept("demo", ImageKind.PULLED): "",
        kept("", ImageKind.CACHE): "",
    }
    judged = verdicts(cases, {"demo": {}}, NOON, 60.0)
    assert [each.why if each.removed else "" for each in judged] == list(cases.values())
    assert all(each.why for each in judged)
    assert judged[7].why == "removed with a change of its app, but for the newest ones"


def entry(revision: str, image: str, pin: str, outcome: str = "Ready") -> AppliedRevision:
    pins = ((image, pin),)
    return AppliedRevision(DEMO, revision, "", "", ("push",), 1.0, 2.0, outcome, "", "", pins=pins)


def test_why_an_image_of_an_app_is_kept() -> None:
    a, b, c, d = (letter * 40 for letter in "abcd")
    status = AppStatus(
        DEMO,
        desired_revision=d,
        applied_revision=c,
        components=(ComponentStatus(ComponentName("model"), "MLComponent", image="sha256:serving"),),
        pins=(("new", "build sha256:new"), ("python", "pull python@sha256:1")),
    )
    history = [
        entry(d, "new", "build sha256:new", "Failed"),
        entry(c, "x", "build sha256:serving"),
        entry(b, "x", "build sha256:before"),
        entry(a, "python", "pull python@sha256:0"),
        entry("e" * 40, "x", "build sha256:older"),
    ]
    needs = {"demo": needs_of(status, history, 3)}

    def why(id: str, kind: ImageKind = ImageKind.BUILT, containers: int = 0, *digests: str) -> str:
        image = KeptImage("demo", kind, f"sha256:{id}", "", 5, NOON - 100, containers, digests=digests)
        (found,) = verdicts([image], needs, NOON, 60.0)
        assert not found.removed
        return found.why

    assert why("new") == why("p", ImageKind.PULLED, 1, "python@sha256:1") == "in force, at dddddddddddd"
    assert why("serving") == "in force, at cccccccccccc"
    assert why("before") == "kept for a rollback to bbbbbbbbbbbb, as far as docker.keptImages allows"
    assert why("before", containers=1) == "kept while it is used"
    assert why("p", ImageKind.PULLED, 0, "python@sha256:0").startswith(
        "of use for a rollback to aaaaaaaaaaaa; "
    )
    assert why("older") == "removed with a change of its app, but for the newest ones"


@pytest.mark.parametrize("declared", ["python", "docker.io/library/python", "index.docker.io/python"])
def test_an_app_may_need_what_was_pulled_for_one_that_is_gone(declared: str) -> None:
    """It was here when it was looked for, so nothing was pulled for the app that needs it now. The engine has one name
    for it, whatever the manifest says."""
    digest = f"sha256:{'a' * 64}"
    pulled = KeptImage("gone", ImageKind.PULLED, "sha256:b", "", 5, 1.0, digests=(f"python@{digest}",))
    pins = ((f"{declared}:3", f"registry {declared}@{digest}"),)
    status = AppStatus(DEMO, desired_revision="c" * 40, pins=pins)
    (judged,) = verdicts([pulled], {"demo": needs_of(status, (), 3)}, NOON, 60.0)
    assert (judged.removed, judged.why) == (False, "kept, since an app needs it")
    (judged,) = verdicts([pulled], {"demo": {}}, NOON, 60.0)
    assert (judged.removed, judged.why) == (True, "its app is gone")
