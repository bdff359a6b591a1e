"""Plans as people read them: one situation, one text. `golden/` holds the texts, one file a situation.

A plan that changes on purpose: `python -m tests.unit.domain.apps.test_plans` writes the texts again; read
the difference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from controller.domain.apps.desired import BuildInput, DesiredApp, Unresolved
from controller.domain.apps.observed import ImageOrigin, ImagePin, ObservedApp, WorkloadState
from controller.domain.apps.pauses import PlannerPolicy
from controller.domain.apps.plan import Plan, StartWorkload
from controller.domain.apps.planner import plan_app
from controller.domain.apps.smoke import SmokeCase
from controller.domain.apps.spec import BuildImage, OwnServer, SmokeTest
from controller.domain.apps.status import AppStatus, ComponentStatus, Setback
from controller.domain.reasons import Reason
from controller.domain.routing.routes import Route
from tests.support.builders import (
    APP,
    component,
    desired,
    fingerprint,
    model,
    observed,
    route,
    spec,
    workload,
)
from tests.support.specs import make

GOLDEN = Path(__file__).parent / "golden"
NOW = 1_000_000.0
STOPPED, CREATED = WorkloadState.STOPPED, WorkloadState.CREATED


def plan(
    wanted: DesiredApp,
    there: ObservedApp,
    *routes: Route,
    failed: str = "",
    restarts: tuple[float, ...] = (),
    setbacks: tuple[Setback, ...] = (),
) -> Plan:
    memory = ComponentStatus(
        component().spec.name,
        "MLComponent",
        failed_fingerprint=fingerprint(failed) if failed else "",
        failure="did not answer within 120 s" if failed else "",
        restarts=restarts,
    )
    status = AppStatus(APP, components=(memory,), setbacks=setbacks)
    return plan_app(wanted, there, routes, status, PlannerPolicy(), NOW)


V1, V2 = component(), component(version="v2")
SMOKE = SmokeCase(make(SmokeTest), b"{}", None)
OLD, NEW = workload(), workload(version="v2")
SERVING = route(V1, OLD)


def first_deploy() -> Plan:
    return plan(desired(V1), observed(network=False))


def first_deploy_pulls_the_image() -> Plan:
    return plan(desired(component(present=False)), observed(network=False))


def first_deploy_builds_the_image() -> Plan:
    pin = ImagePin("prichal.local/demo/classify:0123456789abcdef", ImageOrigin.BUILD, present=False)
    source = make(BuildImage, ".", args=(("TOKEN_LIKE", "hunter2"),))
    wanted = replace(V1, pin=pin, build=BuildInput("c0ffee", source))
    return plan(desired(wanted), observed(network=False))


def a_pushed_build_that_the_engine_has_lost() -> Plan:
    pin = ImagePin("hub.example.org/prichal/demo/build@sha256:v1", ImageOrigin.BUILD, present=False)
    wanted = replace(V1, pin=pin, build=BuildInput("c0ffee", make(BuildImage, ".")))
    return plan(desired(wanted), observed())


def first_deploy_brings_the_model() -> Plan:
    return plan(desired(component(model=model())), observed(network=False))


def new_version_whose_model_is_here() -> Plan:
    wanted = component(version="v2", model=model(present=True))
    return plan(desired(wanted), observed(OLD), SERVING)


def new_version_with_recreate_brings_the_model_first() -> Plan:
    wanted = component(version="v2", recreate=True, present=False, model=model())
    return plan(desired(wanted), observed(OLD), SERVING)


def serves_and_its_model_left_the_cache() -> Plan:
    return plan(desired(component(model=model())), observed(OLD), SERVING)


def nothing_to_do() -> Plan:
    return plan(desired(V1), observed(OLD), SERVING)


def new_version() -> Plan:
    return plan(desired(V2), observed(OLD), SERVING)


def new_version_with_a_smoke_test() -> Plan:
    return plan(desired(component(version="v2", smoke=SMOKE)), observed(OLD), SERVING)


def new_version_with_a_smoke_test_runs_already() -> Plan:
    return plan(desired(component(version="v2", smoke=SMOKE)), observed(OLD, NEW), SERVING)


def repair_of_a_version_that_has_passed_its_smoke_test() -> Plan:
    return plan(desired(component(smoke=SMOKE)), observed(), SERVING)


def new_version_of_two_replicas() -> Plan:
    replicas = OLD, workload(replica=1)
    wanted = component(version="v2", replicas=2)
    return plan(desired(wanted), observed(*replicas), route(wanted, *replicas))


def new_version_with_recreate() -> Plan:
    return plan(desired(component(version="v2", recreate=True, present=False)), observed(OLD), SERVING)


def new_version_with_recreate_waits_after_a_failure() -> Plan:
    wanted = component(version="v2", recreate=True)
    setback = Setback("classify", Reason.STORAGE_UNREACHABLE, "no account", 1, NOW, version=V2.fingerprint)
    return plan(desired(wanted), observed(OLD), SERVING, setbacks=(setback,))


def a_replica_died_while_its_repair_waits_after_a_failure() -> Plan:
    replicas = OLD, workload(replica=1)
    there = observed(OLD, workload(replica=1, state=STOPPED))
    setback = Setback("classify", Reason.ENGINE_FAILED, "not today", 1, NOW)
    wanted = component(replicas=2)
    return plan(desired(wanted), there, route(wanted, *replicas), setbacks=(setback,))


def scale_up() -> Plan:
    return plan(desired(component(replicas=3)), observed(OLD), SERVING)


def scale_down() -> Plan:
    replicas = [workload(replica=n) for n in range(3)]
    return plan(desired(V1), observed(*replicas), route(V1, *replicas))


def one_replica_died() -> Plan:
    dead = workload(replica=1)
    there = observed(OLD, replace(dead, state=STOPPED, address=None, exit_code=3))
    return plan(desired(component(replicas=2)), there, route(V1, OLD, dead))


def one_replica_is_lost_with_its_node() -> Plan:
    lost = workload(replica=1)
    there = observed(OLD, replace(lost, state=WorkloadState.LOST, address=None))
    return plan(desired(component(replicas=2)), there, route(V1, OLD, lost))


def the_engine_has_accepted_it_and_does_not_run_it() -> Plan:
    return plan(desired(V1), observed(workload(state=WorkloadState.PENDING)))


def refused_after_it_was_accepted() -> Plan:
    return plan(desired(V1), observed(workload(state=WorkloadState.REFUSED)), SERVING)


def the_only_replica_died() -> Plan:
    return plan(desired(V1), observed(workload(state=STOPPED, exit_code=137)), SERVING)


def out_of_memory() -> Plan:
    return plan(desired(V1), observed(workload(state=STOPPED, exit_code=137, oom_killed=True)), SERVING)


def stopped_by_hand_without_an_exit_code() -> Plan:
    return plan(desired(V1), observed(workload(state=STOPPED, exit_code=None)), SERVING)


def container_removed_by_hand() -> Plan:
    return plan(desired(V1), observed(), SERVING)


def container_taken_off_the_network() -> Plan:
    return plan(desired(V1), observed(replace(OLD, address=None)), SERVING)


def container_renamed_by_hand() -> Plan:
    return plan(desired(V1), observed(replace(OLD, name="mine")), SERVING)


def container_restarted_by_hand() -> Plan:
    return plan(desired(V1), observed(replace(OLD, address="elsewhere")), SERVING)


def network_and_container_gone() -> Plan:
    return plan(desired(V1), observed(network=False), SERVING)


def created_but_never_started() -> Plan:
    return plan(desired(V1), observed(workload(state=CREATED)))


def hold_for_backoff() -> Plan:
    return plan(desired(V1), observed(workload(state=STOPPED)), SERVING, restarts=(NOW - 9, NOW - 3))


def hold_for_backoff_while_others_answer() -> Plan:
    dead = workload(replica=1)
    there = observed(OLD, replace(dead, state=STOPPED, address=None))
    return plan(desired(component(replicas=2)), there, route(V1, OLD, dead), restarts=(NOW - 1,))


def backoff_is_over() -> Plan:
    return plan(desired(V1), observed(workload(state=STOPPED)), SERVING, restarts=(NOW - 9, NOW - 5))


def hold_for_a_crash_loop() -> Plan:
    restarts = tuple(NOW - ago for ago in (500, 400, 300, 200, 100))
    return plan(desired(V1), observed(workload(state=STOPPED)), SERVING, restarts=restarts)


def crashes_of_long_ago_are_forgotten() -> Plan:
    restarts = tuple(NOW - ago for ago in (1000, 900, 800, 700, 601))
    return plan(desired(V1), observed(workload(state=STOPPED)), SERVING, restarts=restarts)


def failed_version_is_cleared_away() -> Plan:
    return plan(desired(V2), observed(OLD, NEW), SERVING, failed="v2")


def failed_version_stays_held() -> Plan:
    return plan(desired(V2), observed(OLD), SERVING, failed="v2")


def failed_first_version() -> Plan:
    return plan(desired(V1), observed(workload(state=STOPPED)), failed="v1")


def last_good_version_is_kept_up() -> Plan:
    kept = replace(V1, failure_reason=Reason.NOT_READY, failure="did not answer within 120 s")
    return plan(desired(kept), observed(workload(state=STOPPED), NEW), SERVING, failed="v2")


def changed_again_after_a_failure() -> Plan:
    return plan(desired(component(version="v3")), observed(OLD), SERVING, failed="v2")


def only_the_apis_changed() -> Plan:
    return plan(desired(component(apis=["images"])), observed(OLD), SERVING)


def only_the_limits_of_the_gateway_changed() -> Plan:
    longer = replace(V1, spec=spec(server=replace(V1.spec.server, timeout=300.0)))
    return plan(desired(longer), observed(OLD), SERVING)


def own_server_is_asked_at_its_own_path() -> Plan:
    return plan(desired(replace(V1, spec=spec(server=make(OwnServer, "/ready")))), observed())


def component_left_git() -> Plan:
    other = component("other")
    there = observed(OLD, workload("other"), workload("other", replica=1, state=STOPPED))
    return plan(desired(V1), there, SERVING, route(other, workload("other")))


def component_left_git_and_prune_is_off() -> Plan:
    return plan(desired(V1, prune=False), observed(OLD, workload("other")), SERVING)


def everything_left_git() -> Plan:
    return plan(desired(), observed(OLD, workload("other")), SERVING)


def everything_left_git_and_that_was_approved() -> Plan:
    return plan(desired(approved=True), observed(OLD, workload("other")), SERVING)


def nothing_declared_and_nothing_there() -> Plan:
    return plan(desired(), observed(network=False))


def disconnected() -> Plan:
    return plan(DesiredApp(APP, "", approved=True), observed(OLD), SERVING)


def network_left_over() -> Plan:
    return plan(DesiredApp(APP, "", approved=True), observed())


def known_under_an_older_fingerprint_version() -> Plan:
    upgraded = replace(V1, fingerprints=(*V1.fingerprints, "2:" + "f" * 64))
    return plan(desired(upgraded), observed(OLD), SERVING)


def died_under_an_older_fingerprint_version() -> Plan:
    upgraded = replace(V1, fingerprints=(*V1.fingerprints, "2:" + "f" * 64))
    return plan(desired(upgraded), observed(), SERVING)


def unresolved_component_is_left_alone() -> Plan:
    missing = Unresolved(component("other").spec.name, Reason.IMAGE_NOT_FOUND, "other:9 is not there")
    there = observed(OLD, workload("other"))
    return plan(
        desired(V2, unresolved=(missing,)), there, SERVING, route(component("other"), workload("other"))
    )


def only_unresolved_components() -> Plan:
    missing = Unresolved(V1.spec.name, Reason.IMAGE_NOT_FOUND, "demo:9 is not there")
    return plan(desired(unresolved=(missing,)), observed(OLD), SERVING)


def crash_after_the_new_one_was_created() -> Plan:
    return plan(desired(V2), observed(OLD, workload(version="v2", state=CREATED)), SERVING)


def crash_while_the_new_one_was_waited_for() -> Plan:
    return plan(desired(V2), observed(OLD, NEW), SERVING)


def crash_after_the_switch() -> Plan:
    return plan(desired(V2), observed(OLD, NEW), route(V2, NEW))


def crash_between_stop_and_start_of_recreate() -> Plan:
    wanted = component(version="v2", recreate=True)
    return plan(desired(wanted), observed(), route(V1, fingerprint=fingerprint("v1")))


def crash_while_a_repair_was_waited_for() -> Plan:
    repaired = workload(replica=1, address="not-in-use-yet")
    return plan(desired(component(replicas=2)), observed(OLD, repaired), SERVING)


NAPPING = replace(V1, spec=spec(idle_after=600.0, setup_timeout=90.0))
DOZING = replace(NAPPING, asleep=True)
NAPPING_ROUTE = replace(SERVING, wake_within=90.0)
ASLEEP = replace(NAPPING_ROUTE, upstreams=(), asleep=True)


def idle() -> Plan:
    return plan(desired(DOZING), observed(OLD), NAPPING_ROUTE)


def idle_with_replicas_in_any_state() -> Plan:
    created = workload(replica=2, state=CREATED)
    there = observed(OLD, workload(replica=1, state=STOPPED), created, workload(version="v0"))
    return plan(desired(DOZING), there, NAPPING_ROUTE)


def asleep() -> Plan:
    return plan(desired(DOZING), observed(), ASLEEP)


def asleep_and_its_apis_changed() -> Plan:
    return plan(desired(replace(DOZING, apis=component(apis=["images"]).apis)), observed(), ASLEEP)


def asleep_and_a_new_version_comes() -> Plan:
    return plan(desired(replace(DOZING, fingerprints=V2.fingerprints, asleep=False)), observed(), ASLEEP)


def never_been_ready_and_idle() -> Plan:
    return plan(desired(replace(DOZING, fingerprints=V2.fingerprints)), observed(OLD), NAPPING_ROUTE)


def called_while_asleep() -> Plan:
    return plan(desired(NAPPING), observed(), ASLEEP)


def called_while_asleep_right_after_a_repair() -> Plan:
    return plan(desired(NAPPING), observed(), ASLEEP, restarts=(NOW - 1,))


def crash_while_it_was_put_to_sleep() -> Plan:
    return plan(desired(DOZING), observed(OLD), ASLEEP)


def called_after_a_crash_while_it_was_put_to_sleep() -> Plan:
    return plan(desired(NAPPING), observed(OLD), ASLEEP)


def hibernation_was_declared() -> Plan:
    return plan(desired(NAPPING), observed(OLD), SERVING)


SITUATIONS: tuple[Callable[[], Plan], ...] = (
    first_deploy,
    first_deploy_pulls_the_image,
    first_deploy_builds_the_image,
    a_pushed_build_that_the_engine_has_lost,
    first_deploy_brings_the_model,
    new_version_whose_model_is_here,
    new_version_with_recreate_brings_the_model_first,
    serves_and_its_model_left_the_cache,
    nothing_to_do,
    new_version,
    new_version_with_a_smoke_test,
    new_version_with_a_smoke_test_runs_already,
    repair_of_a_version_that_has_passed_its_smoke_test,
    new_version_of_two_replicas,
    new_version_with_recreate,
    new_version_with_recreate_waits_after_a_failure,
    a_replica_died_while_its_repair_waits_after_a_failure,
    scale_up,
    scale_down,
    one_replica_died,
    one_replica_is_lost_with_its_node,
    the_engine_has_accepted_it_and_does_not_run_it,
    refused_after_it_was_accepted,
    the_only_replica_died,
    out_of_memory,
    stopped_by_hand_without_an_exit_code,
    container_removed_by_hand,
    container_taken_off_the_network,
    container_renamed_by_hand,
    container_restarted_by_hand,
    network_and_container_gone,
    created_but_never_started,
    hold_for_backoff,
    hold_for_backoff_while_others_answer,
    backoff_is_over,
    hold_for_a_crash_loop,
    crashes_of_long_ago_are_forgotten,
    failed_version_is_cleared_away,
    failed_version_stays_held,
    failed_first_version,
    last_good_version_is_kept_up,
    changed_again_after_a_failure,
    only_the_apis_changed,
    only_the_limits_of_the_gateway_changed,
    own_server_is_asked_at_its_own_path,
    component_left_git,
    component_left_git_and_prune_is_off,
    everything_left_git,
    everything_left_git_and_that_was_approved,
    nothing_declared_and_nothing_there,
    disconnected,
    network_left_over,
    known_under_an_older_fingerprint_version,
    died_under_an_older_fingerprint_version,
    unresolved_component_is_left_alone,
    only_unresolved_components,
    crash_after_the_new_one_was_created,
    crash_while_the_new_one_was_waited_for,
    crash_after_the_switch,
    crash_between_stop_and_start_of_recreate,
    crash_while_a_repair_was_waited_for,
    idle,
    idle_with_replicas_in_any_state,
    asleep,
    asleep_and_its_apis_changed,
    asleep_and_a_new_version_comes,
    never_been_ready_and_idle,
    called_while_asleep,
    called_while_asleep_right_after_a_repair,
    crash_while_it_was_put_to_sleep,
    called_after_a_crash_while_it_was_put_to_sleep,
    hibernation_was_declared,
)


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda s: s.__name__)
def test_plan(situation: Callable[[], Plan]) -> None:
    assert situation().render() + "\n" == (GOLDEN / f"{situation.__name__}.txt").read_text()


def test_every_text_has_its_situation() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == {situation.__name__ for situation in SITUATIONS}


def test_a_hold_says_when_the_verdict_may_change() -> None:
    (hold,) = hold_for_backoff().holds
    assert hold.retry_after == pytest.approx(1.0)  # the pause is 4 s, of which 3 have passed
    (hold,) = hold_for_a_crash_loop().holds
    assert hold.retry_after is None


def test_repairs_are_counted_and_growth_is_not() -> None:
    def heals(made: Plan) -> list[bool]:
        return [action.heals for action in made.actions if hasattr(action, "heals")]

    assert (
        heals(the_only_replica_died())
        == heals(container_removed_by_hand())
        == heals(one_replica_died())
        == [True]
    )
    assert heals(the_engine_has_accepted_it_and_does_not_run_it()) == [False]
    assert heals(scale_up()) == [False, False]
    assert heals(called_while_asleep()) == [False]
    assert heals(first_deploy()) == heals(new_version()) == heals(created_but_never_started()) == [False]


def test_a_lost_node_is_no_crash() -> None:
    (start,) = [a for a in one_replica_is_lost_with_its_node().actions if isinstance(a, StartWorkload)]
    assert (start.heals, start.node_lost) == (True, True)
    (start,) = [a for a in one_replica_died().actions if isinstance(a, StartWorkload)]
    assert not start.node_lost


def test_a_plan_shows_no_environment() -> None:
    assert "hunter2" not in first_deploy_builds_the_image().render()


if __name__ == "__main__":
    for situation in SITUATIONS:
        (GOLDEN / f"{situation.__name__}.txt").write_text(situation().render() + "\n")
