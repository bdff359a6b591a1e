"""Nothing that comes from Git, containers and callers makes a terminal do anything."""

from __future__ import annotations

import ast
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from controller.cli import output
from controller.domain.apps.status import Event, EventType
from controller.domain.names import AppName
from controller.domain.reasons import Reason
from controller.domain.text import Shown, printable, shown
from controller.web.api.platform.deliveries import event_document
from controller.yaml_documents import parse
from tests.support.pages import ROOT

#: Titles, clipboards, answers typed in by the terminal itself, moves, other character sets, hidden and turned text.
HOSTILE = [
    "\x1b]0;title\x07",
    "\x1b]52;c;cm0gLXJmIC8=\x07",
    "\x1b[2J\x1b[H",
    "\x1b[6n",
    "\x1b[8m hidden \x1b[0m",
    "\x1bc",
    "\x1bP$q\x1b\\",
    "\x1b(0",
    "\x9b2J",
    "\x9d0;title\x9c",
    "\x08\x08\x08",
    "\x07",
    "\x0e",
    "\x7f",
    "\u202egnp.exe",
    "\u2066x\u2069",
    "\u200b\u200d\u2060\ufeff",
    "\u206a\u206f",
    "\U000e0001\U000e0061\U000e007f",
    "\ud83d",
    "\udc9b",
]
PRINTS = re.compile(r"print|(click|rich)\.(s?echo|print)|Text|.*std(out|err)(\.buffer)?\.write")
OBEYED = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2060-\u206f\ufeff\ud800-\udfff\U000e0000-\U000e007f]"
    "|[\x20-\x7e]\u200d"
)


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
@pytest.mark.parametrize("terminal", [False, True])
def test_every_way_to_the_terminal_is_clean(
    text: str, terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    dirty = f"before {text} after"
    output.echo(dirty)
    output.print_message(dirty)
    output.write(dirty)
    output.print_error(Reason(dirty), dirty)
    output.show_table(("NAME",), [(dirty,)])
    output.show_json({dirty: [dirty]})
    output.show_yaml({dirty: [dirty]})
    output.show_value(dirty)
    output.show_view((dirty, output.Table(("NAME",), ((dirty,),))))
    output.console().print(output.label(dirty))
    event = Event(AppName("demo"), EventType.NORMAL, Reason(dirty), dirty)
    output.echo(output.event_line(event_document(event)))
    seen = capsys.readouterr()
    assert "before" in seen.out
    assert not OBEYED.findall(re.sub(r"\x1b\[(0|31)m", "", seen.out + seen.err))  # those are our own


@given(st.text(st.characters(codec=None), max_size=40), st.lists(st.integers(0, 60), max_size=5))
def test_pieces_are_as_the_whole(text: str, cuts: list[int]) -> None:
    data = text.encode("utf-8", "surrogatepass")
    reader, shown_parts, last = Shown(), [], 0
    for cut in sorted(cuts):
        shown_parts.append(reader.take(data[last:cut]))
        last = max(last, cut)
    shown_parts.append(reader.take(data[last:], last=True))
    assert not OBEYED.search("".join(shown_parts))


@pytest.mark.parametrize("size", range(1, 9))
def test_colours_and_characters_that_a_piece_cuts_through(size: int) -> None:
    data = "a\x1b[31mred\x1b[0m \x1b]0;t\x07é😀\r50%\r\nend\n".encode() + b"\xe9\xff"
    reader = Shown()
    text = "".join(reader.take(data[i : i + size]) for i in range(0, len(data), size)) + reader.take(
        b"", last=True
    )
    assert text == "ared é😀\r50%\r\nend\n\\xe9\\xff"


@pytest.mark.parametrize("size", range(1, 9))
def test_emoji_that_a_piece_cuts_through(size: int) -> None:
    data = "\U0001f468\u200d\U0001f469 ad\u200dmin \u2764\ufe0f\u200d\U0001f525".encode()
    reader = Shown()
    text = "".join(reader.take(data[i : i + size]) for i in range(0, len(data), size))
    assert text + reader.take(b"", last=True) == shown(data.decode())


@given(st.text(st.characters(codec=None), max_size=60))
@example("\u200b \U000e0001 a\u200d \U0001f468\u200d\U0001f469 \u206a\x7f\x9b\xad")
def test_json_says_the_same(text: str) -> None:
    stream = io.StringIO()
    before, sys.stdout = sys.stdout, stream
    try:
        output.show_json({"text": text})
    finally:
        sys.stdout = before
    assert json.loads(stream.getvalue())["text"].encode("utf-16", "surrogatepass") == text.encode(
        "utf-16", "surrogatepass"
    )
    assert not OBEYED.search(stream.getvalue())


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=60))
@example("\u200b \U000e0001 a\u200d \U0001f468\u200d\U0001f469 \u206a\x7f\x9b\xad")
def test_yaml_says_the_same(text: str) -> None:
    stream = io.StringIO()
    before, sys.stdout = sys.stdout, stream
    try:
        output.show_yaml({"text": text, text: [None, True, 1, 1.5, {}, []]})
    finally:
        sys.stdout = before
    (document,) = parse("output", stream.getvalue().encode()).documents
    assert document.value == {"text": text, text: [None, True, 1, 1.5, {}, []]}
    assert not OBEYED.search(stream.getvalue())


@pytest.mark.parametrize(
    "word", ["yes", "No", "on", "OFF", "y", "true", "null", "~", "1", "1e3", "0x1f", "- a"]
)
def test_yaml_quotes_what_readers_take_for_something_else(
    word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output.show_yaml([word])
    assert capsys.readouterr().out == f"- '{word}'\n"


def test_what_is_shown_is_as_printable_but_for_the_start_of_the_line() -> None:
    assert shown("10%\r20%\x1b[2J\x07") == "10%\r20%\\x07"
    assert printable("10%\r20%") == "10%\\x0d20%"


def test_no_command_prints_by_itself() -> None:
    """`output` is the one way: click's own, print and the streams are for it alone; files' content is not printed."""
    found: list[str] = []
    for path in sorted((ROOT / "controller" / "cli").glob("*.py")):
        if path.name == "output.py":
            continue
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        names = [(ast.unparse(call.func), call.lineno) for call in calls]
        found += [f"{path.name}:{line}: {name}" for name, line in names if PRINTS.fullmatch(name)]
    assert found == []


def test_a_bug_s_traceback_is_clean(tmp_path: Path) -> None:
    """Python's own would quote the error as it is."""
    code = (
        "import controller.cli.main as m\n"
        "def raising(*a, **k): raise RuntimeError('\\x1b]0;title\\x07 quoted')\n"
        "m.prichal.main = raising\n"
        "m.main([])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "RuntimeError" in done.stderr
    assert "quoted" in done.stderr
    assert not OBEYED.search(done.stderr)
