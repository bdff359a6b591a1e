"""Types the commands of a page into a real shell and returns their output, block by block."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.pages import ROOT, Block

LIMIT = 90.0  # seconds; only ends what has failed anyway
_MARK = "-- end of block"


@dataclass(frozen=True)
class Told:
    """What the commands of each block printed, standard error included."""

    outputs: tuple[str, ...]

    def of(self, words: str, shown: tuple[Block, ...]) -> str:
        """The output of the first block that contains `words`."""
        return next(output for output, block in zip(self.outputs, shown, strict=True) if words in block.text)


def run(shown: tuple[Block, ...], home: Path, replaced: Mapping[str, str], **environment: str) -> Told:
    """All blocks in order in one shell, which begins in the checkout and ends at the first command that fails.
    `home` is the user's folder; `replaced` are texts of the page that are different here."""
    script = "set -e -o pipefail\n" + "".join(f"{block.text}\necho '{_MARK}'\n" for block in shown)
    for text, other in replaced.items():
        assert text in script, f"the page does not show {text!r} any more"
        script = script.replace(text, other)
    variables = {
        **os.environ,
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        **{
            f"GIT_{who}_{what}": "dev@example.org"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        },
        **environment,
    }
    output = _type(script, variables)
    return Told(tuple(output.split(f"{_MARK}\n")[:-1]))


def _type(script: str, variables: Mapping[str, str]) -> str:
    """A command that does not return is ended with all that it has started."""
    shell = subprocess.Popen(
        ["bash", "-c", script],
        cwd=ROOT,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = shell.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(shell.pid, signal.SIGKILL)
        output, _ = shell.communicate()
        raise AssertionError(f"not done after {LIMIT:.0f} s:\n{output}") from None
    assert shell.returncode == 0, output
    return str(output)
