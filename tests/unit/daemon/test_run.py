"""How the daemon ends: 0 only when somebody asked it to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

BROKEN = """
import sys
from controller.cli.main import main
from controller.reconcile.loop import ControlLoop

def run(self, stop):
    {fault}

ControlLoop.run = run
sys.argv = ["prichal", "--config", sys.argv[1], "daemon"]
sys.exit(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("raise RuntimeError('a bug')", 1),
        ("raise SystemExit(0)", 1),
        ("raise KeyboardInterrupt", 130),
        ("return", 1),
        ("stop.wait()", 0),
    ],
)
def test_a_control_loop_that_ends_unasked_is_a_failure(tmp_path: Path, fault: str, code: int) -> None:
    settings = tmp_path / "config.yaml"
    (tmp_path / "platform").mkdir()
    settings.write_text(f"state: {tmp_path / 'state'}\nplatform: {{path: {tmp_path / 'platform'}}}\n")
    with subprocess.Popen(
        [sys.executable, "-c", BROKEN.format(fault=fault), str(settings)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/none.sock"},
    ) as process:
        assert process.stderr is not None
        try:
            if not code:
                while "daemon started" not in process.stderr.readline():
                    pass
                process.send_signal(signal.SIGTERM)
            text = process.stderr.read()
            assert process.wait(60) == code, text
        finally:
            process.kill()
