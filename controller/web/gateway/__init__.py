"""Calls to components, on the event loop: who answers one (`router`), and its bytes there and back (`forward`).

`watch` keeps the table that is decided by the same as the store's; connections to components are `pool` and `upstream`.
"""
