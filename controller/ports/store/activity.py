"""What components do: when each was called last, and samples of what they use."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Protocol

from controller.domain.apps.samples import Resolution, Sample, Stored
from controller.domain.names import AppName, ComponentName


class Activity(Protocol):
    """The time of the last call of each hibernating component."""

    def touch(self, used: Iterable[tuple[AppName, ComponentName]], at: float) -> None:
        """Record that they were in use at `at`, in Unix seconds; a later time is kept."""

    def of(self, app: AppName) -> Mapping[ComponentName, float]: ...


class Series(Protocol):
    """Samples of components, for a day and in bounded space. The daemon writes them, all others read."""

    def add(self, at: float, samples: Mapping[tuple[AppName, ComponentName], Sample]) -> None:
        """Add samples whose time ends at `at`, in Unix seconds."""

    def of(self, app: AppName, component: ComponentName, resolution: Resolution) -> tuple[Stored, ...]:
        """Return what is kept of a component, in no order."""

    def keep(self, known: Collection[tuple[AppName, ComponentName]]) -> None:
        """Delete the samples of all other components."""
