"""The pages of a pipeline, with its runs and the form that starts one, and of a run, with its stages, logs and outputs.

Both change while they are open; logs are asked for by `static/log.js` in pieces.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from typing import Any, Final
from urllib.parse import quote, urlencode

from flask import Response, current_app, g

from controller.domain.localizable import Localizable
from controller.domain.names import AppName, ComponentName
from controller.domain.people.roles import Principal
from controller.domain.routing.caller_names import name_of_person
from controller.domain.runs.run import (
    AreaKind,
    Attempt,
    Run,
    RunCause,
    RunCount,
    RunFilter,
    RunOutput,
    RunState,
    StageRun,
    first_id,
    is_run_id,
)
from controller.ports import Store
from controller.web.api.runs.submission import RunInterface
from controller.web.auth.call_passes import ADMIN
from controller.web.context import context, principal, query
from controller.web.pages.advice import ADVICE_ABOUT
from controller.web.pages.files import files_of, storage_origin
from controller.web.pages.languages import Language
from controller.web.pages.live import live_page
from controller.web.pages.rendering import gets_buttons, render
from controller.web.pages.run_words import FIELD, RUN_STATES, WORDS, in_short, wrong_inputs
from controller.web.pages.stage_graph import graph_of
from controller.web.pages.words import Told
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused
from controller.web.query import QueryParameters

ROWS: Final = 50  # runs on one page
PARTS: Final = ("head", "graph", "stages", "values")  # of the page of a run, that change
DAY: Final = 86400.0  # seconds
FIRST_YEAR, LAST_YEAR = 1970, 2500  # that ids of runs can have


def place_of(app: str, pipeline: str, run: str = "") -> str:
    """Return the path of the page of a pipeline or a run."""
    path = f"/-/apps/{quote(app)}/pipelines/{quote(pipeline)}"
    return f"{path}/runs/{quote(run)}" if run else path


@dataclass(frozen=True)
class RunList:
    """One page of the runs of a pipeline, the newest first. `next`: where the next page begins."""

    runs: tuple[Run, ...]
    counts: tuple[RunCount, ...]
    next: str


@dataclass(frozen=True)
class RunQuery:
    """What a person asks of the list; the dates are days in UTC, as forms send them."""

    state: RunState | None = None
    cause: RunCause | None = None
    who: str = ""
    first: date | None = None
    last: date | None = None
    after: str = ""

    @classmethod
    def of(cls, asked: QueryParameters) -> RunQuery:
        """Raises RequestRefused."""
        after = asked.text("after") or ""
        return cls(
            asked.choice("state", {"": None, **{each.lower(): each for each in RunState}}),
            asked.choice("cause", {"": None, **{str(each): each for each in RunCause}}),
            (asked.text("who") or "").strip(),
            _day(asked, "from"),
            _day(asked, "to"),
            after if is_run_id(after) else "",
        )

    def filter(self, pipeline: ComponentName) -> RunFilter:
        since = first_id(_begin(self.first)) if self.first else ""
        ends = [first_id(_begin(self.last) + DAY)] if self.last else []
        after = min([*ends, *([self.after] if self.after else [])], default="")
        return RunFilter(pipeline, self.state, after, None, since, self.who or None, self.cause)

    @property
    def address(self) -> str:
        """Return it as the query of an address."""
        asked = {
            "state": (self.state or "").lower(),
            "cause": self.cause or "",
            "who": self.who,
            "from": self.first or "",
            "to": self.last or "",
            "after": self.after,
        }
        text = urlencode({name: value for name, value in asked.items() if value})
        return f"?{text}" if text else ""


def _day(asked: QueryParameters, name: str) -> date | None:
    text = asked.text(name)
    try:
        found = date.fromisoformat(text) if text else None
    except ValueError:
        found = date.min
    if found is not None and not FIRST_YEAR <= found.year <= LAST_YEAR:
        detail = Localizable("{name} must be a day such as 2026-11-29.", name=name)
        raise RequestRefused(HttpProblem(ProblemKind.BAD_REQUEST, detail))
    return found


def _begin(day: date) -> float:
    return datetime.combine(day, time.min, UTC).timestamp()


@dataclass(frozen=True)
class PipelineLive:
    app: AppName
    pipeline: ComponentName
    asked: RunQuery

    @classmethod
    def of(
        cls, store: Store, who: Principal, names: Mapping[str, str], asked: QueryParameters
    ) -> PipelineLive:
        """Raises RequestRefused for a pipeline that neither exists nor has runs."""
        app, name = AppName(names["name"]), ComponentName(names["pipeline"])
        is_known = store.runs.pipeline(app, name) is not None
        if not is_known and not any(count.pipeline == name for count in store.runs.counts(app)):
            raise RequestRefused(unknown_pipeline(app, name))
        return cls(app, name, RunQuery.of(asked))

    def read(self, store: Store) -> RunList:
        found = store.runs.list(self.app, self.asked.filter(self.pipeline), ROWS + 1)
        counts = tuple(each for each in store.runs.counts(self.app) if each.pipeline == self.pipeline)
        more = found[ROWS - 1].id if len(found) > ROWS else ""
        return RunList(found[:ROWS], counts, more)

    def fragments(self, found: Any, language: Language) -> Mapping[str, str]:
        listed: RunList = found
        numbers = dict.fromkeys(RunState, 0) | {each.state: each.number for each in listed.counts}
        values = {
            "list": listed,
            "numbers": numbers,
            "words": RUN_STATES,
            "asked": self.asked,
            "to": self.address,
            "place": place_of(self.app, self.pipeline),
            "in_short": in_short,
            "told_by": told_by,
        }
        return {name: render(f"runs/{name}.html", language, values) for name in ("counts", "list")}

    def address(self, **changed: Any) -> str:
        """Return where this list is with another filter, from its first page unless `after` is given."""
        asked = replace(self.asked, **{"after": "", **changed})
        return place_of(self.app, self.pipeline) + asked.address


def pipeline_page(
    app: str,
    pipeline: str,
    interface: RunInterface | None,
    given: Mapping[str, str] | None = None,
    problem: HttpProblem | None = None,
) -> Response:
    """The page for the present request. `interface` is None while the pipeline cannot be run; `given` is a form that
    was refused, which comes back with what is wrong. Scripts of the form may change the app's files, nothing else."""
    asked = query() if problem is None else QueryParameters({})
    names, place = {"name": app, "pipeline": pipeline}, place_of(app, pipeline)
    live = PipelineLive.of(context(current_app).store, principal(), names, asked)
    steers = gets_buttons(principal(), app)
    wrong, others = wrong_inputs(problem) if problem else ({}, [])
    g.place = live.address(after=live.asked.after)
    response = live_page(
        "runs/pipeline.html",
        live,
        scope=scope_of(app),
        writes=files_of(app) if steers else "",
        path=place,
        connect=(storage_origin(),),
        app=app,
        pipeline=pipeline,
        place=place,
        interface=interface if steers else None,
        files=f"{files_of(app)}/{quote(interface.boxes[0])}/" if interface and interface.boxes else "",
        field=FIELD,
        given=given or {},
        wrong=wrong,
        others=others,
        sayings=WORDS,
        asked=live.asked,
        causes=tuple(RunCause),
    )
    response.status_code = problem.code if problem else 200
    return response


