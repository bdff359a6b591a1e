"""Unexpected exceptions become ordinary failures: the failed step is tried again later, and other steps
continue.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from controller.domain.errors import ControllerError, Transient
from controller.domain.names import AppName
from controller.domain.reasons import Reason

log = logging.getLogger(__name__)


@contextmanager
def as_transient(app: AppName, doing: str) -> Iterator[None]:
    """Raise a bug within the block as `Transient` and log its traceback; other failures pass unchanged."""
    try:
        yield
    except ControllerError:
        raise
    except Exception as error:
        log.exception("bug", extra={"app": app, "doing": doing})
        raise Transient(Reason.INTERNAL_ERROR, f"{doing}: {type(error).__name__}: {error}") from error
