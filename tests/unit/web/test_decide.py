"""Which component answers a request: tables, and properties of paths."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.web.decide import Forward, Local, RouteTable, decide, is_unambiguous
from controller.web.problems import Kind, Problem

TABLE = RouteTable.build(
    7,
    [
        make_route(make_api(), make_api("hidden", published=False)),
        make_route(make_api("own"), component="server", any_path=True, upstreams=("10.0.0.3:80",)),
    ],
)
