"""What is kept on the engine as JSON documents. Pure."""

from __future__ import annotations

from controller.client.platform.api import PlanState
from controller.domain.apps.image_lists import ImageList
from controller.domain.apps.kept_images import ImageVerdict
from controller.domain.units import rfc3339


def image_list_document(found: ImageList) -> dict[str, object]:
    """Return a list that is done, or why there is none."""
    if found.problem:
        return {
            "id": found.id,
            "state": PlanState.FAILED,
            "reason": found.problem,
            "message": found.message,
            "transient": found.is_transient,
        }
    return {
        "id": found.id,
        "state": PlanState.DONE,
        "images": [_image(each) for each in found.images],
        "leftOut": found.left_out,
        "removed": found.removed,
        "removedSize": found.removed_size,
    }


def _image(judged: ImageVerdict) -> dict[str, object]:
    image = judged.image
    return {
        "app": image.app or None,
        "kind": image.kind.value,
        "id": image.id or None,
        "name": image.name or None,
        "size": image.size,
        "created": rfc3339(image.created or None),
        "containers": image.containers,
        "due": rfc3339(image.due),
        "removed": judged.removed,
        "removal": judged.why,
    }
