"""Transfers files of calls: from the storage into the component, and from its reply into the storage. `calls`
handles one call, `locations` finds its files, `presigned` and `web.splice` transfer the bytes."""
