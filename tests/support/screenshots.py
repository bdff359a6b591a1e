"""`python -m tests.support.screenshots [FOLDER]`: a picture of each page of the cabinet, from a running platform with
recorded data, into docs/images/. `scripts/screenshots` calls it. Each picture is a small PNG of few colours."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.integration.web.cabinet.conftest import cabinet_of, recorded_platform
from tests.support import recorded
from tests.support.cabinet import PAGES, Cabinet, Look, chromium
from tests.support.pages import ROOT
from tests.support.storage_servers import embedded_server

FOLDER: Final = ROOT / "docs" / "images"
MOST: Final = 200_000  # bytes
SIZE: Final = {"width": 1120, "height": 760}
#: Pages whose picture is in Russian, too: those that docs/ru shows.
IN_RUSSIAN: Final = {
    "/-/",
    "/-/apps/<name>",
    "/-/apps/<name>/components/<component>",
    "/-/apps/<name>/pipelines/<pipeline>/runs/<id>",
    "/-/apps/<name>/files/<path:target>",
}

LEFT_OUT: Final = {"/-/apps", "/-/apps/<name>/notifications"}  # the page `/-/`, and one that needs no picture
#: Words of modules are hostile in the tests; the pictures show usual ones.
USUAL: Final = "KeyError: 'red': paints.csv has no such column"

#: Where the last part of a route is not what its page shows.
NAMES: Final = {
    "/-/": "apps",
    "/-/apps/<name>": "app",
    "/-/new/<template>": "new-app",
    "/-/orders/<id>": "order",
    "/-/apps/<name>/pipelines/<pipeline>/runs/<id>": "run",
    "/-/apps/<name>/files/<path:target>": "folder",
}


def name_of(route: str) -> str:
    """`/-/apps/<name>/components/<component>` is `cabinet-component`."""
    return f"cabinet-{NAMES.get(route) or route.rpartition('/')[2].strip('<>')}"


def take(cabinet: Cabinet, folder: Path) -> None:
    for route, (path, who) in PAGES.items():
        if route in LEFT_OUT:
            continue
        _one(cabinet, path, who, Look(), folder / f"{name_of(route)}.png")
        if route in IN_RUSSIAN:
            _one(cabinet, path, who, Look("ru"), folder / f"{name_of(route)}-ru.png")


def _one(cabinet: Cabinet, path: str, who: str, look: Look, file: Path) -> None:
    with cabinet.window(who, look) as page:
        page.set_viewport_size(SIZE)  # type: ignore[arg-type]
        cabinet.open(page, path)
        page.wait_for_selector("h1")
        page.screenshot(path=file)
    size = file.stat().st_size
    if size > MOST:
        raise SystemExit(f"{file} has {size} bytes: show less on it")
    print(f"{file.relative_to(ROOT) if file.is_relative_to(ROOT) else file}: {size} bytes")


def main(arguments: list[str]) -> None:
    folder = Path(arguments[0]) if arguments else FOLDER
    recorded.HOSTILE = USUAL
    recorded.EXAMINED["checks"][1]["detail"] = "4 % of /var/lib/docker are free"
    with (
        tempfile.TemporaryDirectory() as home,
        embedded_server(Path(home)) as storage,
        recorded_platform(Path(home) / "state", storage) as platform,
        chromium() as program,
    ):
        take(cabinet_of(platform, program), folder)


if __name__ == "__main__":
    main(sys.argv[1:])
