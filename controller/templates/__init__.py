"""Templates of new apps: the built-in ones, which are data of this package, and the reader of a template's description.

Used by `prichal new` on a developer's machine and by the daemon, which fetches the templates that admins have added. A
template is a folder with `template.yaml` and, below `files/`, the new repository.
"""
