"""Steps of a web worker's loops that fail: what they did not do is done by the next one."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.store.request_metrics import RequestMetrics, read_all, worker_file


def test_counts_that_could_not_be_written_are_written_by_the_next_beat(tmp_path: Path) -> None:
    meter, folder = RequestMetrics(), tmp_path / "web"
    meter.observe("demo/image", 200, 0.01)
    with pytest.raises(OSError, match="No such file"):
        meter.flush(worker_file(folder, 1))
    folder.mkdir()
    meter.flush(worker_file(folder, 1))
    assert read_all(folder).requests == meter.requests
