"""`S3Admin`: accounts and quotas through MinIO's admin API, which the JuiceFS gateway has, too.

An account is a user and a policy of the same name. All calls describe the wanted state and may be repeated.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from minio import MinioAdmin
from minio.credentials.providers import StaticProvider
from minio.error import MinioAdminException

from controller.adapters.objects.connection import Endpoint, pool
from controller.adapters.objects.error_rules import admin_answer, translated
from controller.domain.localizable import Localizable
from controller.domain.secret import Secret
from controller.domain.storage.box import AccountGrant, StorageAccount

#: SDKs without a region first ask for that of the bucket: without this right nothing else works for them.
_BUCKET_READ: Final = ("s3:GetBucketLocation", "s3:ListBucket")
_BUCKET_WRITE: Final = ("s3:ListBucketMultipartUploads",)
_OBJECT_READ: Final = ("s3:GetObject",)
_OBJECT_WRITE: Final = (
    "s3:PutObject",
    "s3:DeleteObject",
    "s3:AbortMultipartUpload",
    "s3:ListMultipartUploadParts",
)

_GONE: Final = frozenset({"XMinioAdminNoSuchUser", "XMinioAdminNoSuchPolicy"})
#: The JuiceFS gateway answers with the first one.
_NO_QUOTAS: Final = frozenset({"XMinioAdminVersionMismatch", "NotImplemented"})


class S3Admin:
    """Implements `controller.ports.StorageAdmin`."""

    def __init__(self, url: str, access_key: str, secret_key: Secret, region: str = "us-east-1") -> None:
        endpoint = Endpoint.of(url)
        self._admin = MinioAdmin(
            endpoint=endpoint.address,
            credentials=StaticProvider(access_key, secret_key.reveal()),
            region=region,
            secure=endpoint.secure,
            http_client=pool(),
        )

    def set_quota(self, bucket: str, capacity: int) -> None:
        with (
            translated(Localizable("cannot set the quota of the bucket {bucket}", bucket=bucket)),
            _fine(_NO_QUOTAS),
        ):
            self._admin.bucket_quota_set(bucket, capacity)

    def ensure_account(self, account: StorageAccount) -> None:
        with translated(Localizable("cannot create the storage account {name}", name=account.name)):
            # The policy first: the account must never have more rights than intended.
            self._admin.policy_add(account.name, policy=policy(account.grants))
            self._admin.user_add(account.name, account.secret.reveal())
            self._admin.policy_set(account.name, user=account.name)

    def remove_account(self, name: str) -> None:
        with translated(Localizable("cannot remove the storage account {name}", name=name)):
            with _fine(_GONE):
                self._admin.user_remove(name)
            with _fine(_GONE):
                self._admin.policy_remove(name)

    def accounts(self) -> frozenset[str]:
        with translated(Localizable("cannot list the accounts of the storage")):
            return frozenset(json.loads(self._admin.user_list()))


@contextmanager
def _fine(codes: frozenset[str]) -> Iterator[None]:
    """Ignore answers that mean that there is nothing to do."""
    try:
        yield
    except MinioAdminException as error:
        if admin_answer(error).code not in codes:
            raise


def policy(grants: tuple[AccountGrant, ...]) -> dict[str, Any]:
    """Return an IAM policy (version 2012-10-17) that allows exactly the grants; nothing without grants."""
    statements = [statement for grant in grants for statement in _statements(grant)]
    nothing = {"Effect": "Deny", "Action": ["s3:*"], "Resource": ["arn:aws:s3:::*"]}
    return {"Version": "2012-10-17", "Statement": statements or [nothing]}


def _statements(grant: AccountGrant) -> tuple[dict[str, Any], dict[str, Any]]:
    bucket = f"arn:aws:s3:::{grant.bucket}"
    return (
        {
            "Effect": "Allow",
            "Action": [*_BUCKET_READ, *(_BUCKET_WRITE if grant.write else ())],
            "Resource": [bucket],
        },
        {
            "Effect": "Allow",
            "Action": [*_OBJECT_READ, *(_OBJECT_WRITE if grant.write else ())],
            "Resource": [f"{bucket}/*"],
        },
    )
