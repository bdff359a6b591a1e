"""Calls with files: brought from the storage into the component, and from its reply into the storage.

`calls` is the way of one call, `places` where its files lie, `links` and `passing` how their bytes travel.
"""
