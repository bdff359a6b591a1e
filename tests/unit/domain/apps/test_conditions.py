"""Conditions: `since` moves only when something turned, and the order is always the same."""

from __future__ import annotations

from controller.domain.apps.conditions import Condition, ConditionType, find, is_ready, merge
from controller.domain.reasons import Reason

READY = Condition(ConditionType.READY, True, Reason.SERVING, "version 1a2b serves", revision="c1")
DEGRADED = Condition(ConditionType.DEGRADED, True, Reason.NOT_READY, "it did not answer")


def test_a_new_condition_holds_since_now() -> None:
    assert merge((), [READY], at=5.0)[0].since == 5.0


def test_the_same_again_keeps_its_time_and_takes_the_new_text() -> None:
    before = merge((), [READY], at=5.0)
    again = Condition(ConditionType.READY, True, Reason.SERVING, "version 3c4d serves", revision="c2")
    (merged,) = merge(before, [again], at=9.0)
    assert (merged.since, merged.message, merged.revision) == (5.0, "version 3c4d serves", "c2")


def test_another_reason_or_status_is_a_turn() -> None:
    before = merge((), [READY], at=5.0)
    turned = Condition(ConditionType.READY, False, Reason.SERVING, "")
    renamed = Condition(ConditionType.READY, True, Reason.READY, "")
    assert merge(before, [turned], at=9.0)[0].since == merge(before, [renamed], at=9.0)[0].since == 9.0


def test_what_does_not_hold_any_more_is_gone_and_starts_anew_when_it_returns() -> None:
    before = merge((), [READY, DEGRADED], at=5.0)
    without = merge(before, [READY], at=6.0)
    assert find(without, ConditionType.DEGRADED) is None
    returned = find(merge(without, [READY, DEGRADED], at=7.0), ConditionType.DEGRADED)
    assert returned is not None
    assert returned.since == 7.0


def test_ready_comes_first_whatever_the_order() -> None:
    assert merge((), [DEGRADED, READY], at=1.0) == merge((), [READY, DEGRADED], at=1.0)
    assert merge((), [DEGRADED, READY], at=1.0)[0].type is ConditionType.READY


def test_is_ready() -> None:
    assert is_ready((READY,))
    assert not is_ready((Condition(ConditionType.READY, False, Reason.NOT_SERVING, ""),))
    assert not is_ready((DEGRADED,))
    assert not is_ready(())
