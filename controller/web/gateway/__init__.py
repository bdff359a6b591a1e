"""Calls to components, on the event loop: `router` decides who answers, `forward` forwards the bytes. `watch`
keeps the route table equal to the store's; `pool` and `upstream` are the connections to components."""
