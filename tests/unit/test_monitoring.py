"""The alert rules and the dashboard in `monitoring/`: what they name exists, and the guide shows the same rules."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.support.pages import ROOT

FOLDER = ROOT / "monitoring"
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text())
SOURCE = (ROOT / "controller/web/api/platform/metrics.py").read_text()


def texts() -> list[str]:
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    return [*panels, (FOLDER / "alerts.yaml").read_text()]


def test_every_metric_is_one_of_ours() -> None:
    known = set(re.findall(r'"(prichal_\w+)"', SOURCE))
    for text in texts():
        for name in re.findall(r"\bprichal_\w+", text):
            assert re.sub(r"_(total|bucket|count|sum)$", "", name) in known, name


def test_every_label_is_one_of_ours() -> None:
    known = {"le", *re.findall(r'"(\w+)"', "".join(re.findall(r"labels=\[(.*?)\]", SOURCE)))}
    for text in texts():
        matched = re.findall(r'(\w+)(?:=~|!~|!=|=)\s*\\?"', text)
        grouped = re.findall(r"\b(?:by|on) \(([\w, ]+)\)", text)
        named = {*matched, *(label for group in grouped for label in group.split(", "))} - {"severity"}
        assert named <= known, text


def test_the_guide_shows_the_rules() -> None:
    page = (ROOT / "docs/guide/operations.md").read_text()
    assert f"```yaml\n{(FOLDER / 'alerts.yaml').read_text()}```\n" in page


def test_panels_explain_themselves_and_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["description"].endswith("."), panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["fieldConfig"]["defaults"]["unit"]
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


@pytest.mark.parametrize("name", ["datasource", "app"])
def test_the_dashboard_has_the_variables_that_it_uses(name: str) -> None:
    variables = {each["name"] for each in DASHBOARD["templating"]["list"]}
    assert name in variables
    assert any(f"${name}" in text or f"${{{name}}}" in text for text in [json.dumps(DASHBOARD)])
