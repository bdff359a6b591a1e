"""`FakeJobs` keeps the promises of `Jobs`, so tests that use it mean something."""

from __future__ import annotations

import pytest

from controller.domain.apps.spec import Resources
from controller.domain.errors import Stalled, Transient
from controller.domain.names import AppName, job_name
from controller.domain.reasons import Reason
from controller.domain.volumes import Volume
from controller.ports import Job, Jobs
from tests.contract.jobs_contract import ClusterJobsContract, ClusterScript, Script, never
from tests.support.fake_jobs import FakeJobs
from tests.support.specs import make


class FakeScript:
    def __init__(self, jobs: FakeJobs) -> None:
        self.jobs = jobs

    def job(self, app: AppName, stage: str = "train") -> Job:
        name, limits = job_name("prichal", app, "run", stage, 1), make(Resources)
        return Job(name, app, "run", stage, 1, "train:1", resources=limits, read_only_root=False)

    def say(self, id: str, content: bytes, error: bool = False) -> None:
        self.jobs.say(id, content)

    def exit(self, id: str, code: int) -> None:
        self.jobs.exit(id, code)

    def exhaust(self, id: str) -> None:
        self.jobs.exit(id, 137, oom_killed=True)

    def kill(self, id: str) -> None:
        self.jobs.exit(id, 137)

    def vanish(self, id: str) -> None:
        self.jobs.vanish(id)

    def take_name(self, name: str) -> str:
        return self.jobs.take_name(name)

    def stage(self, volume: Volume) -> None:
        self.jobs.volumes.add(volume)

    def stranger(self) -> Jobs:
        return FakeJobs("other")

    def cut(self) -> None:
        self.jobs.down = True

    def repair(self) -> None:
        self.jobs.down = False

    def pend(self, stage: str, detail: str) -> None:
        self.jobs.pends[stage] = detail

    def admit(self, id: str) -> None:
        self.jobs.admit(id)

    def refuse(self, id: str, detail: str) -> None:
        self.jobs.refuse(id, detail)

    def lose(self, id: str, detail: str) -> None:
        self.jobs.lose(id, detail)

    def find_again(self, id: str) -> None:
        self.jobs.find_again(id)


class TestFakeJobs(ClusterJobsContract):
    @pytest.fixture
    def jobs(self) -> FakeJobs:
        jobs = FakeJobs(images={"train:1"})
        jobs.unknown_commands.add("no-such-program")
        return jobs

    @pytest.fixture
    def script(self, jobs: FakeJobs) -> ClusterScript:
        return FakeScript(jobs)

    @pytest.fixture
    def app(self) -> AppName:
        return AppName("demo")

    def test_failures_are_scripted(self, jobs: FakeJobs, script: Script, app: AppName) -> None:
        jobs.create_failures["train"] = Transient(Reason.ENGINE_DISK_FULL, "no room")
        with pytest.raises(Transient, match="no room"):
            jobs.create(script.job(app))
        del jobs.create_failures["train"]
        made = jobs.create(script.job(app))
        jobs.start_failures["train"] = Stalled(Reason.NO_GPU, "no driver")
        with pytest.raises(Stalled, match="no driver"):
            jobs.start(made.id)
        assert jobs.starts == []

    def test_ends_are_scripted(self, jobs: FakeJobs, script: Script, app: AppName) -> None:
        jobs.exits_at_start["report"] = 7
        jobs.on_start = lambda job, id: jobs.exit(id, 8) if job.stage == "train" else None
        for stage, code in (("report", 7), ("train", 8)):
            made = jobs.create(script.job(app, stage))
            jobs.start(made.id)
            seen = jobs.wait(made.id, never)
            assert seen
            assert seen.exit_code == code
