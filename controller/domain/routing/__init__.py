"""Routes of the gateway, callers and their names."""
