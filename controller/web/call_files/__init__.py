"""Calls with files: brought from the storage into the component, and from its reply into the storage.

`calls` is the way of one call, `locations` where its files lie, `presigned` and `web.splice` how their bytes travel.
"""
