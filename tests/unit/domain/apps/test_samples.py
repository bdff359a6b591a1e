"""Samples of components add up, whatever clocks and counters do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.apps.samples import (
    BUCKETS,
    COARSE,
    FIELDS,
    FINE,
    MEANS,
    NO_REQUESTS,
    PEAKS,
    SUMS,
    RequestCounts,
    Sample,
    Stored,
    grid,
    merged,
    quantile,
    request_values,
    resolution_for,
    serving_values,
)

NONE = (0,) * (len(BUCKETS) + 1)


def buckets(**counts: int) -> tuple[int, ...]:
    """Counts by the number of their bucket: `_3=1`."""
    return tuple(counts.get(f"_{number}", 0) for number in range(len(NONE)))


def test_every_value_is_merged_in_one_way() -> None:
    assert sorted((*SUMS, *MEANS, *PEAKS)) == sorted(FIELDS)
    assert {*FIELDS, "seconds", "buckets"} == set(Sample.__dataclass_fields__)


def test_two_samples_are_one() -> None:
    one = Sample(10, requests=5, cpu=1.0, memory=100, in_flight=3, buckets=buckets(_1=5))
    other = Sample(30, requests=1, cpu=0.0, memory=300, gpu=0.5, buckets=buckets(_1=1))
    assert merged(one, other) == Sample(
        40, requests=6, cpu=0.25, memory=300, in_flight=3, gpu=0.5, buckets=buckets(_1=6)
    )
    assert merged(one, Sample(10)).buckets == one.buckets


@given(st.lists(st.integers(0, 1000), min_size=len(NONE), max_size=len(NONE)), st.floats(0.01, 1))
def test_a_quantile_lies_in_the_bucket_of_its_rank(counts: list[int], share: float) -> None:
    found = quantile(counts, share)
    if not sum(counts):
        assert found is None
        return
    assert found is not None
    rank = share * sum(counts)
    sure = sum(count for count, bound in zip(counts, BUCKETS, strict=False) if bound <= found)
    assert sure <= rank + 1e-6 or found == BUCKETS[-1] or found in BUCKETS
    assert 0 <= found <= BUCKETS[-1]
    assert quantile(counts, 1.0) >= found  # type: ignore[operator]


def test_quantiles() -> None:
    half = buckets(_0=50, _5=50)
    assert quantile(half, 0.5) == BUCKETS[0]
    assert quantile(half, 0.75) == pytest.approx((BUCKETS[4] + BUCKETS[5]) / 2)
    assert quantile(buckets(_15=1), 0.5) == 60.0, "longer than any bound"


def test_counters_that_begin_again_lose_nothing() -> None:
    before = RequestCounts({200: 100, 500: 3}, buckets(_1=103))
    now = RequestCounts({200: 7, 500: 4}, buckets(_1=11), in_flight=2)
    assert now.since(before).codes == {200: 7, 500: 1}
    assert now.since(before).buckets == buckets(_1=11)
    assert now.since(NO_REQUESTS) == now


def test_what_counts_as_failed() -> None:
    counts = RequestCounts({200: 1, 404: 2, 499: 4, 503: 8, 0: 16}, NONE, 32)
    assert request_values(counts) == {"requests": 31, "refused": 2, "failed": 24, "in_flight": 32}


def test_samples_stand_at_their_time() -> None:
    stored = [Stored(at, Sample(10, requests=at)) for at in (960, 970, 990, 1000)]
    found = grid(stored, FINE, 50, 1004.0)
    assert (found.start, found.step) == (950, 10)
    assert [each and each.requests for each in found.samples] == [None, 960, 970, None, 990]


@given(st.integers(-(10**7), 10**7))
def test_a_clock_that_is_set_shows_nothing_of_another_time(jump: int) -> None:
    stored = [Stored(10_000_000 + jump, Sample(10, requests=1))]
    found = grid(stored, FINE, 3600, 10_000_005.0)
    assert len(found.samples) == 360
    shown = [number for number, each in enumerate(found.samples) if each]
    assert shown == ([360 + jump // 10] if -3600 <= jump < 0 else [])


def test_a_long_sample_covers_its_steps() -> None:
    found = grid([Stored(970, Sample(10)), Stored(1000, Sample(30))], FINE, 60, 1010.0)
    assert [each and each.seconds for each in found.samples] == [None, None, 10, 30, 30, 30]
    found = grid([Stored(990, Sample(1e9))], FINE, 3600, 1000.0)
    assert sum(each is not None for each in found.samples) == 12


def test_the_resolution_follows_the_window() -> None:
    assert [resolution_for(each) for each in (10, 3600, 3601, 86400)] == [FINE, FINE, COARSE, COARSE]


def test_numbers_of_the_serving_library() -> None:
    text = """# HELP prichal_serving_calls_in_flight x
prichal_serving_calls_in_flight 3
prichal_serving_calls_queued 1e300
prichal_serving_calls_overdue nan
prichal_serving_worker_restarts_total two
prichal_serving_requests_total{route="inference",code="200"} 7
other 1
"""
    assert serving_values(text) == {"running": 3.0}
    assert serving_values("prichal_serving_calls_queued -1\n\0") == {}
