"""A secret shows nowhere but where it is revealed on purpose."""

from __future__ import annotations

from dataclasses import dataclass

from controller.domain.secret import Secret, scrub


@dataclass(frozen=True)
class Holder:
    password: Secret


def test_no_way_of_printing_shows_it() -> None:
    secret = Secret("hunter2")
    shown = [
        str(secret),
        repr(secret),
        f"{secret}",
        f"{secret!r}",
        repr(Holder(secret)),
        str([secret]),
        "{}".format(secret),  # noqa: UP032 - one way more
    ]
    assert all("hunter2" not in text for text in shown)
    assert secret.reveal() == "hunter2"


def test_scrub_replaces_every_occurrence_and_the_longest_first() -> None:
    text = scrub(
        "url https://ann:hunter22@host, again hunter22 and hunter2", (Secret("hunter2"), Secret("hunter22"))
    )
    assert text == "url https://ann:***@host, again *** and ***"


def test_scrub_leaves_ordinary_words_alone() -> None:
    assert scrub("exit code 1", (Secret("1"), Secret(""), Secret("ex"))) == "exit code 1"
