"""Templates and orders as JSON documents. Pure."""

from __future__ import annotations

from controller.config import Settings
from controller.domain.apps.orders import OrderKind, OrderRecord, OrderState
from controller.domain.apps.spec import Limits
from controller.domain.templates import TemplateRecord
from controller.domain.units import rfc3339


def template_document(record: TemplateRecord, is_admin: bool) -> dict[str, object]:
    """Where a template comes from, and what is wrong with it, is for admins."""
    found = record.template
    document: dict[str, object] = {"name": record.name, "usable": found is not None}
    if found is not None:
        document |= {
            "title": {"en": found.title.en, "ru": found.title.ru},
            "text": {"en": found.text.en, "ru": found.text.ru},
            "limits": _limits(found.limits),
            "variables": [
                {
                    "name": each.name,
                    "type": str(each.type),
                    "title": {"en": each.title.en, "ru": each.title.ru},
                    "default": each.default,
                    "pattern": each.pattern or None,
                    "options": list(each.options),
                }
                for each in found.variables
            ],
        }
    if is_admin:
        document |= {
            "url": record.url or None,
            "commit": record.commit or None,
            "problem": record.problem or None,
            "fetched": rfc3339(record.fetched) if record.fetched else None,
        }
    return document


def order_document(record: OrderRecord, settings: Settings) -> dict[str, object]:
    order = record.order
    repository = order.app if record.state is OrderState.DONE and order.kind is OrderKind.CREATE else ""
    return {
        "id": order.id,
        "kind": str(order.kind),
        "app": order.app,
        "by": order.by or None,
        "template": order.template or None,
        "state": str(record.state),
        "reason": record.reason or None,
        "message": record.message,
        "repository": str(settings.repositories / f"{repository}.git") if repository else None,
        "created": rfc3339(record.created),
        "ended": rfc3339(record.ended) if record.ended else None,
    }


def _limits(limits: Limits) -> dict[str, object]:
    return {
        name: getattr(limits, name)
        for name in ("cpus", "memory", "storage", "gpus", "containers")
        if getattr(limits, name) is not None
    }
