"""Plans for boxes and what is said of them: data goes only if somebody wanted it to go."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.apps.conditions import ConditionType, find
from controller.domain.apps.desired import DesiredApp
from controller.domain.apps.health import judge_app
from controller.domain.apps.observed import ObservedApp, ObservedBox, StorageFault
from controller.domain.apps.pauses import PlannerPolicy
from controller.domain.apps.plan import (
    Action,
    CopyBox,
    CreateBucket,
    Hold,
    KeepBucket,
    Plan,
    PublishServices,
    RemoveBucket,
    UpdateBox,
)
from controller.domain.apps.planner import plan_app
from controller.domain.apps.spec import BoxSpec, Reclaim
from controller.domain.apps.status import AppStatus
from controller.domain.names import AppName, ComponentName
from controller.domain.reasons import Reason
from controller.domain.routing.routes import Api, Service, ServiceKind
from controller.domain.storage.box import BoxRecord, BoxState
from controller.domain.storage.planner import judge_box
from tests.support.builders import APP, COMMIT, component, desired, observed, route, workload
from tests.support.specs import make

DATA = ComponentName("data")
DOWN = StorageFault(Reason.STORAGE_UNREACHABLE, "nothing listens on 127.0.0.1:9000", transient=True)
FILES = Service(APP, Api("files", ComponentName("files-api"), published=True), ServiceKind.FILES)


def box(name: str = "data", capacity: int = 10**9, reclaim: Reclaim = Reclaim.RETAIN) -> BoxSpec:
    return BoxSpec(ComponentName(name), capacity, reclaim)


def stored(name: str = "data", present: bool = True, **changes: object) -> ObservedBox:
    made = BoxRecord(APP, ComponentName(name), f"prichal.demo.{name}", 10**9, used=4000, files=3)
    return ObservedBox(replace(made, **changes), present)  # type: ignore[arg-type]


def there(*boxes: ObservedBox, **changes: object) -> ObservedApp:
    return replace(observed(network=False), boxes=boxes, **changes)  # type: ignore[arg-type]


def plan(wanted: DesiredApp, found: ObservedApp) -> Plan:
    return plan_app(wanted, found, (), AppStatus(APP), PlannerPolicy(), now=0.0)


def lines(made: Plan) -> list[str]:
    return [line.strip() for line in made.render().splitlines()[1:]]


def test_a_declared_box_gets_its_bucket() -> None:
    made = plan(desired(boxes=(box(),)), there())
    assert lines(made) == ["create bucket prichal.demo.data (1 GB)  # declared, not there"]


def test_nothing_to_do() -> None:
    assert plan(desired(boxes=(box(),)), there(stored())).empty


def test_another_capacity_and_policy() -> None:
    made = plan(desired(boxes=(box(capacity=2 * 10**9, reclaim=Reclaim.DELETE),)), there(stored()))
    assert lines(made) == ["update box data (2 GB, Delete)  # capacity was 1 GB; reclaimPolicy was Retain"]


def test_a_capacity_below_use_is_not_put_in_force() -> None:
    made = plan(desired(boxes=(box(capacity=3000),)), there(stored()))
    (hold,) = made.holds
    assert made.empty
    assert (hold.subject, hold.reason) == ("DataBox data", "CapacityBelowUse")
    assert hold.why == "3 kB are declared, but 4 kB are stored: the capacity stays 1 GB until there is less"
    grown = plan(desired(boxes=(box(capacity=2000),)), there(stored(capacity=1000)))
    assert [type(action) for action in grown.actions] == [UpdateBox], "more than before, if not yet enough"


def test_a_box_that_left_git_keeps_its_data() -> None:
    made = plan(desired(boxes=(box("other"),)), there(stored(), stored("other")))
    assert lines(made) == ["keep bucket prichal.demo.data of box data  # left Git, data stays"]


def test_a_box_that_left_git_and_wanted_to_be_deleted() -> None:
    made = plan(desired(boxes=(box("other"),)), there(stored(reclaim=Reclaim.DELETE), stored("other")))
    assert lines(made) == [
        "remove bucket prichal.demo.data with 3 files  # left Git, reclaimPolicy is Delete"
    ]


def test_with_prune_off_a_box_stays_bound() -> None:
    made = plan(desired(boxes=(box("other"),), prune=False), there(stored(), stored("other")))
    assert lines(made) == ["hold DataBox data: PruneDisabled  # left Git, kept because prune is off"]


def test_everything_gone_at_once_waits_for_a_person() -> None:
    found = there(stored(reclaim=Reclaim.DELETE), services=(FILES,))
    held = plan(desired(), found)
    assert held.empty
    assert [hold.reason for hold in held.holds] == ["PrunePending"]
    assert "data, files-api would all go" in held.holds[0].why
    approved = plan(desired(approved=True), found)
    assert [type(action) for action in approved.actions] == [RemoveBucket, PublishServices]


def test_disconnecting_removes_no_data() -> None:
    wanted = desired(approved=True, disconnected=True)
    made = plan(wanted, there(stored(reclaim=Reclaim.DELETE)))
    assert lines(made) == [
        "keep bucket prichal.demo.data of box data  # the app was disconnected, data stays"
    ]


def test_declared_again_its_data_is_found() -> None:
    made = plan(desired(boxes=(box(),)), there(stored(state=BoxState.KEPT)))
    assert lines(made) == ["update box data (1 GB, Retain)  # declared again, its data was kept"]


def test_a_person_wants_it_to_go() -> None:
    deleting = stored(state=BoxState.DELETING)
    assert lines(plan(desired(component()), there(deleting)))[-1:] == [
        "remove bucket prichal.demo.data with 3 files  # its deletion was asked for"
    ]
    again = plan(desired(boxes=(box(),)), there(deleting))
    assert [type(action) for action in again.actions] == [RemoveBucket, CreateBucket]


def test_a_box_of_a_preview_begins_as_a_copy() -> None:
    source = replace(stored().record, app=AppName("main"))
    first = replace(there(), sources=(source,))
    wanted = desired(component(), boxes=(box(),))
    made = plan(wanted, first)
    assert lines(made) == [
        "copy box main/data into bucket prichal.demo.data (1 GB)  # a box of a preview begins as a copy",
        "hold classify: AwaitingBox  # it waits until the boxes of the preview are copied: data",
    ]
    going_on = plan(wanted, replace(there(stored(state=BoxState.COPYING)), sources=(source,)))
    assert lines(going_on) == lines(made)
    assert CopyBox not in map(type, plan(wanted, replace(there(stored()), sources=(source,))).actions)
    kept = replace(there(stored(state=BoxState.KEPT)), sources=(source,))
    assert UpdateBox in map(type, plan(wanted, kept).actions), "it has data of its own"


def test_a_copy_that_is_not_complete_is_nobodys_data() -> None:
    half = stored(state=BoxState.COPYING)
    assert lines(plan(desired(boxes=(box(),)), there(half))) == [
        "remove bucket prichal.demo.data with 3 files  # the box that it was to be a copy of is not there any more",
        "create bucket prichal.demo.data (1 GB)  # declared, not there",
    ]
    assert lines(plan(desired(component()), there(half)))[-1:] == [
        "remove bucket prichal.demo.data with 3 files  # left Git before its copy was complete"
    ]


def test_a_bucket_that_was_removed_by_hand_is_made_anew() -> None:
    made = plan(desired(boxes=(box(),)), there(stored(present=False)))
    assert lines(made) == ["create bucket prichal.demo.data (1 GB)  # its bucket is gone, and all data in it"]


def test_without_storage_boxes_wait_and_containers_do_not() -> None:
    wanted = desired(component(), boxes=(box(),))
    made = plan(wanted, there(stored(), storage=DOWN))
    assert {type(action).__name__ for action in made.actions} >= {"EnsureNetwork", "StartWorkload"}
    (hold,) = made.holds
    assert (hold.subject, hold.reason, hold.retry_after) == ("DataBox data", "StorageUnreachable", 5.0)


def test_without_storage_what_is_kept_is_kept_and_what_goes_waits() -> None:
    goes = stored("goes", reclaim=Reclaim.DELETE)
    made = plan(desired(component()), there(stored("stays"), goes, storage=DOWN))
    assert [type(action) for action in made.actions if "Bucket" in type(action).__name__] == [KeepBucket]
    assert [hold.subject for hold in made.holds] == ["DataBox goes"]


def test_services_are_published_changed_and_withdrawn() -> None:
    first = plan(desired(services=(FILES,)), there())
    assert lines(first) == ["publish files  # new: files"]
    assert plan(desired(services=(FILES,)), there(services=(FILES,))).empty
    closed = replace(FILES, api=replace(FILES.api, users=(("anna", "hash"),)))
    assert lines(plan(desired(services=(closed,)), there(services=(FILES,)))) == [
        "publish files  # the rules of access changed"
    ]
    assert lines(plan(desired(boxes=(box(),)), there(stored(), services=(FILES,)))) == [
        "publish no service  # gone: files"
    ]
    assert plan(desired(boxes=(box(),), prune=False), there(stored(), services=(FILES,))).empty


def test_a_connected_box_has_its_name_in_the_route() -> None:
    from controller.domain.apps.spec import BoxLink

    first = component()
    links = (make(BoxLink, "weights"), BoxLink("data", default=True))
    linked = replace(first, spec=replace(first.spec, boxes=links))
    running = workload()
    made = plan_app(
        desired(linked), observed(running), (route(first, running),), AppStatus(APP), PlannerPolicy(), now=0.0
    )
    (switch,) = made.actions
    assert switch.route.boxes == ("data", "weights")  # type: ignore[union-attr]


# --- properties -------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["data", "weights"])


def _apply(found: ObservedApp, actions: tuple[Action, ...]) -> ObservedApp:
    """What the executor leaves behind."""
    boxes = {box.record.box: box for box in found.boxes}
    for action in actions:
        match action:
            case CreateBucket(record=record) | CopyBox(record=record) | UpdateBox(record=record):
                boxes[record.box] = ObservedBox(replace(record, state=BoxState.BOUND))
            case KeepBucket(record=record):
                boxes[record.box] = replace(boxes[record.box], record=replace(record, state=BoxState.KEPT))
            case RemoveBucket(record=record):
                del boxes[record.box]
            case PublishServices(services=services):
                found = replace(found, services=services)
    return replace(found, boxes=tuple(boxes[name] for name in sorted(boxes)))


@st.composite
def cases(draw: st.DrawFn) -> tuple[DesiredApp, ObservedApp]:
    reclaims = st.sampled_from(Reclaim)
    declared = [
        box(name, draw(st.sampled_from([2000, 10**9])), draw(reclaims))
        for name in sorted(draw(st.sets(NAMES)))
    ]
    found = [
        stored(name, draw(st.booleans()), reclaim=draw(reclaims), state=draw(st.sampled_from(BoxState)))
        for name in sorted(draw(st.sets(NAMES)))
    ]
    wanted = desired(
        boxes=tuple(declared),
        services=(FILES,) if draw(st.booleans()) else (),
        prune=draw(st.booleans()),
        approved=draw(st.booleans()),
        disconnected=not declared and draw(st.booleans()),
    )
    sources = tuple(stored(name).record for name in sorted(draw(st.sets(NAMES))))
    fault = DOWN if draw(st.booleans()) else None
    return wanted, replace(there(*found, storage=fault), sources=sources)


@given(cases())
def test_planning_on_the_result_is_empty_after_any_crash(case: tuple[DesiredApp, ObservedApp]) -> None:
    wanted, found = case
    actions = plan(wanted, found).actions
    for done in range(len(actions) + 1):
        crashed = _apply(found, actions[:done])
        rest = plan(wanted, crashed)
        assert plan(wanted, _apply(crashed, rest.actions)).empty


@given(cases())
def test_data_goes_only_if_somebody_wanted_it_to(case: tuple[DesiredApp, ObservedApp]) -> None:
    wanted, found = case
    declared = {spec.name for spec in wanted.boxes}
    for action in plan(wanted, found).actions:
        if isinstance(action, RemoveBucket):
            assert found.storage is None
            asked_for = action.record.state is BoxState.DELETING
            asked_for |= action.record.state is BoxState.COPYING  # which is a part of what is elsewhere
            policy = action.record.reclaim is Reclaim.DELETE and action.record.box not in declared
            assert asked_for or (policy and wanted.prune and not wanted.disconnected)


@given(cases())
def test_only_a_box_without_data_of_its_own_is_filled(case: tuple[DesiredApp, ObservedApp]) -> None:
    wanted, found = case
    before = {each.record.box: each.record for each in found.boxes}
    for action in plan(wanted, found).actions:
        if isinstance(action, CopyBox):
            assert found.storage is None
            assert action.source in found.sources
            record = before.get(action.record.box)
            assert record is None or record.state in (BoxState.COPYING, BoxState.DELETING)


# --- what is said -----------------------------------------------------------------------------------------------


def test_a_box_says_how_much_is_in_it() -> None:
    said = judge_box(box(), stored().record, None, COMMIT)
    assert (said.bucket, said.used, said.files) == ("prichal.demo.data", 4000, 3)
    (ready,) = said.conditions
    assert (ready.status, ready.reason, ready.message) == (True, "Stored", "4 kB of 1 GB in 3 files")


def test_a_box_over_its_capacity_is_degraded_and_works() -> None:
    said = judge_box(box(), stored(used=2 * 10**9).record, None, COMMIT)
    over = find(said.conditions, ConditionType.DEGRADED)
    assert over is not None
    assert over.reason == "OverCapacity"
    assert "2 GB of 1 GB" in over.message
    app = judge_app((), Plan(APP, COMMIT), (), (said,))
    assert (app[0].status, [c.reason for c in app[1:]]) == (True, ["OverCapacity"])
    assert app[1].message.startswith("box data: ")


@pytest.mark.parametrize("reason", ["StorageUnreachable", "StorageDisabled"])
def test_a_box_that_cannot_be_reached_is_not_ready(reason: str) -> None:
    hold = Hold(DATA, Reason(reason), "why")
    for record in (None, stored().record):
        said = judge_box(box(), record, hold, COMMIT)
        app = judge_app((), Plan(APP, COMMIT), (), (said,))
        assert (app[0].status, app[0].reason) == (False, reason)


def test_an_api_whose_rules_cannot_be_had_stops_the_app_from_being_ready() -> None:
    from controller.domain.apps.spec import ComponentKind

    hold = Hold(
        ComponentName("files-api"),
        Reason.SECRET_MISSING,
        "the Secret 'x' is not there",
        kind=ComponentKind.API_COMPONENT,
    )
    app = judge_app((), Plan(APP, COMMIT, holds=(hold,)), ())
    assert (app[0].status, app[0].reason) == (False, "SecretMissing")
    stalled = find(app, ConditionType.STALLED)
    assert stalled is not None
    assert stalled.message == "APIComponent files-api: the Secret 'x' is not there"
