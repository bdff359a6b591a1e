"""Prometheus' own checker reads the alert rules, tries what they say, and understands each query of the dashboard."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.support.pages import ROOT

FOLDER = ROOT / "monitoring"
PROMTOOL = ROOT / "build/tools/promtool"


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_are_right() -> None:
    promtool("check", "rules", FOLDER / "alerts.yaml")


def test_the_alerts_say_what_they_should() -> None:
    promtool("test", "rules", FOLDER / "alerts_test.yaml")


def test_the_queries_of_the_dashboard_are_understood(tmp_path: Path) -> None:
    panels = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    assert len(queries) > 10
    filled = [text.replace("$__rate_interval", "5m").replace("$app", ".*") for text in queries]
    rules = [{"record": f"panel:query:{number}", "expr": text} for number, text in enumerate(filled)]
    path = tmp_path / "rules.yaml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # JSON is YAML
    promtool("check", "rules", path)
