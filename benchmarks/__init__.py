"""Measurements that compare the platform with similar tools and with the physical minimum, on one machine in
one run."""
