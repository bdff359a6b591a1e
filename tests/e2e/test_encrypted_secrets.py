"""Secrets that lie encrypted in Git: the guide docs/guide/secrets.md is typed into a shell, with the real sops, in a
module whose component waits for them. Then the daemon is killed while a key is replaced."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from pyrage import x25519

from controller.age import new_key
from tests.support.pages import ROOT, Block, blocks
from tests.support.platform import Module, Platform
from tests.support.shell import run
from tests.support.sops_files import sops_binary

PAGE = ROOT / "docs" / "guide" / "secrets.md"
SHOWN = tuple(blocks(PAGE, "sh"))
VALUES = {"API_KEY": "correct-horse", "ivanov": "battery-staple"}
TELL = '''
import os


def predict(inputs):
    """Say how long the secret of this process is.

    :param outputs.length: its length
    :type outputs.length: INT32
    """
    return {"length": [len(os.environ["API_KEY"])]}
'''
USES: dict[str, Any] = {
    "envFrom": [{"secretRef": {"name": "scorer-keys"}}, {"secretRef": {"name": "scorer-users"}}]
}


def manifest_of_the_page() -> str:
    (block,) = blocks(PAGE, "yaml")
    return block.text


def typed(platform: Platform, module: Module, app: str, shown: tuple[Block, ...], mine: str) -> None:
    """Type blocks of the page in the module's folder; `prichal` is that of this platform."""
    (platform.home / "keys.txt").write_text(mine)
    ours = f'prichal() {{ command prichal --config {platform.config} "$@"; }}'
    before = Block(PAGE, 0, "sh", f"cd {module.tree}\n{ours}\n")
    run(
        (before, *shown),
        platform.home,
        {"demo-scorer": app},
        MINE=public_key(mine),
        SOPS_AGE_KEY_FILE=str(platform.home / "keys.txt"),
        PATH=f"{Path(str(sops_binary())).parent}:{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}",
    )


def public_key(identity: str) -> str:
    return str(x25519.Identity.from_str(identity).to_public())


def environment(platform: Platform, app: str) -> dict[str, str]:
    (found,) = platform.containers(app, running=True)
    env = platform.docker.inspect_container(found["Id"])["Config"]["Env"]
    return dict(each.split("=", 1) for each in env)


def test_the_guide_and_a_daemon_that_dies(platform: Platform, module: Module, app: str) -> None:
    if sops_binary() is None:
        pytest.skip("no sops: `make sops` builds it")
    mine = new_key().identity.reveal()
    module.served(TELL, **USES).write("manifests/keys.yaml", manifest_of_the_page()).write(
        "secrets/scorer.env", ""
    )
    module.push()
    platform.connect(module, app)
    platform.until(lambda: platform.condition(app, "Ready").get("reason") == "AwaitingSecret")

    first, rotation = SHOWN[:-1], SHOWN[-1:]
    typed(platform, module, app, first, mine)
    platform.until(lambda: len(platform.containers(app, running=True)) == 1)
    platform.until(lambda: platform.condition(app, "Ready").get("status") is True)
    assert environment(platform, app).items() >= VALUES.items()
    (before,) = platform.containers(app, running=True)

    platform.kill("daemon")
    platform.start_process("daemon")
    typed(platform, module, app, rotation, mine)
    platform.until(lambda: platform.condition(app, "Ready").get("status") is True)
    (after,) = platform.containers(app, running=True)
    assert after["Id"] == before["Id"], "the same values restart nothing"

    shown = [platform.log.read_text(errors="replace"), str(platform.events(app)), str(platform.status(app))]
    assert not any(value in text for text in shown for value in VALUES.values())
    for path in (platform.home / "state").rglob("*"):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            assert not any(value.encode() in content for value in VALUES.values()), path
