"""prichal: GitOps for machine-learning modules on one host. CONTRIBUTING.md says what each package is for."""

__version__ = "0.1.0"
