"""An app that follows images, with a registry in memory and a follower that asks when the test says so."""

from __future__ import annotations

from typing import Any

from controller.domain.apps.followed_images import FollowRecord
from controller.domain.apps.requests import Trigger
from controller.reconcile.image_follower import ImageFollower
from tests.support.fake_registry import FakeRegistry
from tests.unit.reconcile.harness import APP, Harness, api, ml

NAME = "hub.example.org/team/demo"
INTERVAL = 300.0


class Following:
    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.registry = FakeRegistry()
        self.follower = ImageFollower(harness.deps, self.registry, "linux/amd64", random=lambda: 0.0)

    def manifest(self, tag: str = "1.0.0", name: str = "classify", **follow: Any) -> str:
        reference = f"{NAME}:{tag}" if tag else NAME
        image: dict[str, object] = {"existingImageName": reference, "follow": follow or {"semver": "^1"}}
        return ml(name, image=image)

    def declare(self, tag: str = "1.0.0", **follow: Any) -> str:
        """The commit that follows is in service with the image of Git."""
        self.harness.connect()
        if tag:
            image = self.registry.push(NAME, tag)
            self.harness.engine.registry[f"{NAME}:{tag}"] = image.partition("@")[2]
        commit = self.harness.push(self.manifest(tag, **follow), api())
        self.harness.run()
        return commit

    def ask(self, wait: float = INTERVAL) -> bool:
        """What is due is asked; return whether a pass was asked for."""
        self.harness.clock.advance(wait)
        for record in self.follower.due():
            self.follower._released(self.follower.follow, record)
        return self.is_asked

    @property
    def is_asked(self) -> bool:
        queued = self.harness.store.requests.queued(APP)
        return queued is not None and Trigger.IMAGE in queued.reasons

    def take(self, wait: float = INTERVAL) -> None:
        """Ask, and run the pass that follows."""
        self.ask(wait)
        self.harness.run("image")

    def push(self, tag: str, content: str = "") -> str:
        return self.registry.push(NAME, tag, content)

    @property
    def record(self) -> FollowRecord:
        (found,) = self.harness.store.images.of(APP)
        return found

    @property
    def serving(self) -> str:
        """The image of the component in service."""
        return self.harness.status().components[0].image
