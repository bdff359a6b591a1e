"""What the gateway serves, and to whom: routes, callers and their names."""
