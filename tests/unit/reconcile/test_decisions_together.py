"""What wins when two things are decided about an app at once, what the status says, and what ends which of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.domain.apps.branch_previews import preview_name
from controller.domain.apps.conditions import ConditionType
from controller.domain.apps.deploy_gate import DeployRules
from controller.domain.errors import Stalled
from controller.domain.reasons import Reason
from tests.unit.reconcile.deciding import CLOSED, Deciding
from tests.unit.reconcile.harness import APP, Harness, api, app, ml
from tests.unit.reconcile.previewing import RULES, Platform, ref

WAITS = {"approval": "AwaitingApproval", "frozen": "Frozen", "window": "OutsideWindow"}

#: Each state with each that comes after it: the version in service with what the status says; then the same after
#: `resume`, after `approve`, and after a new commit. Version 2 was in service; 3 is the next one that came.
TABLE: dict[tuple[str, str], tuple[str, str, str, str]] = {
    ("rollback", "automatic"): ("1 RolledBack", "2", "1 RolledBack", "3"),
    ("automatic", "rollback"): ("1 RolledBack", "2", "1 RolledBack", "3"),
    ("rollback", "image"): ("3", "3", "3", "3"),
    ("automatic", "image"): ("3", "3", "3", "3"),
    ("image", "rollback"): ("2 RolledBack", "3", "2 RolledBack", "2"),
    ("image", "automatic"): ("1 RolledBack", "3", "1 RolledBack", "1"),
    ("image", "suspended"): ("3 Suspended", "3", "3 Suspended", "3 Suspended"),
    ("suspended", "image"): ("2 Suspended", "2", "2 Suspended", "2 Suspended"),
    ("suspended", "automatic"): ("2 Suspended", "2", "2 Suspended", "2 Suspended"),
    # `resume` ends the suspension alone: what somebody went back from does not return with it
    **{
        (back, "suspended"): ("1 Suspended RolledBack", "1 RolledBack", *2 * ("1 Suspended RolledBack",))
        for back in ("rollback", "automatic")
    },
    # the rollback is over, and the next version waits beside the one that was gone back to
    **{
        (back, gate): (f"1 {why}", f"1 {why}", "1 Frozen" if gate == "frozen" else "3", f"1 {why}")
        for back in ("rollback", "automatic")
        for gate, why in WAITS.items()
    },
    # to go back leaves the version in service, not the one that waits
    **{
        (gate, back): ("1 RolledBack", f"1 {why}", "1 RolledBack", f"1 {why}")
        for back in ("rollback", "automatic")
        for gate, why in WAITS.items()
    },
    **{
        (gate, "suspended"): ("2 Suspended", f"2 {why}", "2 Suspended", "2 Suspended")
        for gate, why in WAITS.items()
    },
    **{
        ("suspended", gate): ("2 Suspended", f"2 {why}", "2 Suspended", "2 Suspended")
        for gate, why in WAITS.items()
    },
    **{
        (gate, "image"): (f"2 {why}", f"2 {why}", "2 Frozen" if gate == "frozen" else "4", f"2 {why}")
        for gate, why in WAITS.items()
    },
    **{
        ("image", gate): (f"3 {why}", f"3 {why}", "3 Frozen" if gate == "frozen" else "4", f"3 {why}")
        for gate, why in WAITS.items()
    },
    # of several rules the one is named that ends last
    **{
        pair: ("2 Frozen",) * 4
        for gate in ("approval", "window")
        for pair in ((gate, "frozen"), ("frozen", gate))
    },
    **dict.fromkeys(
        (("approval", "window"), ("window", "approval")),
        ("2 AwaitingApproval", "2 AwaitingApproval", "4", "2 AwaitingApproval"),
    ),
}
ACTS = ("nothing", "resume", "approve", "commit")


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("pair", TABLE, ids="+".join)
def test_each_pair(harness: Harness, pair: tuple[str, str], act: str) -> None:
    deciding = Deciding(harness, follows="image" in pair)
    for state in pair:
        getattr(deciding, state)()
    getattr(deciding, act)()
    assert deciding.shown == TABLE[pair][ACTS.index(act)]
    harness.settle()
    assert deciding.shown == TABLE[pair][ACTS.index(act)], "and it stays so"
    failed = harness.status().failed_rollout
    if failed and "image" not in pair:
        assert deciding.versions[failed.revision] == "2", (
            "what failed is the version in service, not one that waits"
        )


def test_the_table_has_all_pairs() -> None:
    states = {state for pair in TABLE for state in pair}
    assert states == {"rollback", "automatic", *WAITS, "suspended", "image"}
    refused = {("suspended", "rollback")}
    assert TABLE.keys() | refused == {(a, b) for a in states for b in states if a != b}


def test_nobody_goes_back_while_an_app_is_suspended(harness: Harness) -> None:
    deciding = Deciding(harness, follows=False)
    deciding.suspended()
    with pytest.raises(Stalled, match="is suspended, so nothing is changed") as caught:
        deciding.rollback()
    assert caught.value.reason is Reason.ROLLBACK_REFUSED


def test_resuming_twice_ends_both(harness: Harness) -> None:
    deciding = Deciding(harness, follows=False)
    deciding.rollback()
    deciding.suspended()
    deciding.resume()
    deciding.resume()
    assert deciding.shown == "2"


def test_an_image_that_failed_does_not_return_with_the_end_of_a_suspension(harness: Harness) -> None:
    deciding = Deciding(harness, follows=True)
    deciding.rollback()
    deciding.commit()
    assert deciding.shown == "1", "the new commit ends the rollback, and the image stays out"
    deciding.suspended()
    deciding.resume()
    assert deciding.shown == "1"


def test_what_the_manifest_suspends_is_not_resumed(harness: Harness) -> None:
    deciding = Deciding(harness, follows=False)
    deciding.rollback()
    harness.connect(app(suspend=True))
    harness.run("platform")
    for _ in range(2):
        said = harness.condition(ConditionType.SUSPENDED)
        assert said
        assert (
            said.message
            == "nothing is changed: its PlatformApp says suspend: true; to go on, remove that there"
        )
        deciding.resume()
        assert deciding.shown == "1 Suspended RolledBack"
    harness.connect(app())
    harness.run("platform")
    assert deciding.shown == "1 RolledBack"


# --- previews -----------------------------------------------------------------------------------------------------


def with_preview(harness: Harness, **changes: object) -> Platform:
    platform = Platform(harness, RULES, **changes)
    harness.sources.push("demo", {"m0.yaml": ml(), "m1.yaml": api()})
    platform.work()
    platform.push("feature/x", ml(image="demo:2"), api())
    return platform


PREVIEW = preview_name(APP, ref("feature/x"))


@pytest.mark.parametrize(
    "rules",
    [DeployRules(False, True), DeployRules(True, False), DeployRules(False, False, CLOSED)],
    ids=["approval", "frozen", "window"],
)
def test_rules_of_an_app_do_not_hold_its_previews(harness: Harness, rules: DeployRules) -> None:
    platform = with_preview(harness, deploy=rules)
    assert platform.images(PREVIEW) == ["demo:2"]
    platform.push("feature/x", ml(image="demo:3"), api())
    assert platform.images(PREVIEW) == ["demo:3"]


def test_previews_stay_while_their_app_is_rolled_back(harness: Harness) -> None:
    platform = with_preview(harness)
    harness.push(ml(image="demo:2"), api())
    harness.run()
    harness.roll_back()
    harness.run("rollback")
    platform.push("feature/x", ml(image="demo:3"), api())
    assert platform.images(PREVIEW) == ["demo:3"]
    assert harness.condition(ConditionType.ROLLED_BACK)
    assert harness.condition(ConditionType.ROLLED_BACK, PREVIEW) is None


@pytest.mark.parametrize("how", ["by a person", "by the manifest"])
def test_previews_go_while_their_app_is_suspended(harness: Harness, how: str) -> None:
    platform = with_preview(harness)
    if how == "by a person":
        harness.store.apps.set_suspended(APP, True)
    else:
        platform.apps = tuple(replace(each, suspend=True) for each in platform.apps)
        platform.start()
    platform.look()
    assert platform.previews == []
    assert not harness.running(app=PREVIEW)
