"""The engine that scripts/ensure-docker starts has networks for as many apps as benchmarks/many_apps.py wants."""

from __future__ import annotations

import re
import shlex
from contextlib import closing

import pytest

from benchmarks.many_apps import REAL
from tests.support.own_engine import available, own_engine
from tests.support.pages import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not available(), reason="an engine of its own needs root and dockerd"),
]


def test_the_pools_of_the_script_give_each_app_a_network() -> None:
    """Docker's own pools end after some thirty."""
    script = (ROOT / "scripts" / "ensure-docker").read_text()
    pools = re.search(r"^readonly pools=\((.+)\)$", script, re.MULTILINE)
    assert pools
    assert 'dockerd "${pools[@]}"' in script
    with own_engine(options=tuple(shlex.split(pools[1]))) as engine, closing(engine.client()) as client:
        assert client.info()["DefaultAddressPools"]
        for number in range(REAL + 10):
            client.create_network(f"app-{number}", driver="bridge")
