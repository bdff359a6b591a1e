"""Files that were encrypted with SOPS (https://getsops.io) for age recipients: what their metadata say, and how they
are decrypted in memory. Never encrypts, and never reads a file itself.

`controller.manifests` decrypts manifests and the files that Secrets name. Pure: what needs a key or a library comes
through `FileKeys`, which only the daemon has. Without it the structure alone is checked.
"""

from controller.sops.errors import SopsError
from controller.sops.files import FileFormat, OpenedFile, format_of, open_file
from controller.sops.keys import CannotDecrypt, FileKeys
from controller.sops.tree import PLACEHOLDER, OpenedDocuments, is_encrypted, open_documents

__all__ = [
    "PLACEHOLDER",
    "CannotDecrypt",
    "FileFormat",
    "FileKeys",
    "OpenedDocuments",
    "OpenedFile",
    "SopsError",
    "format_of",
    "is_encrypted",
    "open_documents",
    "open_file",
]
