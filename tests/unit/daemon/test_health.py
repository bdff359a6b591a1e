"""What the daemon found is written for the web process, without what only the host may see."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path

from controller.config import Settings
from controller.daemon.doctor import CHECKS, Check, doctor
from controller.daemon.health import write_health
from controller.domain.localizable import Localizable
from controller.web.pages.health import Examination, HealthCheck, examination
from controller.web.pages.languages import Language, wording


def test_what_was_found_can_be_read_by_the_group_alone(tmp_path: Path) -> None:
    settings = Settings(state=tmp_path)
    settings.health.parent.mkdir()
    asked: list[frozenset[str]] = []

    def examine(settings: Settings, names: frozenset[str] | None = None) -> list[Check]:
        asked.append(names or frozenset())
        return [Check("engine", False, "no answer\x1b[31m", "start it"), Check("git", True, "here")]

    write_health(settings, examine, lambda: 0.0)
    assert stat.S_IMODE(settings.health.stat().st_mode) == 0o640
    found = examination(settings.health)
    assert found.at == "1970-01-01T00:00:00.000Z"
    assert found.checks == (
        HealthCheck("engine", False, "no answer", "start it"),
        HealthCheck("git", True, "here", ""),
    )
    assert asked == [frozenset(CHECKS) - {"people"}], "the first administrator's link is not for the file"


def test_some_checks_of_all(tmp_path: Path) -> None:
    settings = Settings(state=tmp_path)
    assert [check.name for check in doctor(settings, frozenset(("git program", "configuration")))] == [
        "configuration",
        "git program",
    ]


def test_a_document_that_is_not_one(tmp_path: Path) -> None:
    path = tmp_path / "health.json"
    assert examination(path) == Examination()
    for content in ("", "[]", "{}", '{"at": 1, "checks": 3}', '{"at": "", "checks": [{}]}', "x" * 2**19):
        path.write_text(content)
        assert examination(path) == Examination()
    path.write_text(json.dumps({"at": "now", "checks": []}))
    assert examination(path) == Examination("now")


def test_what_was_found_can_be_told_in_another_language(tmp_path: Path) -> None:
    settings = Settings(state=tmp_path)
    settings.health.parent.mkdir()

    def examine(settings: Settings, names: frozenset[str] | None = None) -> list[Check]:
        detail = Localizable("there is no socket at {path}", path="/run/docker.sock")
        return [Check("engine", False, detail, "chmod 0600 /run/docker.sock")]

    write_health(settings, examine, lambda: 0.0)
    (check,) = examination(settings.health).checks
    assert wording(Language.RUSSIAN).message(check.detail) == "сокета /run/docker.sock нет"
    assert wording(Language.RUSSIAN).message(check.advice) == "chmod 0600 /run/docker.sock"
    document = json.loads(settings.health.read_text())
    document["checks"][0]["detail"] = "the document was written by another release"
    settings.health.write_text(json.dumps(document))
    (check,) = examination(settings.health).checks
    assert wording(Language.RUSSIAN).message(check.detail) == "the document was written by another release"
    others: tuple[object, ...] = (
        None,
        [],
        {"detail": 7},
        {"detail": {"pattern": "{x}", "values": {"x": []}, "sentence": False}},
    )
    for told in others:
        document["checks"][0]["told"] = told
        settings.health.write_text(json.dumps(document))
        assert examination(settings.health).checks == (check,)


def test_every_finding_of_this_machine_can_be_told_in_russian(tmp_path: Path) -> None:
    """All else is a command, a path or what another program has said."""
    settings = Settings(state=tmp_path)
    checks = doctor(settings, frozenset(CHECKS) - {"git program"})
    words = wording(Language.RUSSIAN)
    english = re.compile(r"[A-Za-z]{2,} (is|are|does|the|has|no|not|and) ")
    told = [(check.name, words.message(check.detail), words.message(check.advice)) for check in checks]
    assert [each for each in told if english.search(" ".join(each[1:]))] == []
