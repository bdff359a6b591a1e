"""What the platform keeps on the engine, and what becomes of it."""

from __future__ import annotations

from typing import Any

from controller.domain.apps.kept_images import MOST_UNFINISHED, ImageKind, kept_images, superfluous

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
    assert found[1].fate == "kept while it is used"
    assert len({each.fate for each in found}) == 3


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
