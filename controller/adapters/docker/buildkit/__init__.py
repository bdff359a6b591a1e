"""Builds by the BuildKit inside the Docker engine, over the engine's API. Used only by `images`.

A build is a request to `POST /build`, as for the classic builder, and a session: a second connection on which the
engine asks for files and secrets. No program of Docker is needed.
"""
