"""What a Dockerfile asks of the engine: which images it names, and what the engine would fetch as the host."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.adapters.docker.dockerfile import images_of, instructions
from controller.domain.errors import Stalled


@pytest.mark.parametrize(
    ("dockerfile", "expected"),
    [
        ("FROM a", ("a",)),
        (
            "from  --platform=linux/amd64 hub.org/a:1@sha256:12 as x\nFROM x\nFROM X AS y",
            ("hub.org/a:1@sha256:12",),
        ),
        ("FROM scratch\nCOPY --from=dbd3a1 /code /\nCOPY --from=0 a b", ("dbd3a1",)),
        ("FROM a AS one\nFROM b\nCOPY --chown=1 --from=one x y\nCOPY --from=c x y", ("a", "b", "c")),
        ("ARG B=base\nARG T\nFROM ${B}:${T:-1}\nARG B=other\nFROM $B", ("base:1", "base")),
        ("ARG B=dbd3a1\nFROM $B", ("dbd3a1",)),
        ("ARG GIVEN=a\nFROM $GIVEN", ("from-outside",)),
        ("ARG A=x B='y'\nFROM ${A:+set}$B", ("sety",)),
        ("ARG A=x\nARG B=$A-y\nFROM \\\n# comment\n\n  $B \\\n  AS z\nFROM z", ("x-y",)),
        # White space in quotes, or behind an escape character, does not begin another argument.
        ('ARG A="x B=a"\nFROM ${B:-b}', ("b",)),
        ("ARG A='x B=a'\nFROM ${B:-b}", ("b",)),
        ("ARG A=x\\ B=a\nFROM ${B:-b}", ("b",)),
        ("# escape=`\nARG A=x` B=a\nFROM ${B:-b}", ("b",)),
        ("# escape=`\nARG A=x\\ B=a\nFROM $B", ("a",)),
        ("ARG A='x\\' B=a\nFROM $B", ("a",)),
        ('ARG O="--a \\"b\\" -c" A="a"\nFROM $A', ("a",)),
        ("ARG A=a # which one\nFROM $A", ("a",)),
        ("# escape=`\nFROM a`\n  AS b\nFROM b", ("a",)),
        ("FROM a\nONBUILD COPY --from=secret x y", ("a", "secret")),
        ("\ufeffFROM a\r\nRUN x\r\n", ("a",)),
        ("\u00a0FROM a", ("a",)),
        ("", ()),
        ("FROM", ()),
        # Flags may have quotes and escapes anywhere, and the last mount counts as the first one does.
        ('FROM a\nCOPY --fr"om=b" /x /', ("a", "b")),
        ("FROM a\nCOPY --fr'om'=b --from=c /x /", ("a", "b", "c")),
        ("FROM a\nCOPY --fr\\om=b /x /", ("a", "b")),
        ("FROM a\nCOPY -- --from=b /", ("a",)),
        ("FROM a\nCOPY x --from=b /", ("a",)),
        ('FROM a\nCOPY --from="b /x /', ("a", "b /x /")),
        ("FROM a\nRUN --mount=type=bind,from=b,target=/b true", ("a", "b")),
        ("FROM a\nRUN --mount=target=/b,FROM=b --mount=from=c,dst=/c true", ("a", "b", "c")),
        ('FROM a\nRUN --mount="type=bind,from=b",target=/b true', ("a", "b")),
        (
            "FROM a AS one\nFROM b\nRUN --mount=from=one,target=/x --mount=type=cache,target=/c true",
            ("a", "b"),
        ),
        ("FROM a\nRUN echo --mount=from=b", ("a",)),
        ("FROM a\nONBUILD RUN --mount=from=b,target=/x true", ("a", "b")),
        # Two escape characters do not continue a line; behind a single one there may be spaces and tabs only.
        ("FROM a\nRUN true \\\\\nCOPY --from=b x y", ("a", "b")),
        ("FROM a\nRUN true \\\v\nCOPY --from=b x y", ("a", "b")),
        ("FROM a\nRUN true \\\u00a0\nCOPY --from=b x y", ("a", "b")),
        ("FROM a\nRUN true \\\u2003\nCOPY --from=b x y", ("a", "b")),
        ("FROM a\nRUN true \\ \t\r\nCOPY --from=b x y", ("a",)),
        # A byte order mark is one in the first line alone.
        ("FROM a\nRUN --mount=type=cache,id=\\\n\ufeff#,from=b true", ("a", "b")),
        # Numbers are those of stages, as far as builders read them as such.
        ("FROM a\nCOPY --from=00 x y", ("a",)),
        ("FROM a\nCOPY --from=12345678901234567890 x y", ("a", "12345678901234567890")),
        ("FROM a\nCOPY --from=\u0661 x y", ("a", "\u0661")),
        # The classic builder knows a stage from its end on.
        ("FROM a AS b\nCOPY --from=b x y", ("a", "b")),
        ("FROM a AS b\nFROM c\nCOPY --from=b x y", ("a", "c")),
        # Builders turn some letters into ASCII ones.
        ("FROM a\nONBU\u0130LD COPY --from=b x y", ("a", "b")),
        ("FROM a\nONBUILD\tCOPY\t--from=b x y", ("a", "b")),
        ("# a comment\n# escape=`\nFROM a\nRUN x `\nCOPY --from=b x y", ("a", "b")),
        ("\n# escape=`\nFROM a\nRUN x `\nCOPY --from=b x y", ("a", "b")),
        ("# syntax=docker/dockerfile:1\n# escape=`\nFROM a\nRUN x `\nCOPY --from=b x y", ("a",)),
        ("FROM a\nRUN true \\\nCOPY --from=b x y", ("a",)),
        ("FROM $NOWHERE\nFROM ${NOWHERE} AS x", ()),
    ],
)
def test_images(dockerfile: str, expected: tuple[str, ...]) -> None:
    assert images_of(dockerfile.encode(), {"GIVEN": "from-outside"}) == expected


REMOTE = (
    "ADD http://127.0.0.1:8000/-/apps/alpha /x",
    "ADD https://169.254.169.254/latest/meta-data/ /x",
    "add\thttp://[::1]/ /x",
    "ADD --chown=1:1 a http://localhost/ /x/",
    'ADD ["http://127.0.0.1/", "/x"]',
    'ADD ["\\u0068ttp://127.0.0.1/", "/x"]',
    'ADD --chown=1 [ "a", "http:\\/\\/127.0.0.1/" , "/x" ]',
    "ADD h\\ttp://127.0.0.1/ /x",
    "ADD 'http'://127.0.0.1/ /x",
    'ADD htt"p:"//127.0.0.1/ /x',
    "ADD \\\n  http://127.0.0.1/ \\\n  /x",
    "ADD ht\\\ntp://127.0.0.1/ /x",
    "ADD $URL /x",
    "ADD h${NOTHING}ttp://x /x",
    "ADD git://127.0.0.1/x.git /x",
    "ADD git@127.0.0.1:x.git /x",
    "ADD --chmod=7'5'5 http://127.0.0.1/ /x",
    "ONBUILD ADD http://127.0.0.1/ /x",
    "onbuild  add http://127.0.0.1/ /x",
    "ONBUILD ADD $X /x",
    # Some builders ignore what is behind a list.
    'ADD ["http://127.0.0.1/","/x"]junk',
    'ADD ["http://127.0.0.1/", "/x"] junk',
    "ADD a \\\n\ufeff# http://127.0.0.1/ /x/",
    "LABEL a=b\\\v\nADD http://127.0.0.1/ /x",
    "LABEL a=b\\\u00a0\nADD http://127.0.0.1/ /x",
)


@pytest.mark.parametrize("instruction", REMOTE)
@pytest.mark.parametrize("before", ["FROM a\n", "FROM a\nENV URL=http://127.0.0.1/\nARG X\n"])
def test_what_the_engine_would_fetch_is_refused(before: str, instruction: str) -> None:
    with pytest.raises(Stalled, match=r"line [0-9]+ of the Dockerfile, ADD") as caught:
        images_of(f"{before}{instruction}\n".encode(), {})
    assert caught.value.reason == "BuildRefused"


@pytest.mark.parametrize(
    ("dockerfile", "why"),
    [
        ("FROM a\nADD a \\\n\x1c# http://127.0.0.1/ /x/", r"line 3 .*remove it"),
        ("FROM a\nRUN x\\\r\r\nADD http://127.0.0.1/ /x", r"line 2 .*remove it"),
        # Which of these comments set the escape character depends on the builder.
        ("#\u00a0escape=`\nFROM a\nRUN x`\nADD http://127.0.0.1/ /x", "line 1 .*# escape"),
        ("# foo=bar\n# escape=`\nFROM a\nRUN x`\nADD http://127.0.0.1/ /x", "line 2 .*# escape"),
        ("# check=skip=all\n# escape=`\nFROM a", "line 2 .*# escape"),
        (" # escape=`\nFROM a", "line 1 .*# escape"),
        ("# escape=` x\nFROM a", "line 1 .*# escape"),
    ],
)
def test_what_builders_read_differently_is_refused(dockerfile: str, why: str) -> None:
    with pytest.raises(Stalled, match=why) as caught:
        images_of(dockerfile.encode(), {})
    assert caught.value.reason == "BuildRefused"


@pytest.mark.parametrize(
    "instruction",
    [
        "ADD a.tar.gz /x",
        "ADD --chown=1:1 a b $WORKDIR/",
        'ADD ["a b", "/x"]',
        "RUN curl http://example.org/ > /x",
        "ENV URL=http://127.0.0.1/",
        "COPY a $X /x",
        "# ADD http://127.0.0.1/ /x",
        "RUN true \\\n# ADD http://127.0.0.1/ /x\n  && false",
        "ADD",
        "ONBUILD",
        "ADD [",
    ],
)
def test_what_stays_within_the_context_is_not(instruction: str) -> None:
    assert images_of(f"FROM a\n{instruction}\n".encode(), {}) == ("a",)


@pytest.mark.parametrize("name", ["${A%x}", "$1", "${A:?no}", "\\$A", "${A", "a$"])
def test_a_base_that_cannot_be_told_is_refused(name: str) -> None:
    with pytest.raises(Stalled, match="cannot determine the image"):
        images_of(f"ARG A=x\nFROM {name}".encode(), {})


@pytest.mark.parametrize(
    "arguments",
    [
        "ARG A=''\"\"",
        "ARG A=b'c'",
        "ARG A=b\\c",
        "ARG B=x\nARG A='$B'",
        "ARG B=x A=${B:-y}",
        "ARG A=x\nARG A",
        "ARG A=x A",
        "ARG A=${B-}",
        "ARG A=$TARGETARCH",
    ],
)
@pytest.mark.parametrize("name", ["$A", "${A:-b}", "${A:+b}"])
def test_a_value_that_builders_read_differently_names_no_base(arguments: str, name: str) -> None:
    images_of(f"{arguments}\nFROM a\nLABEL a=$A".encode(), {})
    with pytest.raises(Stalled, match="cannot determine the image"):
        images_of(f"{arguments}\nFROM {name}".encode(), {})


@pytest.mark.parametrize("argument", ["$B=b", "'A'=b", '["A=b"]', '"A=b"', "A\\B=b", "${B}"])
def test_the_name_of_an_argument_is_written_out(argument: str) -> None:
    with pytest.raises(Stalled, match="line 2 of the Dockerfile, ARG: write the name"):
        images_of(f"ARG B=A\nARG {argument}\nFROM a".encode(), {})


@pytest.mark.parametrize("name", ["a:$TARGETARCH", "${BUILDPLATFORM}", "a${TARGETVARIANT:+x}"])
def test_a_base_that_only_one_builder_can_tell_is_refused(name: str) -> None:
    with pytest.raises(Stalled, match="without a variable of the platform"):
        images_of(f"ARG TARGETARCH=x\nFROM --platform=$BUILDPLATFORM {name}".encode(), {})


@pytest.mark.parametrize(
    "mount", ["from=a,from=b", "source=a,src=b", '"from=a"', "type=bind, from=a", "FROM=a,from=b"]
)
def test_a_mount_that_two_builders_may_read_differently_is_refused(mount: str) -> None:
    with pytest.raises(Stalled, match=r"line 2 of the Dockerfile, RUN: .*`--mount`"):
        images_of(f"FROM x\nRUN --mount='{mount}',target=/x true".encode(), {})


@pytest.mark.parametrize("source", ["$X", "${X}", "a$X"])
def test_an_image_to_copy_from_is_written_out(source: str) -> None:
    with pytest.raises(Stalled, match="without variables"):
        images_of(f"FROM a\nCOPY --from={source} x y".encode(), {})


@given(st.binary(max_size=80) | st.text("FROMADCPY $\\\n#`[]\"'{}:=-/", max_size=60).map(str.encode))
def test_whatever_it_is(content: bytes) -> None:
    """And no line belongs to two instructions."""
    try:
        found, _ = instructions(content)
        lines = [(one.first, one.last) for one in found]
        assert lines == sorted(lines)
        assert all(first <= last for first, last in lines)
        images_of(content, {})
    except Stalled as refused:
        assert refused.reason == "BuildRefused"