def scope_of(app: str) -> str:
    """Return the path below which scripts of these pages ask: those of the app's files are beside the pipeline's."""
    return f"/-/apps/{quote(app)}"


@dataclass(frozen=True)
class RunLive:
    """`steers`: the reader gets buttons; `is_own`: they have started it, so its files are in their area."""

    app: AppName
    pipeline: ComponentName
    id: str
    steers: bool
    is_own: bool

    @classmethod
    def of(cls, store: Store, who: Principal, names: Mapping[str, str], asked: QueryParameters) -> RunLive:
        """Raises RequestRefused for a run that does not exist."""
        app, pipeline, id = AppName(names["name"]), ComponentName(names["pipeline"]), names["id"]
        run = find_run(store, app, pipeline, id)
        is_own = not run.public and run.user == name_of_person(who.name or ADMIN)
        return cls(app, pipeline, id, gets_buttons(who, app), is_own)

    def read(self, store: Store) -> Run | None:
        return store.runs.get(self.app, self.id)

    def fragments(self, found: Any, language: Language) -> Mapping[str, str]:
        run: Run | None = found
        values = {
            "run": run,
            "steers": self.steers,
            "words": RUN_STATES,
            "told_by": told_by,
            "place": place_of(self.app, self.pipeline, self.id),
            "may_repeat": run is not None and run.state.terminal and run.state is not RunState.SUCCEEDED,
            "needs": lambda stage: sorted(run.pipeline.needs(run.pipeline.stage(stage))) if run else [],
            "lasted": lasted,
            "link": self.link,
            "is_there": is_there,
            "graph": graph_of(run.pipeline) if run else None,
        }
        return {name: render(f"runs/{name}.html", language, values) for name in PARTS}

    def link(self, run: Run, area: AreaKind, box: str, path: str) -> str:
        """Return where the files of a value are shown, "" where this reader may not see them."""
        box = box or next(iter(run.pipeline.boxes), "")
        if not box or (area is AreaKind.CALLER and not self.is_own):
            return ""
        area_asked = "?area=developer" if area is AreaKind.DEVELOPER else ""
        return f"{files_of(self.app)}/{quote(box)}/{quote(path)}{area_asked}"


