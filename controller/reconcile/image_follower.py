"""Asks registries for newer images of those that apps follow, and asks for a pass when there is one. A thread of the
daemon.

What is followed is what passes have declared, and what was found is stored before anybody acts on it: a daemon that
dies at any point asks again. How often a registry is asked is bounded for each image, and a registry that wants to be
left alone is, for all of them.
"""

from __future__ import annotations

import logging
import random
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Final

from controller.domain.apps.followed_images import (
    FollowedImage,
    FollowRecord,
    FollowState,
    answered,
    failed,
    keeps,
    may_write,
    no_tag,
    order_tags,
    why_chosen,
)
from controller.domain.apps.requests import Trigger
from controller.domain.apps.spec import PlatformAppSpec
from controller.domain.apps.status import Event, EventType, is_suspended
from controller.domain.backoff import jittered
from controller.domain.errors import ControllerError, Stalled, Transient
from controller.domain.image_names import split_name, split_reference
from controller.domain.localizable import Localizable, joined
from controller.domain.names import ComponentName, is_dns_label
from controller.domain.reasons import Reason
from controller.domain.secret import scrub
from controller.guards import GuardedStep
from controller.ports import ImageRegistry, RemoteImage
from controller.reconcile.bugs import as_transient
from controller.reconcile.catalog import Credentials
from controller.reconcile.deps import ReconcilerDeps
from controller.reconcile.image_writer import ImageWriter
from controller.tag_patterns import extracted

log = logging.getLogger(__name__)

LOOK: Final = 1.0  # seconds between two looks
AT_ONCE: Final = 4  # questions
PER_HOST: Final = 2  # of them to one registry, so that a slow one holds up no others
MOST_PASSED_OVER: Final = 5  # tags that lack this platform, before it is given up


