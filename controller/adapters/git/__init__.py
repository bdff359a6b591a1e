"""Git for the daemon: `GitSources` keeps one bare clone per repository and reads commits from it.

The only importer of pygit2. Nothing is checked out, no hook or filter of a repository is run, and no secret
reaches a command line, a file of the clone or an error text.
"""

from controller.adapters.git.sources import GitSources

__all__ = ["GitSources"]
