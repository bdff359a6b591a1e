"""What the actions of one pass need besides the plan: its commit, its Secrets, and where events go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from controller.domain.names import ComponentName
from controller.domain.reasons import Reason
from controller.domain.secret import Secret
from controller.ports import Revision
from controller.reconcile.builds import Builds
from controller.reconcile.catalog import Credentials

#: Reason, message, commit, component, and whether it is a warning.
RecordProgress = Callable[[Reason, str, str, ComponentName | None, bool], None]


@dataclass(frozen=True)
class ExecutionContext:
    """What the actions of one pass need besides the plan. `superseded` returns whether there is a newer
    commit or the daemon stops; it is called while waiting.
    """

    revision: Revision
    registries: Credentials
    secrets: tuple[Secret, ...] = field(repr=False)
    superseded: Callable[[], bool]
    record: RecordProgress
    builds: Builds = field(default_factory=Builds)

    def record_event(
        self, reason: Reason, message: str, component: ComponentName | None = None, warn: bool = False
    ) -> None:
        self.record(reason, message, self.revision.commit, component, warn)
