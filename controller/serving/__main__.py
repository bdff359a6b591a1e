"""``python3 -m prichal_serving``: read the settings, then supervise.

Exit codes: 0 stopped as asked; 2 wrong settings; 3 the component could not be set up.
"""

from __future__ import annotations

import os
import sys

from . import config, log
from .supervisor import Supervisor

BAD_SETTINGS = 2


def main() -> int:
    try:
        supervisor = Supervisor(config.read(os.environ, sys.argv[1:]))
    except (config.ConfigError, OSError) as error:
        log.write_line(f"cannot start: {error}")
        return BAD_SETTINGS
    return supervisor.run()


if __name__ == "__main__":
    sys.exit(main())
