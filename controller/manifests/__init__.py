"""Manifests: turns the files of a commit into its spec, or reports all problems at once. The only I/O is
reading our schemas."""

from controller.manifests.build import load_app
from controller.manifests.platform import load_platform

__all__ = ["load_app", "load_platform"]
