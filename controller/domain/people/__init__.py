"""People who use the platform's own interface: accounts, roles, sessions, tokens. Pure."""
