"""Runs of pipelines: their states, what comes next, when they start, and what they may use."""
