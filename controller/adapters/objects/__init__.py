"""Object storages behind the ports `Objects`, `StorageAdmin` and `Storage`. The only package that imports the
`minio` SDK.

`client` reads and writes buckets at one S3 endpoint; `admin` creates accounts and sets quotas if the endpoint
has MinIO's admin API (MinIO itself and the JuiceFS gateway have it); `external` is the storage of
`storage.backend: s3`, `read_only` that of read-only commands; `errors` translates the SDK's errors, and
`connection` has timeouts. Nothing here counts what is stored or knows what a box is.
"""

from controller.adapters.objects.admin import S3Admin
from controller.adapters.objects.client import S3Objects
from controller.adapters.objects.external import S3Storage
from controller.adapters.objects.read_only import ReadOnlyStorage

__all__ = ["ReadOnlyStorage", "S3Admin", "S3Objects", "S3Storage"]
