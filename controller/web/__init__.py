"""The web process: one gunicorn process tree. The event loop forwards calls to containers, Flask answers the rest.

This process has neither the container engine's socket nor Git credentials; it reads routes from the store, writes
requests and deliveries into it, and nothing else.
"""
