"""Which branches have previews, and under which names. The names are those that people push, so any text may come."""

from __future__ import annotations

from dataclasses import replace

import pygit2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.apps.branch_previews import (
    MOST_BRANCHES,
    BranchPreview,
    BranchPreviews,
    OpenPull,
    PreviewDecision,
    SeenBranch,
    is_branch_name,
    is_preview_ref,
    listed_branches,
    part_of,
    preview_name,
    shown_ref,
    wanted_previews,
    with_previews,
    with_share_of_previews,
)
from controller.domain.apps.deploy_gate import DeployRules
from controller.domain.apps.spec import (
    GitRef,
    GivenSecrets,
    Limits,
    PlatformAppSpec,
    PlatformSpec,
    PreviewRules,
    RefKind,
    RepositorySpec,
)
from controller.domain.names import AppName, RepositoryName, is_dns_label
from tests.support.specs import make

DAY = 86400.0
NOW = 1_000 * DAY
DEMO = AppName("demo")
MAIN = GitRef(RefKind.BRANCH, "main")
RULES = PreviewRules(
    ("feature/*",),
    ttl=3 * DAY,
    most=2,
    limits=Limits(),
    secrets=GivenSecrets(frozenset()),
    copies_boxes=False,
)
REPOSITORY = RepositorySpec(
    RepositoryName("demo"),
    "https://git.example.org/demo.git",
    MAIN,
    60.0,
    credentials="login",
    signers="team",
)


def app(name: str = "demo", rules: PreviewRules | None = RULES, **changes: object) -> PlatformAppSpec:
    gate = DeployRules(frozen=True, approval=True)
    made = make(PlatformAppSpec, AppName(name), RepositoryName("demo"), deploy=gate, previews=rules)
    return replace(made, **changes)  # type: ignore[arg-type]


def spec(*apps: PlatformAppSpec) -> PlatformSpec:
    return PlatformSpec((REPOSITORY,), apps or (app(),))


def seen(name: str, days_ago: float = 0.0, head: str = "a") -> SeenBranch:
    return SeenBranch(DEMO, f"refs/heads/{name}", head * 40, NOW - days_ago * DAY)


def wanted(
    *branches: SeenBranch,
    platform: PlatformSpec | None = None,
    decided: PreviewDecision | None = None,
    suspended: bool = False,
    now: float = NOW,
    made: tuple[BranchPreview, ...] = (),
) -> BranchPreviews:
    about = {preview_name(DEMO, branch.ref): decided for branch in branches} if decided else {}
    gone = frozenset({DEMO} if suspended else ())
    return wanted_previews(platform or spec(), branches, about, gone, now, made)


def shown(found: BranchPreviews) -> list[str]:
    return [shown_ref(each.ref) for each in found.wanted]


# --- names ------------------------------------------------------------------------------------------------------

ODD = (
    "../x",
    "ветка/правка",
    "x" * 250,
    "-o",
    "--upload-pack=x",
    "a b",
    "feature/X",
    "feature-x",
    "@",
    "HEAD",
    "💥",
)


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("main", ["demo", "a", "pu-ivanov-pa-" + "x" * 50])
def test_every_branch_has_a_name_that_an_app_can_have(main: str, name: str) -> None:
    found = preview_name(AppName(main), f"refs/heads/{name}")
    assert is_dns_label(found)
    assert found.startswith(main[:30].rstrip("-"))


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_two_branches_have_different_names(one: str, other: str) -> None:
    names = {preview_name(DEMO, f"refs/heads/{name}") for name in (one, other)}
    assert len(names) == len({one, other})
    assert all(map(is_dns_label, names))


def test_branches_whose_letters_become_the_same_ones_differ() -> None:
    names = {
        preview_name(DEMO, f"refs/heads/{name}")
        for name in ("feature/x", "feature-x", "Feature_X", "feature//x")
    }
    assert len(names) == 4


def test_a_name_says_what_it_is_the_preview_of() -> None:
    assert preview_name(DEMO, "refs/heads/feature/colours").startswith("demo-feature-colours-")
    assert preview_name(DEMO, "refs/pull/3/head").startswith("demo-pull-3-")


@given(st.text(max_size=80))
def test_only_names_that_git_allows_are_branches(name: str) -> None:
    allowed = is_branch_name(name)
    if allowed:
        assert pygit2.reference_is_valid_name(f"refs/heads/{name}")


NONE = ("../x", "a..b", "a b", "a\n", "", "/x", "x/", ".x", "a/.b", "x.lock", "a@{1}", "x" * 256)


@pytest.mark.parametrize("name", NONE)
def test_what_no_branch_can_be_called_is_none(name: str) -> None:
    assert not is_branch_name(name)
    assert not is_preview_ref(f"refs/heads/{name}")


@pytest.mark.parametrize("name", ["ветка/правка", "x" * 255, "-o", "feature/x", "a.b", "UPPER"])
def test_odd_names_that_git_allows_are_branches(name: str) -> None:
    assert is_branch_name(name)


