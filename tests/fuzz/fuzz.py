"""`python fuzz.py TARGET CORPUS... [libFuzzer's options]`: one of the targets under a fuzzer that is led by what its
inputs cover. Called by scripts/fuzz, in an environment that has it."""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[2]))

with atheris.instrument_imports(include=["controller"]):
    from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
