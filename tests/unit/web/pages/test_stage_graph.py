from __future__ import annotations

import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from controller.domain.runs.pipeline import Stage
from controller.web.pages.stage_graph import MOST, WIDTH, StageGraph, graph_of, laid_out
from tests.support.runs import make_pipeline
from tests.support.specs import make


@st.composite
def needs(draw: st.DrawFn) -> dict[str, frozenset[str]]:
    """Stages that need some of those before them."""
    names = [f"stage-{number}" for number in range(draw(st.integers(1, 12)))]
    return {
        name: frozenset(draw(st.sets(st.sampled_from(names[:number])))) if number else frozenset()
        for number, name in enumerate(names)
    }


def columns(graph: StageGraph) -> dict[str, int]:
    return {box.name: box.x for box in graph.stages}


def ends(line: str) -> tuple[tuple[int, int], tuple[int, int]]:
    numbers = [int(each) for each in re.findall(r"\d+", line)]
    return (numbers[0], numbers[1]), (numbers[-2], numbers[-1])


@given(needs())
def test_every_stage_has_a_place_of_its_own_behind_those_it_waits_for(
    wanted: dict[str, frozenset[str]],
) -> None:
    graph = laid_out(wanted)
    at = columns(graph)
    assert set(at) == set(wanted)
    assert len({(box.x, box.y) for box in graph.stages}) == len(wanted)
    assert all(at[before] + WIDTH < at[name] for name, all_before in wanted.items() for before in all_before)
    assert all(0 <= box.x < graph.width and 0 <= box.y < graph.height for box in graph.stages)


@given(needs())
def test_lines_lead_from_a_stage_to_one_that_waits(wanted: dict[str, frozenset[str]]) -> None:
    graph = laid_out(wanted)
    starts = {(box.x + WIDTH, box.y + 26): box.name for box in graph.stages}
    stops = {(box.x, box.y + 26): box.name for box in graph.stages}
    drawn = {(starts[start], stops[end]) for start, end in map(ends, graph.lines)}
    assert all(before in wanted[name] for before, name in drawn)
    reached = {name: {b for b, n in drawn if n == name} for name in wanted}
    for name in wanted:  # what is not drawn follows from what is
        for _ in wanted:
            reached[name] |= {above for before in reached[name] for above in reached[before]}
        assert wanted[name] <= reached[name]


def test_a_line_that_passes_a_column_has_a_row_there() -> None:
    """`end` needs `a`, whose column is two before, and `c`."""
    graph = laid_out(
        {"a": frozenset(), "b": frozenset(), "c": frozenset({"b"}), "end": frozenset({"a", "c"})}
    )
    boxes = {box.name: box for box in graph.stages}
    (long,) = [line for line in graph.lines if " H" in line]
    assert f",{boxes['c'].y + 26} " not in long


def test_many_ways_through_a_pipeline_cost_nothing() -> None:
    """Each of twenty steps has two stages, which need both of the step before: a million ways."""
    steps = [(f"a{number}", f"b{number}") for number in range(MOST // 2)]
    wanted = dict.fromkeys(steps[0], frozenset[str]())
    for before, step in pairwise(steps):
        wanted |= dict.fromkeys(step, frozenset(before))
    assert columns(laid_out(wanted))[f"a{MOST // 2 - 1}"] > (MOST // 2 - 1) * WIDTH


def test_one_stage_and_very_many_are_not_drawn() -> None:
    assert graph_of(make_pipeline(stages=(make(Stage, "only", "i", outputs=("o",)),))) is None
    many = tuple(make(Stage, f"s{number}", "i", outputs=(f"o{number}",)) for number in range(MOST + 1))
    assert graph_of(make_pipeline(stages=many)) is None
    found = graph_of(make_pipeline())
    assert found is not None
    assert len(found.lines) == 1
