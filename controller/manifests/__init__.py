"""Manifests: from the files of a commit to its spec, or to all problems at once. No I/O but reading our schemas."""

from controller.manifests.build import load_app
from controller.manifests.platform import load_platform

__all__ = ["load_app", "load_platform"]
