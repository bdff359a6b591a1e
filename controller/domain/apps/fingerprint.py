"""Defines when a running component has changed: equal fingerprints need no restart.

The fingerprint has a version. A workload made under an older version is compared under that version, so upgrading
the controller restarts nothing by itself. Adding a version: add a function to `_VERSIONS`, never change one.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import asdict

from controller.domain.apps.spec import MLComponentSpec, PlatformServer
from controller.domain.secret import Secret

Env = tuple[tuple[str, Secret], ...]


def fingerprints(
    spec: MLComponentSpec, image: str, env: Env, key: bytes, model: str = "", smoke: str = ""
) -> tuple[str, ...]:
    """Return the fingerprint under every known version that can tell this component from others, newest last:
    `3-<60 hex>`, which fits into a label of Kubernetes, and `<version>:<64 hex>` under earlier versions.

    `image` is the pinned reference, `env` the full environment with secrets, which enter as HMACs under
    `key`, so that a label does not reveal whether two secrets are equal; `model` and `smoke` are the digests of the
    content of the model and of the smoke test, "" where there is none."""
    first = _MODELS_SINCE if model else 1
    return tuple(
        _written(version, _digest({**inputs(spec, image, env, key, model), **_smoke(spec, smoke)}))
        for version, inputs in _VERSIONS.items()
        if version >= first
    )


def _smoke(spec: MLComponentSpec, digest: str) -> dict[str, object]:
    """Return what a version was tested with: with another test it is another version, since it has not passed that one.
    Of components without a test there is nothing, so that they keep their fingerprints."""
    return {"smokeTest": {**asdict(spec.smoke_test), "digest": digest}} if spec.smoke_test else {}


def _written(version: int, digest: str) -> str:
    return f"{version}-{digest[:_DIGITS]}" if version >= _LABELS_SINCE else f"{version}:{digest}"


def _digest(inputs: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(inputs, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _v1(spec: MLComponentSpec, image: str, env: Env, key: bytes, model: str) -> dict[str, object]:
    """Return everything that a running container cannot take over without being recreated. It excludes replicas,
    rollout and the gateway's side, which change around a running container."""
    return {
        "image": image,
        "port": spec.port,
        "server": {
            "kind": "platform" if isinstance(spec.server, PlatformServer) else "own",
            **_without_later(asdict(spec.server)),
        },
        "env": {name: hmac.new(key, value.reveal().encode(), "sha256").hexdigest() for name, value in env},
        "boxes": [asdict(box) for box in spec.boxes],
        "model": [spec.model_box, spec.model_path],
        "setupTimeout": spec.setup_timeout,
        "resources": _without_later(asdict(spec.resources)),
        # As in `_LATER`.
        **({"readOnlyRoot": spec.read_only_root} if spec.read_only_root is not None else {}),
    }


def _without_later(values: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in values.items() if name not in _LATER or value != _LATER[name]}


def _v2(spec: MLComponentSpec, image: str, env: Env, key: bytes, model: str) -> dict[str, object]:
    """Return the same with the content of the model."""
    return {**_v1(spec, image, env, key, model), "modelDigest": model}


#: Fields that came later, with the value that equals the behaviour before. Only another value enters a fingerprint,
#: so that components from before the field existed keep theirs.
_LATER: dict[str, object] = {
    "processes": 1,
    "preload": False,
    "shm": None,
    "openai": None,
    "gpu_share": None,
    "batch": None,
}
#: Version 3 is version 2 in another form.
_VERSIONS: dict[int, Callable[[MLComponentSpec, str, Env, bytes, str], dict[str, object]]] = {
    1: _v1,
    2: _v2,
    3: _v2,
}
#: Under an older version two contents of a model look alike; nothing with a model ever ran under it.
_MODELS_SINCE = 2
_LABELS_SINCE = 3
_DIGITS = 60
