"""When a pass may be passed over. That it then would have done nothing is in tests/unit/reconcile/test_quiet.py."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.apps.desired import DesiredApp, Unresolved
from controller.domain.apps.observed import ObservedApp
from controller.domain.apps.plan import Hold, Plan
from controller.domain.apps.quiet import WHOLE_PASS, PassInputs, QuietPass, is_comparable, is_settled
from controller.domain.apps.requests import Trigger
from controller.domain.apps.spec import ComponentKind, PlatformSpec
from controller.domain.apps.status import AppStatus, Rollback, Setback
from controller.domain.names import AppName, ComponentName
from controller.domain.reasons import Reason

APP = AppName("demo")
INPUTS = PassInputs(PlatformSpec(), b"rows", "c" * 40, ObservedApp(APP))
LOOKING = {Trigger.DRIFT, Trigger.POLL, Trigger.RETRY, Trigger.WEBHOOK, Trigger.PUSH}
BEGUN = 1000.0


def quiet(retry_at: float | None = None) -> QuietPass:
    return QuietPass(INPUTS, (), BEGUN, retry_at, "1 component is ready")


@given(st.frozensets(st.sampled_from(list(Trigger)), min_size=1))
def test_only_triggers_that_tell_nothing_more_are_passed_over(triggers: frozenset[Trigger]) -> None:
    assert quiet().holds(triggers, BEGUN) == (triggers <= LOOKING)


@given(st.floats(0.0, 5000.0), st.none() | st.floats(BEGUN, 3000.0))
def test_nothing_that_is_due_is_passed_over(now: float, retry_at: float | None) -> None:
    holds = quiet(retry_at).holds(frozenset({Trigger.DRIFT}), now)
    assert holds == (BEGUN <= now < BEGUN + WHOLE_PASS and (retry_at is None or now < retry_at))


@pytest.mark.parametrize(
    ("after", "plan", "settled"),
    [
        pytest.param(AppStatus(APP), Plan(APP, ""), True, id="as before"),
        pytest.param(AppStatus(APP, failures=1), Plan(APP, ""), False, id="news"),
        pytest.param(
            AppStatus(APP),
            Plan(APP, "", holds=(Hold(ComponentName("a"), Reason.AWAITING_SECRET, "it waits"),)),
            False,
            id="held",
        ),
    ],
)
def test_a_pass_with_news_is_not_settled(after: AppStatus, plan: Plan, settled: bool) -> None:
    assert is_settled(AppStatus(APP), after, plan) == settled


@pytest.mark.parametrize(
    "unsettled",
    [
        {"setbacks": (Setback("a", Reason.IMAGE_NOT_FOUND, "no", 1, BEGUN),)},
        {"rollback": Rollback("a" * 40, "b" * 40, "ann", BEGUN)},
    ],
    ids=["set back", "rolled back"],
)
def test_what_lasts_is_not_settled_although_it_is_as_before(unsettled: dict[str, object]) -> None:
    status = replace(AppStatus(APP), **unsettled)  # type: ignore[arg-type]
    assert not is_settled(status, status, Plan(APP, ""))


def test_what_is_missing_is_looked_for_in_whole_passes() -> None:
    assert is_comparable(DesiredApp(APP, ""))
    missing = Unresolved(
        ComponentName("a"), Reason.AWAITING_SECRET, "it waits", kind=ComponentKind.ML_COMPONENT
    )
    assert not is_comparable(DesiredApp(APP, "", unresolved=(missing,)))
