"""Buckets' names, room in boxes, accounts of components."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controller.domain.names import DNS_LABEL, AppName, ComponentName, bucket_name
from controller.domain.storage.accounts import component_account
from controller.domain.storage.box import AccountGrant, BoxUsage

LABEL = st.from_regex(DNS_LABEL, fullmatch=True)
KEY = b"k" * 32


@given(LABEL, LABEL, LABEL)
def test_a_bucket_has_a_name_that_s3_takes(instance: str, app: str, box: str) -> None:
    name = bucket_name(instance, AppName(app), ComponentName(box))
    assert 3 <= len(name) <= 63
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-")
    assert name[0].isalnum()
    assert name[-1].isalnum()
    assert ".." not in name


def test_long_names_stay_apart() -> None:
    app = AppName("a" * 63)
    names = {bucket_name("prichal", app, ComponentName("b" * 62 + end)) for end in "xyz"}
    assert len(names) == 3
    assert bucket_name("prichal", AppName("demo"), ComponentName("userdata")) == "prichal.demo.userdata"


def test_room_counts_what_is_on_its_way() -> None:
    room = BoxUsage(capacity=100, used=60, pending=30)
    assert room.free == 10
    assert room.has_space_for(10)
    assert not room.has_space_for(11)
    assert room.has_space_for(0), "of unknown size, and there is some room"
    assert not BoxUsage(100, 100, 0).has_space_for(0)
    assert not BoxUsage(100, 60, 40).has_space_for(0)
    assert BoxUsage(100, 150, 0).free == 0


def test_an_account_is_for_one_component_and_its_boxes() -> None:
    def account(component: str = "classify", *buckets: str, app: str = "demo", key: bytes = KEY) -> object:
        return component_account("prichal", AppName(app), ComponentName(component), buckets, key)

    one = component_account("prichal", AppName("demo"), ComponentName("classify"), ("b1", "b2"), KEY)
    assert one.name.startswith("prichal.demo.")
    assert one.grants == (AccountGrant("b1"), AccountGrant("b2"))
    assert one == account("classify", "b1", "b2"), "it need not be kept anywhere"
    others = [
        account("classify", "b1"),
        account("other", "b1", "b2"),
        account("classify", "b1", "b2", app="demo2"),
    ]
    assert len({repr(found) for found in [one, *others]}) == 4
    rekeyed = component_account(
        "prichal", AppName("demo"), ComponentName("classify"), ("b1", "b2"), b"x" * 32
    )
    assert rekeyed.secret != one.secret
    assert one.secret.reveal() not in repr(one)
