"""A caller of the files API, identified by name as the gateway does it, without a network."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from flask.testing import FlaskClient

from controller.domain.names import ComponentName
from controller.domain.storage.box import BoxRecord
from controller.domain.storage.keys import user_area
from controller.ports import Objects
from controller.store import SqliteStore
from controller.web.context import CALL, ServiceCall
from tests.support.gateway import APP, make_service

BOX = ComponentName("data")
BUCKET = "prichal.demo.data"
CAPACITY = 10**9


@dataclass
class Files:
    """One app with one box, `data`, in which `dev` is a developer."""

    client: FlaskClient
    store: SqliteStore
    objects: Objects
    developers: tuple[str, ...] = ("dev",)

    def __post_init__(self) -> None:
        self.store.boxes.save(BoxRecord(APP, BOX, BUCKET, CAPACITY))
        self.objects.create_bucket(BUCKET)

    def ask(
        self, method: str, path: str, /, user: str = "ann", body: bytes | None = None, **query: Any
    ) -> Any:
        """`path` is what comes after `/<app>/files/`. The response."""
        call = ServiceCall(make_service(developers=self.developers), user, "/demo/files")
        return self.client.open(
            "/files/" + quote(path),
            method=method,
            query_string=query,
            data=body,
            environ_overrides={"asgi.scope": {CALL: call}},
        )

    def given(self, *names: str, area: str = user_area("ann"), content: bytes = b"content") -> None:
        """Files that lie in the storage, from any source."""
        for name in names:
            self.objects.put(BUCKET, area + name, io.BytesIO(content), len(content))

    def keys(self) -> list[str]:
        return [found.key for found in self.objects.page(BUCKET).objects]

    def problem(
        self, status: int, method: str, path: str, /, user: str = "ann", **query: Any
    ) -> dict[str, Any]:
        """The problem document that the call gets."""
        response = self.ask(method, path, user, **query)
        assert response.status_code == status, response.text
        assert response.content_type == "application/problem+json"
        document: dict[str, Any] = json.loads(response.data)
        assert document["status"] == status
        return document
