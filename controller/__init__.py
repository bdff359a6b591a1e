"""prichal: GitOps for machine-learning modules on one host. The map of the rooms is in CONTRIBUTING.md."""

__version__ = "0.1.0"
