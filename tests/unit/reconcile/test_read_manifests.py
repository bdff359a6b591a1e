"""Manifests that were read are kept, as many as fit into a bound, and without what is not ours."""

from __future__ import annotations

import pytest

from controller.config.settings import DefaultLimits
from controller.ports import SourceFile
from controller.reconcile.commit_manifests import ReadManifests
from tests.support.manifests import APP

BOX = b"""apiVersion: unified-platform.cs.hse.ru/v1
kind: DataBox
metadata: {name: tables}
spec: {s3DefaultStorage: {capacity: 1M}}
"""


def files(comment: int, length: int = 1000) -> tuple[SourceFile, ...]:
    content = BOX + b"#" * length + b"%d" % comment
    return (SourceFile("a.yaml", content), SourceFile("values.yaml", bytes(100_000)))


def test_what_was_read_is_not_read_again() -> None:
    manifests = ReadManifests()
    one = manifests.load(files(1), APP, DefaultLimits())
    assert manifests.load(files(1), APP, DefaultLimits()) is one
    assert manifests.load(files(2), APP, DefaultLimits()) is not one


def test_files_that_are_none_of_ours_are_not_kept() -> None:
    """Neither do they count, nor do they make another entry."""
    manifests = ReadManifests(most=2000)
    one = manifests.load(files(1), APP, DefaultLimits())
    (manifest, _) = files(1)
    assert manifests.load((manifest,), APP, DefaultLimits()) is one


def test_the_last_used_stay() -> None:
    manifests = ReadManifests(most=10_000)
    first = manifests.load(files(0), APP, DefaultLimits())
    for number in range(1, 30):
        manifests.load(files(number), APP, DefaultLimits())
        assert manifests.load(files(0), APP, DefaultLimits()) is first
    again = manifests.load(files(1), APP, DefaultLimits())
    assert manifests.load(files(1), APP, DefaultLimits()) is again


def test_one_that_is_larger_than_all_may_be_is_not_kept() -> None:
    manifests = ReadManifests(most=1000)
    one = manifests.load(files(1, 5000), APP, DefaultLimits())
    assert manifests.load(files(1, 5000), APP, DefaultLimits()) is not one


@pytest.mark.slow
def test_a_round_over_many_apps_reads_none_twice() -> None:
    """If the last used ones did not include all of a round, none would be found again in the next one."""
    manifests = ReadManifests()
    rounds = [
        [manifests.load(files(number, 10), APP, DefaultLimits()) for number in range(300)] for _ in range(2)
    ]
    assert all(one is again for one, again in zip(*rounds, strict=True))
