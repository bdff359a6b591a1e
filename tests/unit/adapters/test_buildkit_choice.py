"""Which builder builds a Dockerfile, and what BuildKit is given."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.adapters.docker.buildkit.choice import Builder, choose, needs, prepare, refused_argument
from controller.adapters.docker.dockerfile import images_of, instructions
from controller.domain.errors import Stalled

OLD, NEW = 20, 28  # versions of the engine


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM a\nRUN true", []),
        ("# syntax=docker/dockerfile:1\nFROM --platform=linux/amd64 a\nCOPY --chown=1 a b", []),
        ("FROM a\nRUN --mount=type=cache,target=/c true", [(2, "RUN --mount")]),
        ("FROM a\nRUN \\\n  --mount=type=cache,target=/c true", [(2, "RUN --mount")]),
        ("FROM a\nRUN --mo'unt'=target=/c --network=none true", [(2, "RUN --mount"), (2, "RUN --network")]),
        ("FROM a\nONBUILD COPY --chmod=1 a b", [(2, "COPY --chmod")]),
        ("FROM a\nADD --checksum=sha256:1 a b", [(2, "ADD --checksum")]),
        ("FROM a\nRUN echo --mount=x", []),
        ("FROM a\nRUN <<EOF\ntrue\nEOF", [(2, "RUN with a heredoc (<<)")]),
        ("FROM a\nCOPY <<-'x.py' /x\nx.py", [(2, "COPY with a heredoc (<<)")]),
        ("FROM a\nRUN cat <<< x && echo $((1<<2)) $((x << 2))", []),
        ("FROM a\nLABEL a=<<EOF", []),
    ],
)
def test_needs(text: str, expected: list[tuple[int, str]]) -> None:
    assert [(need.line, need.what) for need in needs(text.encode())] == expected


NEEDED = needs(b"FROM a\nRUN --mount=target=/c true")


@pytest.mark.parametrize(
    ("wanted", "network", "needed", "expected"),
    [
        ("auto", "own", (), Builder.CLASSIC),
        ("auto", "own", NEEDED, Builder.BUILDKIT),
        ("auto", "none", (), Builder.BUILDKIT),
        ("auto", "bridge", (), Builder.BUILDKIT),
        ("classic", "none", (), Builder.CLASSIC),
        ("buildkit", "own", (), Builder.BUILDKIT),
    ],
)
def test_which_builder(wanted: str, network: str, needed: tuple[()], expected: Builder) -> None:
    """By itself, the one that keeps steps in a network of ours, unless they have none anyway."""
    assert choose(wanted, network, needed) is expected


def test_what_the_classic_builder_lacks_is_named() -> None:
    with pytest.raises(Stalled, match=r"line 2 of the Dockerfile: RUN --mount needs BuildKit") as caught:
        choose("classic", "own", NEEDED)
    assert caught.value.reason == "BuildRefused"


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("FROM a", "FROM a"),
        ("# syntax=docker/dockerfile:1\nFROM a", "#\nFROM a"),
        ("\ufeff# syntax = docker.io/docker/dockerfile:1.7-labs \r\nFROM a", "#\nFROM a"),
        ("# syntax=docker/dockerfile:1\n# escape=`\nFROM a", "# escape=`\n#\nFROM a"),
        ("#Escape=`\n#check=skip=all\n#SYNTAX=docker/dockerfile\nFROM a", "# escape=`\n#\n#\nFROM a"),
        ("# a comment\n# syntax=evil/x\nFROM a", "#\n#\nFROM a"),
        # Comments that some builders read as directives, so that those below them count.
        ("# check=\u00a0\n# syntax=evil/x\nFROM a", "#\n#\nFROM a"),
        ("#\u00a0a=b\n\n# syntax=docker/dockerfile\nFROM a", "#\n#\n#\nFROM a"),
        ('\n{"syntax": "evil/x"}', '#\n{"syntax": "evil/x"}'),
        ("FROM a\n# syntax=evil/x", "FROM a\n# syntax=evil/x"),
    ],
)
def test_the_engines_own_frontend_is_used(text: str, sent: str) -> None:
    """And its lines are those of the developer."""
    assert prepare(text.encode(), NEW, ()).content.decode() == sent


@pytest.mark.parametrize(
    "syntax", ["evil/x", "docker/dockerfile:1 x", "docker/dockerfile@sha256:1", "docker/dockerfilex", "x\\"]
)
def test_other_frontends_are_refused(syntax: str) -> None:
    with pytest.raises(Stalled, match=r"line 2 of the Dockerfile, syntax"):
        prepare(f"# escape=`\n# syntax={syntax}\nFROM a".encode(), NEW, ())


@pytest.mark.parametrize(
    ("text", "judged"),
    [
        ("RUN <<EOF\nFROM b\nEOF\nRUN x", "RUN <<EOF\n\n\nRUN x"),
        ("RUN <<-EOF\n\tFROM b\n\t\tEOF\nRUN x", "RUN <<-EOF\n\n\nRUN x"),
        ('RUN 3<<"A" 0<<B cat\n1\nA\r\n2\nB\nRUN x', 'RUN 3<<"A" 0<<B cat\n\n\n\n\nRUN x'),
        ("COPY --chmod=755 <<EOF /x\na\nEOF", "COPY --chmod=755 <<EOF /x\n\n"),
        ("RUN cat <<EOF > '$x'\na\nEOF", "RUN cat <<EOF > '$x'\n\n"),
        ("RUN echo $((1<<2)) <<< x\nRUN x", "RUN echo $((1<<2)) <<< x\nRUN x"),
        ("LABEL a='<<EOF'\nRUN x", "LABEL a='<<EOF'\nRUN x"),
    ],
)
def test_texts_of_heredocs_are_no_instructions(text: str, judged: str) -> None:
    found = prepare(f"FROM a\n{text}".encode(), NEW, ())
    assert found.judged.decode() == f"FROM a\n{judged}"
    assert found.content.decode() == f"FROM a\n{text}"


@pytest.mark.parametrize(
    "line",
    [
        'RUN echo " <<EOF"',
        "RUN echo 'a' <<EOF",
        "RUN echo \\\\ <<EOF",
        "RUN x 1<<2",
        "RUN ${x:-}<<EOF",
        "RUN echo $x <<EOF",
        "RUN <<EOF <<'B C'",
        "RUN <<",
        "ONBUILD RUN x 1<<2",
        'COPY <<"EOF /x',
    ],
)
def test_heredocs_that_may_be_read_differently_are_refused(line: str) -> None:
    """What follows could be an instruction for one side and a text for the other one."""
    with pytest.raises(Stalled, match="line 2 of the Dockerfile"):
        prepare(f"FROM a\n{line}\nCOPY --from=secret x y\nEOF\n2\n".encode(), NEW, ())


def test_older_engines_do_not_know_heredocs() -> None:
    with pytest.raises(Stalled, match=r"line 2 .*need Docker Engine 23"):
        prepare(b"FROM a\nRUN <<EOF\ntrue\nEOF", OLD, ())
    with pytest.raises(Stalled, match="has no line EOF"):
        prepare(b"FROM a\nRUN <<EOF\ntrue", NEW, ())


@pytest.mark.parametrize(
    ("mount", "words"),
    [
        ("type=ssh", "type ssh"),
        ("type=SSH,target=/x", "type ssh"),
        ("type=$T", "type"),
        ("type=secret,id=b", "'b' is not declared"),
        ("type=secret,source=b", "'b' is not declared"),
        ("type=secret,dst=/run/b", "'b' is not declared"),
        ("type=secret,id=$B", "is not declared"),
    ],
)
@pytest.mark.parametrize(
    "before", ["RUN", "ONBUILD RUN", "ONBUILD RUN\t", "ONBU\u0130LD RUN", "RUN --network=none"]
)
def test_mounts_that_are_refused(before: str, mount: str, words: str) -> None:
    with pytest.raises(Stalled, match=words) as caught:
        prepare(f"FROM a\n{before} --mount={mount} true".encode(), NEW, ("a",))
    assert caught.value.reason == "BuildRefused"


def test_mounts_of_declared_secrets() -> None:
    for mount in (
        "type=secret,id=a,target=/x",
        "target=/run/a,type=secret",
        "type=cache,target=/c",
        "from=b,target=/b",
    ):
        assert prepare(f"FROM a\nRUN --mount={mount} true".encode(), NEW, ("a",)).runs
    assert not prepare(b"FROM a\nCOPY a b", NEW, ()).runs


def test_arguments_of_buildkit_itself() -> None:
    assert refused_argument(["A", "BUILDKIT_SYNTAX"]) == "BUILDKIT_SYNTAX"
    assert refused_argument(["A", "MY_BUILDKIT_X"]) is None


TEXTS = st.text("FROMRUNCPYx=-<\"'\\\n\t $E2`#{}[],:/", max_size=80).map(
    lambda text: f"FROM a\n{text}\n".encode()
)


@given(TEXTS, st.sampled_from((OLD, NEW)))
def test_nothing_is_judged_that_is_not_sent(content: bytes, engine: int) -> None:
    """Lines stay where they are, and those that are judged are sent."""
    try:
        found = prepare(content, engine, ())
        images_of(found.judged, {})
    except Stalled:
        return
    sent, judged = found.content.split(b"\n"), found.judged.split(b"\n")
    assert len(sent) == len(judged) == len(content.split(b"\n"))
    assert all(one in (b"", other) for one, other in zip(judged, sent, strict=True))
    if engine == OLD:
        assert instructions(found.content) == instructions(found.judged)