@dataclass
class ImageFollower:
    """`platform` is that of this host, as `linux/amd64`."""

    deps: ReconcilerDeps
    registry: ImageRegistry
    platform: str
    random: Callable[[], float] = random.random
    _busy: dict[tuple[str, str], str] = field(default_factory=dict, init=False)  # app and subject: host
    _quiet: dict[str, float] = field(default_factory=dict, init=False)  # host: until when nothing is asked
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def run(self, stop: threading.Event) -> None:
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="images") as pool:
            step = GuardedStep("images are not followed", lambda: self._submit(pool))
            while not stop.is_set():
                step()
                stop.wait(LOOK)

    def _submit(self, pool: ThreadPoolExecutor) -> None:
        for record in self.due():
            follow = GuardedStep(f"cannot follow the image of {record.image.subject}", self.follow)
            pool.submit(self._released, follow, record)

    def _released(self, follow: Callable[[FollowRecord], object], record: FollowRecord) -> None:
        try:
            follow(record)
        finally:
            with self._lock:
                self._busy.pop(_key(record), None)

    def due(self) -> tuple[FollowRecord, ...]:
        """Return what should be asked now, and remember it as being asked. The longest overdue goes first."""
        now, found = self.deps.clock.now(), []
        records = sorted(self.deps.store.images.all(), key=lambda record: record.due)
        with self._lock:
            hosts = Counter(self._busy.values())
            for record in records:
                host = _host(record.image)
                due = record.due <= now or record.state.asked > now  # the clock may have been set back
                if not due or _key(record) in self._busy or not self._may_ask(record, host, now):
                    continue
                if len(self._busy) >= AT_ONCE or hosts[host] >= PER_HOST:
                    continue
                self._busy[_key(record)] = host
                hosts[host] += 1
                found.append(record)
        return tuple(found)

    def _may_ask(self, record: FollowRecord, host: str, now: float) -> bool:
        least = record.state.asked + self.deps.settings.images.least_interval
        if now < self._quiet.get(host, 0.0) or (now < least and record.state.asked <= now):
            return False
        return self._declared(record) is not None

    def _declared(self, record: FollowRecord) -> PlatformAppSpec | None:
        """Return the app of a record; None while it is suspended, or no longer connected."""
        declared = self.deps.catalog.spec.app(record.app)
        if declared is None or declared.suspend or is_suspended(self.deps.store.apps.status(record.app)):
            return None
        return declared

    # --- one image ---------------------------------------------------------------------------------------------

    def follow(self, record: FollowRecord) -> None:
        """Ask for one image, store what was found, and let it be deployed, or written to Git."""
        declared = self._declared(record)
        if declared is None:
            return
        try:
            with as_transient(record.app, f"following the image of {record.image.subject}"):
                state = self._asked(record, self.deps.catalog.registries(declared))
        except (Stalled, Transient) as error:
            state = self._failed(record, error)
        if record.image.follow.write_back:
            state = self._written(declared, record, state)
        with self.deps.store.transaction():
            saved = self.deps.store.images.save(record, state)
            if saved and (state.image, state.commit) != (record.state.image, record.state.commit):
                self.deps.store.requests.enqueue(record.app, Trigger.IMAGE)

    def _written(self, declared: PlatformAppSpec, record: FollowRecord, state: FollowState) -> FollowState:
        if state.failures or not may_write(record, state, self.deps.store.apps.status(record.app).rollback):
            return state
        try:
            with as_transient(record.app, f"writing the image of {record.image.subject} to Git"):
                commit, written = ImageWriter(self.deps).write(declared, record.image, state)
        except (Stalled, Transient) as error:
            return self._failed(record, error, state)
        if written:
            self._tell(record, Reason.IMAGE_WRITTEN, _written_words(state, commit))
        return replace(state, written=state.image, commit=commit if written else state.commit)

    def _asked(self, record: FollowRecord, registries: Credentials) -> FollowState:
        image, follow, now = record.image, record.image.follow, self.deps.clock.now()
        pause = jittered(max(follow.interval, self.deps.settings.images.least_interval), self.random())

        def extract(tag: str) -> str | None:
            return extracted(follow.pattern, tag)

        tags = () if follow.digest else self.registry.tags(image.name, registries)
        order = order_tags(image, tags, extract)
        proven = dict(self.deps.store.apps.status(record.app).applied_images).get(image.subject, "")
        if keeps(image, record.state.image, order, proven, extract):
            gone = split_reference(record.state.image)[1]
            told = Localizable(
                "{tag} is no longer in the registry, and stays until there is a newer tag", tag=gone
            )
            return answered(record.state, record.state.image, record.state.why, now, pause, told)
        if not order:
            raise no_tag(image, tags)
        tag, found, passed = self._first_usable(record, order, registries)
        why = why_chosen(image, tag, len(order), len(tags))
        if passed:
            why += f"; {', '.join(passed)} lack {self.platform}"
        return answered(record.state, image.at(tag, found.digest), why, now, pause)

    def _first_usable(
        self, record: FollowRecord, order: tuple[str, ...], registries: Credentials
    ) -> tuple[str, RemoteImage, list[str]]:
        """Return the first tag with an image for this host, what it points to, and the tags before it."""
        known = split_reference(record.state.image)
        passed: list[str] = []
        for tag in order[:MOST_PASSED_OVER]:
            digest = known[2] if known[1] == tag else ""
            found = self.registry.image(record.image.name, tag, registries, digest)
            if found.platforms is None or self.platform in found.platforms:
                return tag, found, passed
            passed.append(tag)
        told = Localizable(
            "{tags} of {name} have no image for {platform}",
            tags=", ".join(passed),
            name=record.image.name,
            platform=self.platform,
        )
        raise Stalled(Reason.NO_MATCHING_TAG, told)

    def _failed(
        self, record: FollowRecord, error: ControllerError, found: FollowState | None = None
    ) -> FollowState:
        """Return the state after a failure, with what was found before it. It is reported once, as an event."""
        deps, now, image = self.deps, self.deps.clock.now(), record.image
        known = replace(found, failures=record.state.failures) if found else record.state
        state = failed(known, error, now, image.follow.interval, deps.settings.images.least_interval)
        if error.reason == Reason.REGISTRY_LIMITED:
            with self._lock:
                self._quiet[_host(image)] = state.next
        if state.reason != record.state.reason:
            told = Localizable("its image is not followed: {problem}", problem=error.message)
            self._tell(record, state.reason, told, EventType.WARNING)
        return state

    def _tell(
        self, record: FollowRecord, reason: Reason, message: str, kind: EventType = EventType.NORMAL
    ) -> None:
        deps, subject = self.deps, record.image.subject
        name = ComponentName(subject) if is_dns_label(subject) else None
        text = scrub(message if name else joined((subject, message), ": "), deps.secrets.get(record.app, ()))
        deps.store.events.add([Event(record.app, kind, reason, text, name, at=deps.clock.now())])


def _written_words(state: FollowState, commit: str) -> Localizable:
    return Localizable(
        "{image} is in Git as {commit}: {why}", image=state.image, commit=commit[:12], why=state.why
    )


def _key(record: FollowRecord) -> tuple[str, str]:
    return record.app, record.image.subject


def _host(image: FollowedImage) -> str:
    return split_name(image.name)[0]


#: What the engines call processors, by what the kernel calls them.
ARCHITECTURES: Final[Mapping[str, str]] = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "i686": "386",
}


def platform_of(machine: str) -> str:
    return f"linux/{ARCHITECTURES.get(machine, machine)}"
