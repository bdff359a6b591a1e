"""Links to objects: each says one thing, has one spelling, and no other request can be made of it."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.secret import Secret
from controller.domain.storage.keys import FileKeyInvalid, parse_path
from controller.domain.storage.links import LinkInvalid, ObjectLink, link_key, parse, path_of, read_path

KEY = link_key(Secret("the secret of the web process's account"))
NOW = 1_700_000_000
BUCKET = "prichal.demo.data"
LINK = ObjectLink("PUT", BUCKET, "users/ann/file_groups/g/two words (1)é", NOW, 900, 5)
TARGET = LINK.url("", KEY)


def is_key(text: str) -> bool:
    try:
        return not parse_path(text).is_group
    except FileKeyInvalid:
        return False


keys = st.lists(st.text(min_size=1, max_size=12), min_size=2, max_size=4).map("/".join).filter(is_key)
links = (
    st.builds(
        ObjectLink,
        st.sampled_from(("GET", "PUT")),
        st.just(BUCKET),
        keys,
        st.just(NOW),
        st.integers(1, 10**6),
        st.integers(0, 5 * 2**40),
    )
    | st.builds(
        ObjectLink,
        st.just("PUT"),
        st.just(BUCKET),
        keys,
        st.just(NOW),
        st.integers(1, 10**6),
        st.integers(1, 5 * 2**40),
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=30),
        st.integers(1, 10_000),
    )
    | st.builds(
        ObjectLink,
        st.just("GET"),
        st.just(BUCKET),
        keys,
        st.just(NOW),
        st.integers(1, 10**6),
        save=st.just(True),
    )
)


def refused(method: str, target: str, now: float = NOW) -> bool:
    try:
        parse(method, target, KEY, now)
    except LinkInvalid:
        return True
    return False


@given(links)
def test_a_link_says_what_it_was_made_for(link: ObjectLink) -> None:
    assert parse(link.method, link.url("", KEY), KEY, NOW) == link


@given(links, st.data())
def test_no_other_text_is_a_link(link: ObjectLink, data: st.DataObject) -> None:
    """Whatever is put in, left out or exchanged: it is refused, or it is the same object."""
    target = link.url("", KEY)
    start = data.draw(st.integers(0, len(target)))
    end = data.draw(st.integers(start, min(len(target), start + 3)))
    piece = data.draw(
        st.text(st.sampled_from("/%.2eEfF5cC0&=?;+ \\xX\0aAé#"), max_size=4) | st.sampled_from(FORMS)
    )
    changed = target[:start] + piece + target[end:]
    try:
        found = parse(link.method, changed, KEY, NOW)
    except LinkInvalid:
        return
    assert found == link


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE", "OPTIONS", "PATCH", "put", "COPY", ""])
def test_it_is_good_for_one_method(method: str) -> None:
    assert refused(method, TARGET)


def test_it_expires() -> None:
    assert not refused("PUT", TARGET, NOW + 899.9)
    assert refused("PUT", TARGET, NOW + 900)


@pytest.mark.parametrize(
    "other",
    [
        replace(LINK, bucket="prichal.other.data"),
        replace(LINK, key="users/bob/file_groups/g/f"),
        replace(LINK, begins=NOW + 1),
        replace(LINK, lifetime=901),
        replace(LINK, size=6),
        replace(LINK, size=0),
        replace(LINK, upload="an-upload", part=1),
    ],
)
def test_a_signature_covers_all_of_it(other: ObjectLink) -> None:
    mine, theirs = TARGET.rpartition("=")[2], other.url("", KEY).rpartition("=")[0]
    assert refused("PUT", f"{theirs}={mine}")


def test_another_key_makes_other_links() -> None:
    assert refused("PUT", LINK.url("", link_key(Secret("another"))))


FORMS = [
    "/../",
    "/./",
    "//",
    "/%2e%2e/",
    "/%2E%2E/",
    "/.%2e/",
    "/%252e%252e/",
    "%2F",
    "%2f",
    "%5C",
    "\\",
    "%00",
    "\0",
    "%ff",
    "\xff",
    "%",
    "%zz",
    "%C0%AE%C0%AE",
    "/ ../",
    "/..%20/",
    "/%20../",
    "/..;/",
    "/..%00/",
    "?",
    "#",
    "%0d%0a",
]
KEYS_OF_OTHERS = ("prichal.other.data/secret", ".minio.sys/config/iam/users/prichal-web/identity.json")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("other", KEYS_OF_OTHERS)
def test_no_form_of_path_leads_elsewhere(form: str, other: str) -> None:
    path, _, query = TARGET.partition("?")
    for changed in (
        f"/{BUCKET}{form}{other}",
        f"/{BUCKET}/users/ann{form}{other}",
        f"{path}{form}{other}",
        f"{form}{other}",
        f"/{BUCKET}{form}{other}{path.removeprefix(f'/{BUCKET}')}",
        form,
    ):
        assert refused("PUT", f"{changed}?{query}"), changed


NAMES = ("/%252e%252e/", "/..;/")  # odd, but decoded once they are names like others


@pytest.mark.parametrize("form", [form for form in FORMS[:-4] if form not in NAMES])
def test_ambiguous_paths_are_nobody_s(form: str) -> None:
    """Also where an account may reach all of a bucket."""
    with pytest.raises(LinkInvalid):
        read_path(f"/{BUCKET}/a{form}b")


MORE = [
    "&uploads",
    "&acl",
    "&tagging",
    "&policy",
    "&versionId=1",
    "&uploadId=x&partNumber=1",
    "&response-content-type=text/html",
    "&X-Amz-Security-Token=x",
    "&x-id=PutObject",
    "&size=5",
    "&",
    "&X-Amz-Expires=90000",
    "#",
    "%00",
]


@pytest.mark.parametrize("more", MORE)
def test_a_query_is_as_it_was_signed(more: str) -> None:
    head, signature = TARGET.rsplit("&", 1)
    assert refused("PUT", TARGET + more)
    assert refused("PUT", f"{head}{more}&{signature}")
    assert refused("PUT", TARGET.replace("?", f"?{more[1:]}&"))


def test_clients_may_leave_signs_as_they_are() -> None:
    """Programs differ in which signs of a path they escape, and in the case of escapes; no separator is among them."""
    link = replace(LINK, key="g/a+b!$&'()*,;=:@é")
    target = link.url("", KEY)
    loose = f"/{BUCKET}/g/{quote('a+b!$&', safe='+!$&')}'()*,;=:@%c3%a9?{target.partition('?')[2]}"
    assert parse("PUT", loose, KEY, NOW) == link
    assert read_path(path_of(BUCKET, link.key)) == (BUCKET, link.key)
