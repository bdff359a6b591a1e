"""Accounts of the storage: how they are called and what their secret is. Pure. Those of components are no accounts of
the storage itself: the web process answers them in its place.

A secret is derived from the key of this installation, so it is the same whenever it is needed and written down nowhere;
the storage is brought to it again after it was restored or replaced.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable, Mapping

from controller.domain.names import AppName, ComponentName
from controller.domain.secret import Secret
from controller.domain.storage.box import Account, AccountGrant

_SECRET = 40  # characters: the most that old servers take


def account_secret(key: bytes, name: str) -> Secret:
    """240 bits of HMAC-SHA-256 over the account's name, as text."""
    digest = hmac.digest(key, f"storage account {name}".encode(), "sha256")
    return Secret(base64.urlsafe_b64encode(digest).decode()[:_SECRET])


def web_account(key: bytes, instance: str) -> Account:
    """The web process's account: objects of all buckets of this instance, also of those that are made later."""
    name = f"{instance}-web"
    return Account(name, account_secret(key, name), (AccountGrant(f"{instance}.*"),))


def account_prefix(instance: str, app: AppName) -> str:
    """Return the prefix of the names of all accounts of an app. No other app shares it, since app names contain no
    dot."""
    return f"{instance}.{app}."


def component_account(
    instance: str, app: AppName, component: ComponentName, buckets: Iterable[str], key: bytes
) -> Account:
    """The account of one component or pipeline. Other boxes make another account, so that what still runs keeps the old
    one until it is gone. What shares name and boxes shares the account."""
    buckets = tuple(sorted(buckets))
    # The first part tells these from accounts that releases of before made in the storage itself.
    digest = hashlib.sha256("/".join(["2", component, *buckets]).encode()).hexdigest()[:12]
    name = f"{account_prefix(instance, app)}{digest}"
    secret = component_secret(web_account(key, instance).secret, name)
    return Account(name, secret, tuple(AccountGrant(bucket) for bucket in buckets))


def component_secret(web: Secret, name: str) -> Secret:
    """Derive the secret of the account `name` of a component. It follows from the secret by which the `web`
    process reaches the storage, since that is who checks it; the storage itself knows no such account."""
    return account_secret(hmac.digest(web.reveal().encode(), b"accounts of components", "sha256"), name)


def storage_env(
    account: Account, buckets: Mapping[str, str], endpoint: str, region: str
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
