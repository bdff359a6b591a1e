"""Settings from the variable and from options; the board of counters; keys of files."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

from controller.serving.config import ConfigError, ServingSettings, from_mapping, read
from controller.serving.files import check_key
from controller.serving.loading import SetupError, accepted_arguments
from controller.serving.metrics import SharedMetrics
from tests.unit.serving.server import LIBRARY, PYTHON

GIVEN = {
    "app": "demo", "component": "net", "inference": "app.inference:predict", "loader": None, "model_path": "/w",
    "port": 80, "concurrency": 8,
    "queue": 5, "timeout": 1, "setup_timeout": 2.5, "max_body": 10, "processes": 3, "pass_user": True,
}  # fmt: skip


def test_the_variable() -> None:
    settings = read({"PRICHAL_SERVING": json.dumps(GIVEN)}, [])
    assert settings.inference == "app.inference:predict"
    assert [settings.slots_of(index) for index in (1, 2, 3)] == [3, 3, 2]
    assert settings.timeout == 1


def test_defaults() -> None:
    assert from_mapping({"inference": "a:b"}) == ServingSettings("a:b")
    assert (
        ServingSettings("a:b").port,
        ServingSettings("a:b").concurrency,
        ServingSettings("a:b").queue,
    ) == (8002, 4, 40)


def test_batches() -> None:
    """Processes may be more than ``concurrency`` says, which does not count then."""
    given = {"inference": "a:b", "batch_size": 4, "batch_delay": 0, "processes": 8}
    settings = from_mapping(given)
    assert (settings.batch_size, settings.batch_delay, settings.batch_queue) == (4, 0, 100)
    assert from_mapping({"inference": "a:b", "batch_size": None}) == ServingSettings("a:b")


def test_options() -> None:
    settings = read(
        {}, ["--inference", "a:b", "--port", "9", "--pass-user", "--timeout", "2.5", "--model-path", "/w"]
    )
    assert settings == ServingSettings("a:b", port=9, pass_user=True, timeout=2.5, model_path="/w")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "inference: missing"),
        ({"inference": None}, "inference: missing"),
        ({"inference": "predict"}, "inference: 'predict' is not of the form module:function"),
        ({"inference": ":predict"}, "inference: ':predict' is not of the form"),
        ({"inference": "a:b", "loader": "load"}, "loader: 'load' is not of the form"),
        ({"inference": "a:b", "port": "80"}, "port: '80' is not a int"),
        ({"inference": "a:b", "port": 70000}, "port: 70000 is not within"),
        ({"inference": "a:b", "port": True}, "port: True is not a int"),
        ({"inference": "a:b", "concurrency": 0}, "concurrency: 0 is below 1"),
        ({"inference": "a:b", "queue": -1}, "queue: -1 is below 0"),
        ({"inference": "a:b", "timeout": 0}, "timeout: 0 is not a time"),
        ({"inference": "a:b", "timeout": True}, "timeout: True is not a float"),
        ({"inference": "a:b", "app": None}, "app: None is not a str"),
        ({"inference": "a:b", "processes": 5}, "processes: more than concurrency"),
        ({"inference": "a:b", "batch_size": 0}, "batch_size: 0 is below 1"),
        ({"inference": "a:b", "batch_delay": -1}, "batch_delay: -1 is not a time"),
        ({"inference": "a:b", "batch_queue": -1}, "batch_queue: -1 is below 0"),
        ({"inference": "a:b", "batch_concurrency": 0}, "batch_concurrency: 0 is below 1"),
        (
            {"inference": "a:b", "batch_size": 2, "timeout": 1, "batch_delay": 1},
            "batch_delay: not below timeout",
        ),
        ({"inference": "a:b", "nothing": 1}, "nothing: unknown; known are app, batch_concurrency"),
    ],
)
def test_wrong_settings(values: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match="^" + re.escape(words)):
        from_mapping(values)


@pytest.mark.parametrize(
    ("text", "words"), [("", "nothing to serve"), ("{", "is not JSON"), ("[]", "must be a JSON object")]
)
def test_a_wrong_variable(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read({"PRICHAL_SERVING": text}, [])


def test_the_metrics_are_prometheus_text() -> None:
    board = SharedMetrics(workers=2)
    board.rows[0].restarted()
    board.rows[1].inferred(200, 0.0009)
    board.rows[1].inferred(200, 0.001)
    board.rows[2].inferred(504, 60.5)
    board.rows[2].answered(404)
    board.rows[1].load(2, 1, 1)
    board.rows[1].heartbeat(5.0)
    assert board.rows[1].unanswered == 1
    assert board.rows[1].last_beat == 5.0
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(board.text())
        for sample in family.samples
    }
    assert samples["prichal_serving_requests_total", "inference", "200"] == 2
    assert samples["prichal_serving_requests_total", "inference", "504"] == 1
    assert samples["prichal_serving_requests_total", "other", "404"] == 1
    assert samples["prichal_serving_request_seconds_bucket", "0.001"] == 2
    assert samples["prichal_serving_request_seconds_bucket", "60.0"] == 2
    assert samples["prichal_serving_request_seconds_bucket", "+Inf"] == 3
    assert samples["prichal_serving_request_seconds_count",] == 3
    assert samples["prichal_serving_calls_in_flight",] == 2
    assert samples["prichal_serving_worker_restarts_total",] == 1
    board.rows[1].renew()
    assert board.rows[1].unanswered == 0
    assert "prichal_serving_request_seconds_count 3" in board.text()


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a//b", ".", "..", "a/../b", "a/./b", "a\n", "\x7f", "é" * 451]
)
def test_keys_that_no_box_takes(key: str) -> None:
    with pytest.raises(ValueError, match="key"):
        check_key(key)


@pytest.mark.parametrize("key", ["a", "a/b.txt", "..a", "a..", "é" * 450])
def test_keys_that_a_box_takes(key: str) -> None:
    check_key(key)


def test_arguments_that_are_passed() -> None:
    assert accepted_arguments(lambda inputs, threshold=1, *rest: None, "a:b") == ("inputs",)
    assert accepted_arguments(lambda **kwargs: None, "a:b") == (
        "parameters", "inputs", "output_fields", "model", "context",
    )  # fmt: skip
    with pytest.raises(SetupError, match="inputs must be passable by name"):
        accepted_arguments(lambda inputs, /: None, "a:b")
    with pytest.raises(SetupError, match="its arguments cannot be read"):
        accepted_arguments(dict.update, "a:b")


def test_the_library_imports_only_the_standard_library(tmp_path: pathlib.Path) -> None:
    """Every module of it, alone, under an isolated interpreter without site-packages."""
    (tmp_path / "prichal_serving").symlink_to(LIBRARY)
    names = [f"prichal_serving.{path.stem}" for path in LIBRARY.glob("*.py") if path.stem != "__main__"]
    code = f"import sys, importlib; sys.path.insert(0, {str(tmp_path)!r})\n"
    code += f"for name in {names!r}: importlib.import_module(name)"
    done = subprocess.run(
        [PYTHON, "-I", "-S", "-B", "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
