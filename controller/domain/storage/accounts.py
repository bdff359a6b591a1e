"""Names and secrets of the storage's accounts. Pure. The storage itself does not know the accounts of
components: the web process serves them in its place. A secret is derived from the key of this installation
and stored nowhere; after the storage was restored or replaced, its accounts are created again."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable, Mapping

from controller.domain.names import AppName, ComponentName
from controller.domain.secret import Secret
from controller.domain.storage.box import AccountGrant, StorageAccount

_SECRET = 40  # characters: the most that old servers take


def account_secret(key: bytes, name: str) -> Secret:
    """Return 240 bits of HMAC-SHA-256 over the account's name, as text."""
    digest = hmac.digest(key, f"storage account {name}".encode(), "sha256")
    return Secret(base64.urlsafe_b64encode(digest).decode()[:_SECRET])


def web_account(key: bytes, instance: str) -> StorageAccount:
    """Return the web process' account for the objects of all buckets of this instance, including later ones."""
    name = f"{instance}-web"
    return StorageAccount(name, account_secret(key, name), (AccountGrant(f"{instance}.*"),))


def account_prefix(instance: str, app: AppName) -> str:
    """Return the prefix of the names of all accounts of an app. No other app shares it, since app names contain no
    dot."""
    return f"{instance}.{app}."


def component_account(
    instance: str, app: AppName, component: ComponentName, buckets: Iterable[str], key: bytes
) -> StorageAccount:
    """Return the account of one component or pipeline. With other boxes it is another account, so that
    running containers keep the old one. The same name and boxes mean the same account."""
    buckets = tuple(sorted(buckets))
    # The first part distinguishes these from accounts that older releases created in the storage itself.
    digest = hashlib.sha256("/".join(["2", component, *buckets]).encode()).hexdigest()[:12]
    name = f"{account_prefix(instance, app)}{digest}"
    secret = component_secret(web_account(key, instance).secret, name)
    return StorageAccount(name, secret, tuple(AccountGrant(bucket) for bucket in buckets))


def component_secret(web: Secret, name: str) -> Secret:
    """Derive the secret of the account `name` of a component. It follows from the secret by which the `web`
    process reaches the storage, since that is who checks it; the storage itself knows no such account."""
    return account_secret(hmac.digest(web.reveal().encode(), b"accounts of components", "sha256"), name)


def storage_env(
    account: StorageAccount, buckets: Mapping[str, str], endpoint: str, region: str
) -> dict[str, Secret]:
    """Return the variables that tell a container about its account. `buckets` is by box, `endpoint` the storage as
    containers reach it."""
    env = {
        "UNIP_S3_ENDPOINT": Secret(endpoint),
        "UNIP_S3_REGION": Secret(region),
        "UNIP_S3_ACCESS_KEY": Secret(account.name),
        "UNIP_S3_SECRET_KEY": account.secret,
    }
    for box, bucket in buckets.items():
        env[f"UNIP_BOX_{box.upper().replace('-', '_')}"] = Secret(bucket)
    return env
