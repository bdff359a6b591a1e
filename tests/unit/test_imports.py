"""No module imports itself by a circle of others, not even inside of a function or for its types alone."""

from __future__ import annotations

from graphlib import TopologicalSorter

import grimp


def test_imports_have_no_circle() -> None:
    graph = grimp.build_graph("controller", exclude_type_checking_imports=False, cache_dir=None)
    imported = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    order = TopologicalSorter(imported).static_order()
    assert len(list(order)) == len(graph.modules) > 0  # CycleError names the circle
