"""Checksums of bodies: counted as their definitions say, whatever pieces the body comes in, and compared before its
last one."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.web.objects.checksums import FIELDS, Checksum, Claim, Malformed, Mismatch, claim_of, compared
from tests.integration.web.checksums import CHECKSUMS, checksum

#: What catalogues of CRCs give for the digits 1 to 9.
OF_DIGITS = {"crc32": "cbf43926", "crc32c": "e3069283", "crc64nvme": "ae8b14860a799888"}
names = st.sampled_from(CHECKSUMS)


def field(name: str) -> str:
    return f"x-amz-checksum-{name}"


@pytest.mark.parametrize("name", OF_DIGITS)
def test_sums_of_the_catalogue(name: str) -> None:
    counted = Checksum(field(name))
    counted.update(b"123456789")
    counted.require(base64.b64encode(bytes.fromhex(OF_DIGITS[name])).decode())


def test_all_that_clients_send_are_known() -> None:
    assert {field(name) for name in CHECKSUMS} == FIELDS


async def each(pieces: list[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def passed(pieces: list[bytes], claim: Claim | None) -> tuple[bytes, Exception | None]:
    """What came through, and what was raised then."""
    found = []

    async def read() -> None:
        async for piece in compared(each(pieces), claim):
            found.append(piece)  # noqa: PERF401 - those before an error count

    try:
        asyncio.run(read())
    except ValueError as error:
        return b"".join(found), error
    return b"".join(found), None


pieces = st.lists(st.binary(min_size=1, max_size=50), max_size=5)


@given(names, pieces)
def test_a_sum_is_that_of_the_whole(name: str, pieces: list[bytes]) -> None:
    content = b"".join(pieces)
    assert passed(pieces, Claim(field(name), checksum(name, content))) == (content, None)
    assert passed(pieces, None) == (content, None)


@given(names, pieces, st.binary(max_size=250))
def test_another_content_does_not_come_to_its_end(name: str, pieces: list[bytes], other: bytes) -> None:
    content = b"".join(pieces)
    if content == other:
        return
    through, error = passed(pieces, Claim(field(name), checksum(name, other)))
    assert isinstance(error, Mismatch)
    assert through == b"".join(pieces[:-1])


@given(names, st.text(max_size=60))
def test_what_is_no_checksum(name: str, text: str) -> None:
    error = passed([b"x"], Claim(field(name), text))[1]
    assert isinstance(error, Malformed | Mismatch)
    if text.isascii() and len(text) % 4:
        assert isinstance(error, Malformed)


def test_one_says_all() -> None:
    assert claim_of({"content-type": "x", "x-amz-checksum-mode": "ENABLED"}) is None
    assert claim_of({field("sha1"): "x"}) is not None
    with pytest.raises(Malformed, match="crc32 and x-amz-checksum-sha256"):
        claim_of({field("sha256"): "x", field("crc32"): "y"})
