"""Boxes and what lies in them: buckets, capacity, keys, accounts, and links to objects."""