# --- what is listed ---------------------------------------------------------------------------------------------


def listed(
    heads: dict[str, str],
    rules: PreviewRules = RULES,
    pulls: tuple[OpenPull, ...] = (),
    before: tuple[SeenBranch, ...] = (),
) -> list[str]:
    found = listed_branches(DEMO, rules, MAIN, heads, pulls, before, NOW)
    return [shown_ref(each.ref) for each in found]


def test_branches_that_match_are_listed_but_never_the_one_that_is_followed() -> None:
    heads = {
        f"refs/heads/{name}": "a" * 40 for name in ("main", "feature/x", "fix", "feature/a/b", "feature/../y")
    }
    assert listed(heads) == ["feature/a/b", "feature/x"]
    assert listed(heads, replace(RULES, branches=("*",))) == ["feature/a/b", "feature/x", "fix"]


def test_a_branch_is_as_new_as_its_last_commit() -> None:
    old = (seen("feature/x", 2.0, "a"), seen("feature/y", 2.0, "a"))
    heads = {"refs/heads/feature/x": "a" * 40, "refs/heads/feature/y": "b" * 40}
    found = listed_branches(DEMO, RULES, MAIN, heads, (), old, NOW)
    assert [each.since for each in found] == [NOW - 2 * DAY, NOW]


def test_a_clock_that_was_set_back_keeps_nothing_for_ever() -> None:
    future = replace(seen("feature/x"), since=NOW + 1000 * DAY)
    (found,) = listed_branches(DEMO, RULES, MAIN, {future.ref: future.head}, (), (future,), NOW)
    assert found.since == NOW


def test_with_pull_requests_only_branches_with_an_open_one_count() -> None:
    heads = {f"refs/heads/{name}": "a" * 40 for name in ("feature/x", "feature/y")}
    heads |= {"refs/pull/3/head": "c" * 40, "refs/pull/4/head": "d" * 40, "refs/pull/x/head": "d" * 40}
    rules = replace(RULES, pull_requests=True)
    pulls = (OpenPull(2, "feature/y"), OpenPull(3, "feature/x", is_fork=True), OpenPull(5, "feature/z"))
    assert listed(heads, rules, pulls) == ["feature/y"]
    assert listed(heads, replace(rules, forks=True), pulls) == ["feature/y", "pull/3"]
    assert listed(heads, rules) == []


def test_ten_thousand_branches_are_within_the_bound_and_more_are_cut_off() -> None:
    heads = {f"refs/heads/feature/{number:06}": "a" * 40 for number in range(MOST_BRANCHES + 5)}
    found = listed(heads)
    assert len(found) == MOST_BRANCHES > 10_000
    assert found[0] == "feature/000000"


# --- what is wanted ---------------------------------------------------------------------------------------------


def test_the_newest_are_kept_and_others_are_told() -> None:
    found = wanted(seen("feature/old", 2), seen("feature/new"), seen("feature/mid", 1))
    assert shown(found) == ["feature/new", "feature/mid"]
    (left_out,) = found.left_out
    assert shown_ref(left_out.ref) == "feature/old"
    assert "as many as spec.previews.max allows" in left_out.why


@pytest.mark.parametrize(
    ("branch", "decided", "there", "why"),
    [
        (seen("feature/x", 2.9), None, True, ""),
        (seen("feature/x", 3.0), None, False, "its time is over"),
        (seen("feature/x", 9.0), PreviewDecision(kept=NOW - DAY), True, ""),
        (seen("feature/x", 9.0), PreviewDecision(kept=NOW + 99 * DAY), True, ""),
        (seen("feature/x", 9.0), PreviewDecision(kept=NOW - 3 * DAY), False, "its time is over"),
        (seen("feature/x"), PreviewDecision(removed="a" * 40), False, "a person has removed it"),
        (seen("feature/x", head="b"), PreviewDecision(removed="a" * 40), True, ""),
        (seen("fix"), None, False, "does not match it any more"),
    ],
)
def test_time_and_people_decide(
    branch: SeenBranch, decided: PreviewDecision | None, there: bool, why: str
) -> None:
    found = wanted(branch, decided=decided)
    assert bool(found.wanted) is there
    assert [why in each.why for each in found.left_out] == ([] if there else [True])


def test_a_preview_that_is_kept_ends_at_the_latest_a_ttl_from_now() -> None:
    (found,) = wanted(seen("feature/x"), decided=PreviewDecision(kept=NOW + 99 * DAY)).wanted
    assert found.ends == NOW + RULES.ttl


@pytest.mark.parametrize("platform", [spec(app(suspend=True)), spec(app(rules=None)), PlatformSpec()])
def test_without_the_app_or_its_rules_there_is_none(platform: PlatformSpec) -> None:
    assert wanted(seen("feature/x"), platform=platform).wanted == ()


