"""`python -m controller` is the command `prichal`."""

import sys

from controller.cli.main import main

sys.exit(main())
