"""The store: all that must survive a crash, in one SQLite database. SQL lives nowhere but in this room.

`open_store(path)` gives what `controller.ports.Store` promises. The daemon, the web process and the commands each
open the same file; a Store may be shared by the threads of a process. The nouns have a module each; `sqlite` holds
connections and transactions, `schema` the tables, `codec` how values become JSON.
"""

from controller.store.state import SqliteStore, open_store

__all__ = ["SqliteStore", "open_store"]
