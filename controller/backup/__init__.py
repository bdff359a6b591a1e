"""Backups of an installation: made while it runs, proved, and restored onto an empty host.

`archive` is the format, one encrypted stream. `places` are where archives lie: a folder or a bucket. `contents` says
what belongs to an installation and reads it consistently, `create` makes a backup of it, `restore` proves one and
brings it back, and `schedule` is the service that makes them regularly. The commands call these on the host, as root or
as the user of the daemon; neither the daemon nor the web process does.
"""
