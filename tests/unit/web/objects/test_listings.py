"""Pages of listings, as the embedded storage is asked for them."""

from __future__ import annotations

import base64

import pytest

from controller.domain.storage.pages import FEWER, GOES_ON
from controller.web.objects.listings import for_embedded
from controller.web.objects.s3 import S3Error

NOW = 1_800_000_000.5
V2 = {"list-type": "2"}


def token(place: str) -> str:
    return base64.b64encode(place.encode()).decode()


def place_of(query: dict[str, str]) -> str:
    return base64.b64decode(query["continuation-token"]).decode()


def answered(place: str) -> bytes:
    return (
        b"<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>%s</NextContinuationToken>"
        b"</ListBucketResult>" % token(place).encode()
    )


def next_token(document: bytes) -> str:
    return document.partition(b"<NextContinuationToken>")[2].partition(b"<")[0].decode()


@pytest.mark.parametrize(
    ("place", "more", "behind"),
    [
        ("", {}, ""),
        ("g/a", {}, "g/a\x01"),
        ("g/h/", {}, "g/h/\x01"),
        ("g/h/", {"delimiter": "/"}, "g/h/\U0010ffff"),
        ("g/h/", {"delimiter": "/", "prefix": "g/"}, "g/h/\U0010ffff"),
        ("g/", {"delimiter": "/", "prefix": "g/"}, "g/\x01"),
    ],
)
def test_a_listing_begins_right_behind_a_place(place: str, more: dict[str, str], behind: str) -> None:
    for name in ("start-after", "marker"):
        assert for_embedded({name: place, **more}, NOW, 0).query == {name: behind, **more}
    if place:
        asked = for_embedded({"continuation-token": token(place), **more}, NOW, 0)
        assert place_of(asked.query) == behind


@pytest.mark.parametrize("text", ["?", "YQ", "/w=="])
def test_a_token_that_is_none_is_left_to_the_storage(text: str) -> None:
    assert for_embedded({"continuation-token": text}, NOW, 0).query == {"continuation-token": text}


@pytest.mark.parametrize("keys", [{}, {"max-keys": "500"}, {"max-keys": "1000"}, {"max-keys": "5000"}])
def test_large_pages_go_on_with_their_listing(keys: dict[str, str]) -> None:
    query = {**V2, **keys, "prefix": "g/"}
    asked = for_embedded(query, NOW, 7)
    assert asked.query["max-keys"] == str(min(int(keys.get("max-keys", "1000")), 1000) - 7)
    again = {**query, "continuation-token": next_token(asked.answer(answered("g/a")))}
    later = for_embedded(again, NOW + GOES_ON - 1, 8)
    assert place_of(later.query) == "g/a"  # exactly where the page has ended
    assert later.began == asked.began  # the time does not begin again with each page
    late = for_embedded(again, NOW + GOES_ON + 1, 8)
    assert place_of(late.query) == "g/a\x01"
    assert late.began == int(NOW + GOES_ON + 1)
    before = for_embedded(again, NOW - 2, 8)  # the clock was set back
    assert place_of(before.query) == "g/a\x01"


def test_a_page_behind_a_folder_does_not_begin_in_it() -> None:
    query = {**V2, "delimiter": "/", "prefix": "g/"}
    again = {**query, "continuation-token": next_token(for_embedded(query, NOW, 0).answer(answered("g/h/")))}
    assert place_of(for_embedded(again, NOW, 0).query) == "g/h/\U0010ffff"


@pytest.mark.parametrize(
    "query",
    [{**V2, "max-keys": "499"}, {**V2, "max-keys": "2"}, {**V2, "max-keys": "x"}, {"max-keys": "1000"}, {}],
)
def test_other_pages_show_what_is_there_now(query: dict[str, str]) -> None:
    asked = for_embedded(query, NOW, FEWER - 1)
    assert asked.query == query
    assert asked.answer(answered("g/a")) == answered("g/a")


@pytest.mark.parametrize("place", ["../x", "a/../b", "g/..", "a\\b"])
def test_a_token_leads_nowhere_else(place: str) -> None:
    with pytest.raises(S3Error, match="refused"):
        for_embedded({**V2, "continuation-token": token(f"{place}\0{int(NOW)}")}, NOW, 0)


@pytest.mark.parametrize("time", ["", "-1", "1e9", "9" * 400, "²", "soon"])
def test_a_time_that_is_none_begins_again(time: str) -> None:
    asked = for_embedded({**V2, "continuation-token": token(f"g/a\0{time}")}, NOW, 0)
    assert place_of(asked.query) == "g/a\x01"
