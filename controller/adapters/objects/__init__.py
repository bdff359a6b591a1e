"""Object storages behind the ports `Objects`, `StorageAdmin` and `Storage`. The only package that imports the `minio`
SDK.

`client` reads and writes buckets at one S3 endpoint, `admin` makes accounts and quotas where the endpoint has MinIO's
admin API (MinIO itself and the JuiceFS gateway do), `external` is the storage of `storage.backend: s3`, `lent` that of
commands which only look; `errors` turns what the SDK raises into our decisions, `connection` says how long to wait for
a server. Nothing here counts what is stored or knows what a box is.
"""

from controller.adapters.objects.admin import S3Admin
from controller.adapters.objects.client import S3Objects
from controller.adapters.objects.external import S3Storage
from controller.adapters.objects.lent import LentStorage

__all__ = ["LentStorage", "S3Admin", "S3Objects", "S3Storage"]
