"""Runs of pipelines: their states and steps, schedules, limits, GPUs and webhooks."""
