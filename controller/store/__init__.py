"""The store: all that must survive a crash, in two SQLite databases. SQL is used only in this package.

`open_store(path)` gives the daemon what `controller.ports.Store` promises, `open_guest_store(path)` the web
process and the commands. Only the daemon writes the state; the others write their requests (`inbox`,
`guest`), which the daemon takes in (`intake`). The threads of a process may share a Store. Each noun has a
module; `sqlite` has connections and transactions, `schema` the tables, and `codec` converts values to JSON.
"""

from controller.store.state import SqliteStore, open_guest_store, open_store

__all__ = ["SqliteStore", "open_guest_store", "open_store"]
