"""Measurements: how the platform compares with its peers and with the physical floor, on one machine in one run."""
