"""Describes in OpenAPI 3.1 how a caller signs in to a published API: security schemes and the requirement that one
of them is used. Pure; used by the descriptions that the platform makes, and given to components for theirs."""

from __future__ import annotations

import json
from typing import Any

from controller.domain.people.openid import discovery_url
from controller.domain.routing.routes import Api

Json = dict[str, Any]


def schemes(api: Api) -> Json:
    """Return Security Scheme Objects by name; empty if everybody may call."""
    found: Json = {}
    if api.users:
        found["basic"] = {"type": "http", "scheme": "basic"}
    if api.tokens:
        found["token"] = {"type": "http", "scheme": "bearer"}
    if api.oidc_issuer:
        discovery = discovery_url(api.oidc_issuer)
        found["openid"] = {"type": "openIdConnect", "openIdConnectUrl": discovery}
    return found


def secured(document: Json, api: Api) -> Json:
    """Return the OpenAPI document with the requirement of any one of the API's schemes."""
    found = schemes(api)
    if not found:
        return document
    components = {**document["components"], "securitySchemes": found}
    return {**document, "components": components, "security": [{name: []} for name in found]}


def header_value(api: Api) -> bytes:
    """Return the schemes as JSON in ASCII, for the field `X-Prichal-Security`, from which components make
    their descriptions."""
    return json.dumps(schemes(api), separators=(",", ":")).encode("ascii")
