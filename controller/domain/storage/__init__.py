"""Boxes and their content: buckets, capacity, keys, accounts, and links to objects."""
