"""No module imports itself by a circle of others, not even inside of a function or for its types alone. Ports have one
address."""

from __future__ import annotations

import re
from graphlib import TopologicalSorter

import grimp

from tests.support.pages import ROOT

_MODULE_OF_PORTS = re.compile(r"^\s*(?:from|import) controller\.ports\.", re.MULTILINE)


def test_imports_have_no_circle() -> None:
    graph = grimp.build_graph("controller", exclude_type_checking_imports=False, cache_dir=None)
    imported = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    order = TopologicalSorter(imported).static_order()
    assert len(list(order)) == len(graph.modules) > 0  # CycleError names the circle


def test_ports_are_imported_from_their_package() -> None:
    """`lint-imports` checks the same, of `controller` alone."""
    files = [path for folder in ("tests", "benchmarks", "examples") for path in (ROOT / folder).rglob("*.py")]
    assert files
    assert [str(path) for path in files if _MODULE_OF_PORTS.search(path.read_text())] == []
