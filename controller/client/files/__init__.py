"""Client of the files API over HTTP: boxes of a platform that runs elsewhere. See `client`."""

from controller.client.files.api import FilePage, GroupMoved, RemoteBox, RemoteFile
from controller.client.files.client import FilesClient
from controller.client.files.local_files import Moved, is_stream
from controller.client.files.tree import CopyTotals, FileCopy
from controller.client.files.trial import FilesTrial

__all__ = [
    "CopyTotals",
    "FileCopy",
    "FilePage",
    "FilesClient",
    "FilesTrial",
    "GroupMoved",
    "Moved",
    "RemoteBox",
    "RemoteFile",
    "is_stream",
]
