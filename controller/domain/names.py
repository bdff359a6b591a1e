"""Names of objects on the host. They are deterministic, so that after a crash between creating and recording
an object it is found again by its name.

A DNS label holds no dot, hence dots separate the parts without ambiguity: app `a-b` with component `c` and app `a`
with component `b-c` get different names.
"""

from __future__ import annotations

import hashlib
import re
from typing import NewType

AppName = NewType("AppName", str)
ComponentName = NewType("ComponentName", str)
RepositoryName = NewType("RepositoryName", str)

DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
PATH_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")

#: The key under which the platform folder itself is reconciled; not a DNS label, so no app can be called so.
PLATFORM = AppName("@platform")

_PREVIEWS = "@previews."


def previews_key(app: AppName) -> AppName:
    """Return the key under which the branches of an app are looked at for previews."""
    return AppName(f"{_PREVIEWS}{app}")


def app_of_previews(key: str) -> AppName | None:
    """Return the app whose branches such a key is about; None for other keys."""
    app = key.removeprefix(_PREVIEWS)
    return AppName(app) if key.startswith(_PREVIEWS) and is_dns_label(app) else None


def is_dns_label(text: str) -> bool:
    """RFC 1123 label: 1..63 of `a-z0-9-`, not starting or ending with a hyphen."""
    return DNS_LABEL.fullmatch(text) is not None


def workload_name(
    instance: str, app: AppName, component: ComponentName, fingerprint: str, replica: int
) -> str:
    """Return a container's name, e.g. `prichal.pu-x-pa-demo.classify.1a2b3c4d.0`."""
    return f"{instance}.{app}.{component}.{short(fingerprint)}.{replica}"


def stage_image(pipeline: ComponentName, stage: str) -> ComponentName:
    """Return the name of a stage's image among those of components; the dot distinguishes it from all of them."""
    return ComponentName(f"{pipeline}.{stage}")


def is_stage(name: ComponentName) -> bool:
    return "." in name


def job_name(instance: str, app: AppName, run: str, stage: str, attempt: int) -> str:
    """Return the container's name for one attempt of a stage, e.g. `prichal.pu-x-pa-demo.01jd3f0r7k.train.1`."""
    return f"{instance}.{app}.{run}.{stage}.{attempt}"


def network_name(instance: str, app: AppName) -> str:
    return f"{instance}.{app}"


def bucket_name(instance: str, app: AppName, box: ComponentName) -> str:
    """Return the name of a box's new bucket, e.g. `prichal.pu-x-pa-demo.userdata`: 3 to 63 characters. A
    longer one is cut and gets a digest of the whole."""
    whole = f"{instance}.{app}.{box}"
    if len(whole) <= 63:
        return whole
    digest = hashlib.sha256(whole.encode()).hexdigest()[:12]
    return f"{whole[:50].rstrip('.-')}-{digest}"


def build_tag(instance: str, app: AppName, content: str) -> str:
    """Return the image tag of a build; `content` is the digest of its whole input. Components and stages of
    the app whose builds have equal input share the image."""
    return f"{instance}.local/{app}/build:{content[:32]}"


def is_build(reference: str, app: AppName) -> bool:
    """Return True if the image was built for the app: it is named by its id, or in a registry by its digest."""
    repository, _, digest = reference.partition("@")
    return reference.startswith("sha256:") or (bool(digest) and repository.endswith(f"/{app}/build"))


def short(fingerprint: str) -> str:
    """The eight characters shown to people and used in names; a leading version (`3-`, before that `1:`) is
    cut off."""
    return re.split("[:-]", fingerprint)[-1][:8]
