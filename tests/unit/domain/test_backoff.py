"""Pauses before something is tried again."""

from __future__ import annotations

from controller.domain.backoff import JITTER, Backoff, jittered


def test_it_grows_and_is_capped() -> None:
    backoff = Backoff(2.0, 300.0)
    assert [backoff.after(failures) for failures in range(12)] == [
        0, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300,
    ]  # fmt: skip


def test_no_number_of_failures_overflows() -> None:
    assert Backoff(2.0, 300.0).after(10**6) == 300.0
    assert Backoff(86400.0, 86400.0, factor=100.0).after(10**6) == 86400.0


def test_a_factor_of_one_keeps_the_pause() -> None:
    assert [Backoff(3.0, 60.0, factor=1.0).after(failures) for failures in (1, 2, 50)] == [3.0, 3.0, 3.0]


def test_jitter_only_lengthens() -> None:
    assert (jittered(10.0, 0.0), jittered(10.0, 1.0)) == (10.0, 10.0 * (1 + JITTER))
