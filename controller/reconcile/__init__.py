"""Converging: a request names an app, a pass brings it to its declared state. Decisions are in `domain`; here they
are fetched for, carried out and written down."""
