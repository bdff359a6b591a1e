"""Client of the files API over HTTP: boxes of a platform that runs elsewhere. See `client`."""

from controller.adapters.files_client.api import Box, File, Listing
from controller.adapters.files_client.client import FilesClient
from controller.adapters.files_client.local import Moved
from controller.adapters.files_client.tree import Job, Totals

__all__ = ["Box", "File", "FilesClient", "Job", "Listing", "Moved", "Totals"]
