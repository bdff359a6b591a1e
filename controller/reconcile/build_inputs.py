"""What a build of an image gets besides the commit: secrets, images that serve as cache, a package registry; and the
digest of all that it sees. Called when images are resolved, and for stages and local runs that build one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from urllib.parse import quote, urlsplit

from controller.domain.apps.desired import BuildInput
from controller.domain.apps.spec import BuildImage, SecretSpec
from controller.domain.errors import Stalled
from controller.domain.localizable import Localizable
from controller.domain.names import AppName
from controller.domain.reasons import Reason
from controller.domain.secret import Secret
from controller.ports import Revision, Sources
from controller.reconcile.catalog import Credentials


def build_content(sources: Sources, revision: Revision, source: BuildImage) -> str:
    """Return a digest of all that a build sees: equal content gives an equal tag. Images that serve as cache change
    only how long it takes."""
    tree = sources.content_id(revision, source)
    secrets = [[one.id, one.secret, one.key] for one in source.secrets]
    # Without secrets, tags are those of earlier versions of prichal.
    seen = [tree, source.dockerfile, source.target, source.args, *([secrets] if secrets else ())]
    return hashlib.sha256(json.dumps(seen).encode()).hexdigest()


def build_input(
    commit: str,
    source: BuildImage,
    app: AppName,
    secret: Callable[[str], SecretSpec | None],
    registries: Credentials,
) -> BuildInput:
    """Return the input of a build that is about to begin. Raises Stalled `AwaitingSecret` if a secret is not set."""
    values: list[tuple[str, Secret]] = []
    for one in source.secrets:
        found = secret(one.secret)
        value = found.get(one.key) if found else None
        if value is None:
            what = (
                Localizable("the Secret {secret!r}", secret=one.secret)
                if found is None
                else Localizable("the key {key!r} of the Secret {secret!r}", key=one.key, secret=one.secret)
            )
            how = f"prichal secret set {app} {one.secret} {one.key}"
            raise Stalled(
                Reason.AWAITING_SECRET,
                Localizable(
                    "its build waits for {what}, which is not set: set it with: {how}", what=what, how=how
                ),
            )
        values.append((one.id, value))
    return BuildInput(commit, source, tuple(values), registries if source.cache_from else ())


def package_index(name: str | None, registries: Credentials) -> Mapping[str, Secret]:
    """Return the configuration of pip and uv for a package registry, as secrets of a build, by id. Raises Stalled
    `RegistryCredentials` if its Secret lacks a key."""
    for registry, secret in registries:
        if registry.name != name:
            continue
        url = registry.url
        if secret is not None:
            user, password = (secret.get(key) for key in ("username", "password"))
            if not user or not password:
                text = Localizable(
                    "Secret {secret} of package registry {name} needs `username` and `password`",
                    secret=secret.name,
                    name=name,
                )
                raise Stalled(Reason.REGISTRY_CREDENTIALS, text)
            parts = urlsplit(url)
            account = f"{quote(user.reveal(), safe='')}:{quote(password.reveal(), safe='')}"
            url = parts._replace(netloc=f"{account}@{parts.netloc}").geturl()
        return {
            "pip.conf": Secret(f"[global]\nindex-url = {url.replace('%', '%%')}\n"),
            "uv.toml": Secret(f"[[index]]\nurl = {json.dumps(url)}\ndefault = true\n"),
        }
    return {}
