"""The header of `git http-backend`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.web.git.cgi import LONGEST, CgiHeader, CgiInvalid, split_header

FIELD = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=":"), min_size=1)
VALUE = st.text(st.characters(min_codepoint=32, max_codepoint=126))


def test_what_git_writes() -> None:
    head = b"Expires: Fri, 01 Jan 1980 00:00:00 GMT\r\nContent-Type: application/x-git-upload-pack-result\r\n\r\n"
    assert split_header(head + b"0008NAK\n") == (
        CgiHeader(200, "application/x-git-upload-pack-result"),
        b"0008NAK\n",
    )
    assert split_header(b"Status: 404 Not Found\r\n\r\n") == (CgiHeader(404, ""), b"")
    assert split_header(b"status: 503\n\n\n") == (CgiHeader(503, ""), b"\n")


@given(
    st.dictionaries(FIELD.map(str.lower), VALUE, max_size=8),
    st.integers(100, 599),
    st.binary(max_size=50),
    st.sampled_from(["\r\n", "\n"]),
)
def test_any_header_and_body(fields: dict[str, str], status: int, body: bytes, end: str) -> None:
    fields = {name: value for name, value in fields.items() if name not in ("status", "content-type")}
    fields |= {"Status": f"{status} Words", "Content-Type": "text/x"}
    head = "".join(f"{name}: {value}{end}" for name, value in fields.items()).encode()
    found = split_header(head + end.encode() + body)
    assert found == (CgiHeader(status, "text/x"), body)


@given(st.data())
def test_a_part_of_a_header_is_none(data: st.DataObject) -> None:
    head = b"Status: 200 OK\r\nContent-Type: text/x\r\n\r\n"
    assert split_header(head[: data.draw(st.integers(0, len(head) - 2))]) is None


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    try:
        found = split_header(data)
    except CgiInvalid:
        return
    if found is not None:
        header, body = found
        assert 100 <= header.status <= 599
        assert data.endswith(body)


@pytest.mark.parametrize(
    "head",
    [
        b"no field\n\n",
        b"\n\n",
        b"Status: 99\n\n",
        b"Status: 2000\n\n",
        b"Status: \xb2\xb2\xb2\n\n",
        b"Status: 200\nstatus: 404\n\n",
        b"A: 1\na: 2\n\n",
    ],
)
def test_what_is_no_header(head: bytes) -> None:
    with pytest.raises(CgiInvalid):
        split_header(head)


def test_a_header_has_an_end() -> None:
    assert split_header(b"a" * (LONGEST - 1)) is None
    with pytest.raises(CgiInvalid):
        split_header(b"a" * LONGEST)
    with pytest.raises(CgiInvalid):
        split_header(b"A: b" + b"c" * LONGEST + b"\n\n")
