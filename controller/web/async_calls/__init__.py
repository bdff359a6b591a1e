"""Calls that their callers do not wait for: accepted, stored, made by one of the workers, and asked for later."""
