"""What matches, parses or rewrites what others wrote takes time in proportion to its length.

Each gets a text of a quarter of a megabyte that is the worst for an expression which tries all ways. What takes the
square of that is not done within the limit of a test.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from controller import yaml_documents
from controller.adapters.docker.context import labelled
from controller.adapters.docker.error_rules import from_answer
from controller.adapters.git import known_hosts
from controller.adapters.git.faults import rule_of
from controller.adapters.objects.error_rules import from_body
from controller.domain.apps.smoke import SmokeAnswer, SmokeCase, verdict
from controller.domain.apps.spec import SmokeTest
from controller.domain.apps.versions import is_range
from controller.domain.errors import ManifestProblem
from controller.domain.host_paths import without_host_paths
from controller.domain.text import matches_glob, printable
from controller.domain.units import parse_size
from controller.serving import docstring, http1, jsontext
from controller.serving.chat import ChatReader
from controller.serving.datatypes import Datatype
from controller.serving.oip import TensorCall
from controller.serving.problems import ServingProblem
from controller.serving.signature import Signature, Variable
from controller.serving.streams import wants_events
from controller.web.gateway.frames import FrameTracker
from controller.web.gateway.upgrade import judge_origin

SIZE = 250_000
STATE = Path("/var/lib/prichal")


def filled(*pieces: str) -> list[str]:
    """Each piece again and again, and with something at the end that lets nothing fit."""
    return [piece * (SIZE // len(piece)) + end for piece in pieces for end in ("", "\0!")]


def _dockerfile_errors(text: str) -> None:
    many = labelled(b"FROM a\n" * 20_000, {"k": "v"})
    many.translated(text)


def _size(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        parse_size(text)


def _tensor(text: str) -> None:
    """A request of the Open Inference Protocol, if it is one, up to what the function would get."""
    call = TensorCall("net", {"x": Variable("x", (Datatype.FP64,), True, "")})
    request = http1.HttpRequest("POST", "/v2/models/net/infer", {}, False)
    request.body = text.encode()
    with suppress(ServingProblem):
        call.read(request)


def _chat(text: str) -> None:
    variables = (Variable("messages", (Datatype.DICT,), False, ""),)
    reader = ChatReader("net", Signature(variables, (), "", ""), lambda _: [])
    with suppress(ServingProblem, ValueError):
        reader.read(jsontext.read(text))


def _chats(message: str) -> str:
    many = ",".join([message] * 20_000)
    return f'{{"model": "net", "messages": [{many}]}}'


SMOKE = SmokeCase(
    SmokeTest("/predict", "in.json", "out.json", False, 0.1),
    b"{}",
    f'{{"{"n" * 100_000}": [{"1," * 70_000}1]}}'.encode(),
)


def _nested(levels: int, inner: str) -> str:
    data = "[" * levels + inner + "]" * levels
    return f'{{"inputs": [{{"name": "x", "datatype": "FP64", "data": {data}}}]}}'


CASES: dict[str, tuple[Callable[[str], object], list[str]]] = {
    "paths of the host": (
        lambda text: without_host_paths(text, STATE),
        filled(
            "/vfs/",
            "/overlay2",
            "/overlay2/x/merge",
            "/",
            "unix://",
            f"{STATE}/",
            f"{STATE}/runs/",
            "http+docker://",
        ),
    ),
    "answers of engines": (
        lambda text: from_answer(text, "cannot start x"),
        filled(
            "env var ",
            "envvar",
            "manifest for ",
            "exec",
            "failed to resolve reference ",
            "the working directory '",
            "\t",
        ),
    ),
    "away engines": (
        lambda text: from_answer(text, "cannot start x", 503),
        filled("\t", "<", " ", "service unavailable"),
    ),
    "tensors": (
        _tensor,
        [
            _nested(10_000, "1"),
            _nested(50, "1," * 100_000 + "1"),
            _nested(31, "1," * 100_000 + "1"),
            _nested(1, "[" * 30 + "1" + "]" * 30 + (",[" + "[" * 29 + "1" + "]" * 29 + "]") * 5_000),
            _nested(1, "[],[" * 50_000 + "]" * 50_000),
            _nested(1, "[1]," * 60_000 + "[1,2]"),
            *filled('{"inputs":[', '{"a":[', "[", "1e1", "9"),
        ],
    ),
    "chats": (
        _chat,
        [*filled('{"role":', "[", "9"), _chats("{}"), _chats('{"role": "user", "content": [7]}')],
    ),
    "answers to smoke tests": (
        lambda text: verdict(SMOKE, SmokeAnswer(200, text.encode())),
        [
            f'{{"{"n" * 100_000}": [{"1," * 70_000}2]}}',
            "[" * 900 + "]" * 900,
            *filled("[", '{"a":', "9", "1,"),
        ],
    ),
    "frames": (
        lambda text: FrameTracker().feed(text.encode("latin-1")),
        filled("\x82\0", "\x82\x80mask", "\x82\x7e\0\0", "\x82", "\xff", "\x82\x7f" + "\xff" * 8),
    ),
    "origins": (
        lambda text: judge_origin([(b"origin", text.encode())], b"a", None),
        filled("https://", "http:", "/", "@", ":", "[", "%", "a."),
    ),
    "fields of what is accepted": (
        lambda text: wants_events(http1.HttpRequest("POST", "/predict", {b"accept": text.encode()}, False)),
        filled(",", ";", "text/event-stream;q=0,", "q=1;", " "),
    ),
    "answers of Git servers": (
        lambda text: rule_of(ValueError(text)),
        filled("failed to ", "unexpected ", " "),
    ),
    "answers of storages": (
        lambda text: from_body(500, f"<E><Message>{text}</Message></E>".encode(), "x"),
        filled("no ", " ", "quota"),
    ),
    "known hosts": (
        lambda text: known_hosts.trusted(known_hosts.parse(text), "a" * 255),
        filled("*a", "*", "?", "*a,", "|1|a|"),
    ),
    "stars": (lambda text: matches_glob("*a" * 500 + "b", text), [text[:4000] for text in filled("a")]),
    "errors of builders": (_dockerfile_errors, filled("line 7 ", "line 99999999 ", "line ")),
    "Dockerfiles": (
        lambda text: labelled(text.encode(), {"k": "v"}),
        filled("# a = ", "#a=", "FROM a\n", "FROM a \\\n", "#", "# escape=`\n", "\\\n", "\t", "RUN <<a\n"),
    ),
    "sizes": (
        _size,
        [f"{text}x" for text in filled("9", ".", "9.")],
    ),
    "ranges of versions": (is_range, filled("1.", "x ", ">", ">=1,", "-", "1 - ", "a-", "||", " ")),
    "docstrings": (
        docstring.parse,
        filled(
            ":param ",
            ":",
            " ",
            ":param inputs.",
            "\t:",
            "a or ",
            ":type inputs.x: a or ",
            ":param inputs.a: b\n",
            "\n",
        ),
    ),
    "descriptions of arguments": (
        docstring.remarks,
        filled(":param ", ":param a: ", " ", ":", "\n", "a\n", ":returns: "),
    ),
    "docstrings of types": (
        docstring.parse,
        [f":type inputs.x: {text}" for text in filled("a or ", " or", ",", "FP32 or ")],
    ),
    "what is shown": (
        printable,
        filled("\x1b[", "\x1b]", "\x1b[0", "\x1b]a", "\ud83d", "\r", "\r\n", "\u202e"),
    ),
    "YAML": (
        lambda text: yaml_documents.parse("x", text.encode("utf-8", "replace")),
        [
            f"{before}{text}"
            for before in ("a: ", 'a: "', "a: '", "a: !", "a: &", "a: |\n  ", "%TAG !a! ", "? ", "%YAML 1.1")
            for text in filled(
                "x", " ", "\n", "9", "- ", "[", "{", "%41", "\\x41", "''", "b\n  ", "? ", ": ", "!", "# c\n"
            )
        ],
    ),
}


@pytest.mark.parametrize("kind", CASES)
def test_time_grows_with_the_length(kind: str) -> None:
    read, texts = CASES[kind]
    for text in texts:
        read(text)


@pytest.mark.parametrize(
    "text",
    ['a: "\\UFFFFFFFF"', 'a: "\\U00110000"', f"%YAML 1.{'1' * 5000}\n---\na: 1\n", f"a: !{'x' * 2000} b"],
)
def test_what_the_parser_of_yaml_stumbles_over_is_a_problem_of_the_file(text: str) -> None:
    assert [type(problem) for problem in yaml_documents.parse("x", text.encode()).problems] == [
        ManifestProblem
    ]
