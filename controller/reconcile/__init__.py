"""Reconciliation: a request names an app, and a pass brings it to its declared state. `domain` makes the
decisions; this package collects what they need, carries them out and records the result.
"""
