"""The composition root and the daemon's life. Whatever needs Docker or Git is wired here."""
