"""Notifications: what is wrong at this moment, who is told about it and when, and what the messages say. Pure."""