def told_by(part: Run | StageRun | Attempt) -> Told:
    return Told.about(part.reason, part.message, ADVICE_ABOUT.get(part.reason, ""))


def is_there(run: Run, output: RunOutput) -> bool:
    """Return True if an output is in its box. What becomes the module's own data is not before the end of the run."""
    stage = run.stage(run.pipeline.made[output.name])
    return stage.state is RunState.SUCCEEDED and (
        output.name not in run.pipeline.releases
        or output.name in run.released
        or run.state is RunState.SUCCEEDED
    )


def run_page(app: str, pipeline: str, id: str) -> Response:
    """The page for the present request."""
    store = context(current_app).store
    live = RunLive.of(store, principal(), {"name": app, "pipeline": pipeline, "id": id}, query())
    run = live.read(store)
    return live_page(
        "runs/run.html",
        live,
        scope=scope_of(app),
        app=app,
        sayings=WORDS,
        pipeline=pipeline,
        id=id,
        place=place_of(app, pipeline, id),
        pipeline_place=place_of(app, pipeline),
        stages=[stage.name for stage in run.pipeline.stages] if run else [],
    )


def lasted(stage: StageRun) -> float | None:
    """Return how long the newest attempt took, in seconds; None until it has ended."""
    newest = stage.attempt
    return newest.ended - newest.started if newest and newest.ended else None


def unknown_pipeline(app: str, name: str) -> HttpProblem:
    return HttpProblem(
        ProblemKind.NOT_FOUND, Localizable("{app} has no pipeline {name!r}.", app=app, name=name[:63])
    )


def find_run(store: Store, app: AppName, pipeline: str, id: str) -> Run:
    """Return a run of this pipeline. Raises RequestRefused."""
    found = store.runs.get(app, id) if is_run_id(id) else None
    if found is None or found.name != pipeline:
        detail = Localizable(
            "{app} has no run {id!r}; runs are removed some time after their end.", app=app, id=id[:40]
        )
        raise RequestRefused(HttpProblem(ProblemKind.NOT_FOUND, detail))
    return found
