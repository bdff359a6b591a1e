"""What goes and what is ended where runs hold too much of the disk."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controller.domain.names import AppName
from controller.domain.runs.disk import Held, excess, used

ONE, OTHER = AppName("one"), AppName("other")

held = st.lists(st.tuples(st.sampled_from((ONE, OTHER)), st.integers(0, 60), st.booleans()), max_size=12).map(
    lambda drawn: [Held(f"r{n:02}", app, size, kept) for n, (app, size, kept) in enumerate(drawn)]
)


def test_the_oldest_goes_first() -> None:
    runs = [Held(id, ONE, 40, kept=True) for id in ("c", "a", "b")]
    assert excess(runs, 100).forget == ("a",)
    assert excess(runs, 40).forget == ("a", "b")


def test_the_largest_is_ended_where_forgetting_is_not_enough() -> None:
    runs = [Held("a", ONE, 5, True), Held("b", ONE, 60, False), Held("c", ONE, 70, False)]
    found = excess(runs, 100)
    assert (found.forget, list(found.end)) == (("a",), ["c"])
    assert found.end["c"] == (
        "the runs of its app hold 130 bytes on this host and may hold 100 bytes (runs.diskPerApp); this one holds "
        "the most, 70 bytes"
    )


@given(held, st.integers(0, 120))
def test_no_app_holds_more_than_its_share_for_long(runs: list[Held], most: int) -> None:
    """Whatever is ended is over then, and may be forgotten later."""
    gone: set[str] = set()
    left = runs
    for _ in range(len(runs) + 1):
        found = excess(left, most)
        gone |= {*found.forget, *found.end}
        left = [each for each in left if each.run not in gone]
    assert all(size <= most for size in used(left).values())
    assert excess(left, most) == excess([], most)
    for app in (ONE, OTHER):
        if used(runs).get(app, 0) <= most:
            assert not gone & {each.run for each in runs if each.app == app}, "others pay for it"


@given(held, st.integers(0, 120))
def test_no_more_goes_than_has_to(runs: list[Held], most: int) -> None:
    found = excess(runs, most)
    forgotten = [each for each in runs if each.run in found.forget]
    for app in (ONE, OTHER):
        own = [each for each in forgotten if each.app == app]
        if own:
            newest = max(own, key=lambda each: each.run)
            left = used([each for each in runs if each.run not in found.forget]).get(app, 0)
            assert left + newest.size > most
    assert all(not each.kept for each in runs if each.run in found.end)