def test_of_an_app_that_a_person_has_suspended_there_is_none() -> None:
    assert wanted(seen("feature/x"), suspended=True).wanted == ()


def test_an_app_of_the_same_name_goes_before() -> None:
    taken = preview_name(DEMO, "refs/heads/feature/x")
    found = wanted(seen("feature/x"), platform=spec(app(), app(taken, None)))
    assert found.wanted == ()
    assert [each.why for each in found.left_out] == [f"there is another app {taken}"]


@pytest.mark.parametrize(
    ("of", "branch", "count"), [("demo", "feature/x", 1), ("demo", "feature/y", 0), ("other", "feature/x", 0)]
)
def test_a_preview_keeps_its_name_until_it_is_removed(of: str, branch: str, count: int) -> None:
    """Its boxes would be those of another branch otherwise, for which a name with the same digest was sought."""
    name = preview_name(DEMO, "refs/heads/feature/x")
    made = BranchPreview(name, AppName(of), f"refs/heads/{branch}", "a" * 40, NOW, NOW + DAY)
    found = wanted(seen("feature/x"), made=(made,))
    assert len(found.wanted) == count
    assert len(found.left_out) == 1 - count


@pytest.mark.parametrize(
    ("share", "each", "number"),
    [
        (Limits(cpus=4.0), Limits(cpus=2.0), 2),
        (Limits(cpus=4.0), Limits(cpus=3.0), 1),
        (Limits(cpus=0.3), Limits(cpus=0.1), 3),
        (Limits(memory=100), Limits(memory=40), 2),
        (Limits(storage=10), Limits(storage=0), 5),
        (Limits(containers=3), Limits(containers=4), 0),
        (Limits(gpus=0), Limits(gpus=1), 0),
        (Limits(), Limits(cpus=100.0), 5),
    ],
)
def test_the_share_of_the_app_bounds_its_previews_together(share: Limits, each: Limits, number: int) -> None:
    rules = replace(RULES, most=5, limits=each)
    found = wanted(
        *(seen(f"feature/{n}", n / 10) for n in range(6)), platform=spec(app(rules=rules, limits=share))
    )
    assert len(found.wanted) == number


@given(
    st.builds(
        Limits,
        cpus=st.none() | st.floats(0.01, 1024).map(lambda n: round(n, 3)),
        memory=st.none() | st.integers(1, 2**45),
        storage=st.none() | st.integers(0, 2**45),
        containers=st.none() | st.integers(0, 1000),
        gpus=st.none() | st.integers(0, 64),
    ),
    st.integers(1, 50),
)
def test_equal_parts_of_a_share_all_fit(share: Limits, most: int) -> None:
    rules = replace(RULES, most=most, limits=part_of(share, most))
    branches = [seen(f"feature/{number}") for number in range(most)]
    found = wanted(*branches, platform=spec(app(rules=rules, limits=share)))
    assert len(found.wanted) == most


def test_the_quota_of_the_owner_counts_the_previews() -> None:
    share = with_share_of_previews(app(limits=Limits(cpus=2.0, memory=100)))
    assert (share.cpus, share.memory, share.gpus) == (4.0, 200, None)
    assert with_share_of_previews(app(rules=None, limits=Limits(cpus=2.0))) == Limits(cpus=2.0)


# --- what a preview is ------------------------------------------------------------------------------------------


def test_a_preview_is_an_app_of_its_own_that_nothing_in_its_branch_governs() -> None:
    rules = replace(RULES, limits=Limits(cpus=1.0), secrets=GivenSecrets(frozenset({"keys"})))
    platform = spec(app(rules=rules, owner="anna", limits=Limits(cpus=4.0), prune=False))
    whole = with_previews(platform, wanted(seen("feature/x"), platform=platform).wanted)
    (found,) = [each for each in whole.apps if each.preview]
    assert (found.limits, found.owner, found.previews, found.prune) == (Limits(cpus=1.0), "", None, True)
    assert found.deploy == DeployRules(frozen=False, approval=False)
    assert found.preview
    assert (found.preview.app, found.preview.secrets.has("keys")) == (DEMO, True)
    repository = whole.repository(found.repository)
    assert repository
    assert repository.name not in {each.name for each in platform.repositories}
    assert not is_dns_label(repository.name)
    assert (repository.ref, repository.interval, repository.head) == (
        GitRef(RefKind.BRANCH, "feature/x"),
        0.0,
        "a" * 40,
    )
    assert (repository.credentials, repository.signers, repository.hook_secret) == ("login", "team", None)


def test_a_pull_request_of_a_fork_is_fetched_by_the_ref_that_the_forge_keeps() -> None:
    platform = spec(app(rules=replace(RULES, pull_requests=True, forks=True)))
    branch = SeenBranch(DEMO, "refs/pull/3/head", "a" * 40, NOW)
    whole = with_previews(platform, wanted(branch, platform=platform).wanted)
    assert whole.repositories[-1].ref == GitRef(RefKind.PULL, "refs/pull/3/head")
