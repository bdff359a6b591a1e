"""Origins as browsers write them; the expected ones are what `new URL(text).origin` of Node.js says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.routing.origins import NoOrigin, serialized


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://lab.example.org", "https://lab.example.org"),
        ("HTTPS://Lab.Example.Org:443", "https://lab.example.org"),
        ("https://a.example:00443", "https://a.example"),
        ("http://a.example:0080", "http://a.example"),
        ("https://a.example:80", "https://a.example:80"),
        ("http://a.example:08080", "http://a.example:8080"),
        ("http://a.example:65535", "http://a.example:65535"),
        ("http://0x7f000001", "http://127.0.0.1"),
        ("http://127.1:8080", "http://127.0.0.1:8080"),
        ("http://0177.0.0.1", "http://127.0.0.1"),
        ("http://2130706433", "http://127.0.0.1"),
        ("http://0x", "http://0.0.0.0"),
        ("http://1.2.3.4", "http://1.2.3.4"),
        ("http://a.b-1", "http://a.b-1"),
        ("http://[0:0:0:0:0:0:0:1]:80", "http://[::1]"),
        ("http://[2001:DB8:0:0:1:0:0:1]", "http://[2001:db8::1:0:0:1]"),
        ("http://[2001:db8:0:1:1:1:1:1]", "http://[2001:db8:0:1:1:1:1:1]"),
        ("http://[1::]:8080", "http://[1::]:8080"),
        ("http://[::ffff:192.0.2.1]", "http://[::ffff:c000:201]"),
        ("http://[::]", "http://[::]"),
        ("chrome-extension://abcdefgh", "chrome-extension://abcdefgh"),
    ],
)
def test_each_spelling_is_the_one_of_browsers(text: str, origin: str) -> None:
    assert serialized(text) == origin
    assert serialized(origin) == origin


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("https://a.example:99999", "write one from 1 to 65535"),
        ("https://a.example:0", "write one from 1 to 65535"),
        ("https://a.example:00000", "write one from 1 to 65535"),
        ("http://1.2.3.256", "write four numbers"),
        ("http://1.2.3.4.5", "write four numbers"),
        ("http://a.example.0x7f", "write four numbers"),
        ("http://1_0.0.0.1", "write four numbers"),
        ("http://08.1.1.1", "write four numbers"),
        ("http://4294967296", "write four numbers"),
        ("http://[1:2:3]", "write one such as [::1]"),
        ("http://[::1::]", "write one such as [::1]"),
        ("http://[12345::]", "write one such as [::1]"),
        ("wss://a.example", "write https://"),
        ("ws://a.example", "write http://"),
        ("https://a.example/", "write scheme, host and port alone"),
        ("https://", "write scheme, host and port alone"),
        ("null", "write scheme, host and port alone"),
    ],
)
def test_what_no_page_has_is_refused_with_what_to_write(text: str, why: str) -> None:
    with pytest.raises(NoOrigin) as caught:
        serialized(text)
    assert str(caught.value).endswith(why)


@given(st.sampled_from(["http", "https"]), st.ip_addresses(), st.integers(1, 65535))
def test_addresses_are_known_again(scheme: str, address: object, port: int) -> None:
    text = f"[{address}]" if ":" in str(address) else str(address)
    once = serialized(f"{scheme}://{text}:{port:05}")
    assert serialized(once) == once
