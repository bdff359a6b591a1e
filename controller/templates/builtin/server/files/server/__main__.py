"""Runs the application of the framework that the Dockerfile chooses."""

import os
from importlib import import_module

import uvicorn

app = import_module(f"server.{os.environ.get('FRAMEWORK', 'fastapi')}_app").app


class WithPrefix:
    """Tells the application the path below which the platform serves it, so that its links lead back there."""

    def __init__(self, inner):
        self.inner = inner

    async def __call__(self, scope, receive, send):
        prefix = (
            dict(scope.get("headers") or ()).get(b"x-forwarded-prefix", b"").decode("latin-1").rstrip("/")
        )
        if prefix and scope["type"] in ("http", "websocket"):
            scope = {**scope, "root_path": prefix, "path": prefix + scope["path"]}
        await self.inner(scope, receive, send)


if __name__ == "__main__":
    uvicorn.run(
        WithPrefix(app), host="0.0.0.0", port=int(os.environ.get("UNIP_PORT", "8002")), proxy_headers=False
    )
