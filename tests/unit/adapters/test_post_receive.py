"""What a hook prints for a push: how it waits for a platform that is not ready for it, and its last line."""

from __future__ import annotations

import hmac
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.adapters import post_receive
from controller.adapters.post_receive import (
    CONFIG,
    DELETED,
    RETRIES,
    NoAnswer,
    announce,
    print_news,
    pusher,
    read_object,
    text_object,
    verdict,
)

WHY = "cannot start a.0: unable to find user app"
SERVES = "a: version 1d0c keeps serving."


@pytest.mark.parametrize(
    ("message", "told", "wanted"),
    [
        ("1 component as declared", ["1 component as declared"], ""),
        (f"a: {WHY}", [WHY], ": a: see above"),
        (f"{SERVES} {WHY}", [WHY, SERVES], ": see above"),
        (f"{SERVES}\n  {WHY}", [SERVES, WHY], ": see above"),
        (f"a: {WHY}; b: {WHY}", [WHY], ": a: see above; b: see above"),
        (f"{SERVES} {WHY}", [WHY], f": {SERVES} see above"),
        ("the disk is full", ["", "built"], ": the disk is full"),
        ("the classifier is unfit", ["class", "fit", "is"], ": the classifier is unfit"),
        ("prechecked by the checker", ["checked by the check"], ": prechecked by the checker"),
        (f"{SERVES} {WHY}", [WHY[:-4], WHY], f": {SERVES} see above"),
    ],
)
def test_a_verdict_refers_once_to_what_was_printed(message: str, told: list[str], wanted: str) -> None:
    line = verdict({"outcome": "Stalled", "message": message}, 1.0, told)
    assert line.endswith(f"after 1.0 s{wanted}")


WORDS = st.text("abc .:()\\", min_size=1, max_size=30)


@given(
    st.lists(WORDS, max_size=5), st.lists(WORDS, max_size=5), st.sampled_from(["Failed", "Degraded", "Odd"])
)
def test_a_verdict_loses_nothing_that_was_not_printed(
    parts: list[str], told: list[str], outcome: str
) -> None:
    message = "|".join(parts)
    line = verdict({"outcome": outcome, "message": message}, 1.0, told)
    shown = line.partition(" after 1.0 s")[2].removeprefix(": ")
    if shown:
        pieces = [re.escape(piece) for piece in re.split(r"see above", shown)]
        assert re.fullmatch("(?:.|\n)*".join(pieces), message)
    else:
        assert not message or any(message in event for event in told)
    assert "see above see above" not in line


# --- a platform that is not ready for it ------------------------------------------------------------------------

CHANGE = f"{DELETED} {'1' * 40} refs/heads/main"
DOWN = NoAnswer("the platform does not answer at 127.0.0.1:8000", passing=True)
BUSY = NoAnswer("the platform answers 503: try again", "503", passing=True)
UNKNOWN = NoAnswer("the platform answers 404: No repository of this name has a webhook", "404")
REFUSED = NoAnswer("the platform answers 401: the signature is wrong", "401")


class Platform:
    """Answers announcements in turn with these errors, then accepts."""

    def __init__(self, *errors: NoAnswer) -> None:
        self.errors = list(errors)
        self.asked = 0

    def announce(self, before: str, after: str, ref: str) -> dict[str, Any]:
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)
        return {"id": "7", "links": {"self": "/-/hooks/demo/7"}}


def announced(platform: Any, timeout: float) -> list[str]:
    return [id for id, _ in announce(platform, [CHANGE], timeout, pause=0.0)]


@pytest.mark.parametrize("errors", [[DOWN], [BUSY] * RETRIES, [DOWN, BUSY, DOWN]])
def test_a_platform_that_is_started_again_is_waited_for(errors: list[NoAnswer]) -> None:
    assert announced(Platform(*errors), timeout=0.0) == ["7"]


def test_a_new_repository_is_waited_for_and_the_pusher_is_told_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    platform = Platform(*[UNKNOWN] * 50, DOWN, *[UNKNOWN] * 50)
    assert announced(platform, timeout=1000.0) == ["7"]
    assert platform.asked == 102
    printed = capsys.readouterr().err
    assert printed.count("this repository is new: waiting") == 1
    assert "reconciling" in printed


@pytest.mark.parametrize(
    ("errors", "timeout", "asked"),
    [
        ([UNKNOWN], 0.0, 1),
        ([REFUSED], 1000.0, 1),
        ([DOWN] * 50, 1000.0, RETRIES + 1),
        ([BUSY] * 50, 0.0, RETRIES + 1),
    ],
)
def test_what_does_not_change_is_told_soon(errors: list[NoAnswer], timeout: float, asked: int) -> None:
    platform = Platform(*errors)
    with pytest.raises(NoAnswer) as caught:
        announced(platform, timeout)
    assert caught.value is errors[0]
    assert platform.asked == asked


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({"REMOTE_USER": "anna", "USER": "prichal-git"}, "anna"),
        ({"SSH_CONNECTION": "192.0.2.7 1 192.0.2.1 22", "USER": "bob"}, "bob"),
        ({"SSH_CONNECTION": "192.0.2.7 1 192.0.2.1 22"}, ""),
        ({"USER": "root"}, ""),
    ],
)
def test_who_pushes(environment: dict[str, str], name: str) -> None:
    assert pusher(environment) == name


def event(reason: str, message: str) -> dict[str, Any]:
    return {"id": 1, "reason": reason, "message": message, "component": ""}


BEGUN, READY = event("Building", "building Dockerfile in ."), event("BecameReady", "is ready")


@pytest.mark.parametrize(
    ("events", "build", "wanted"),
    [
        ([], "Step 1\nStep 2\n", ["| Step 1", "| Step 2"]),
        ([BEGUN, READY], "Step 1\n", ["building Dockerfile in .", "| Step 1", "is ready"]),
        ([READY], "Step 9\n", ["| Step 9", "is ready"]),
        ([BEGUN, READY], "", ["building Dockerfile in .", "is ready"]),
    ],
)
def test_lines_of_a_build_come_after_its_begin(
    capsys: pytest.CaptureFixture[str], events: list[dict[str, Any]], build: str, wanted: list[str]
) -> None:
    assert print_news(events, build) == [each["message"] for each in events]
    assert capsys.readouterr().err.splitlines() == [f"prichal: {line}" for line in wanted]


# --- what it does in place of modules that take long to import --------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=20,
)


@pytest.mark.slow
@given(st.dictionaries(st.text(), JSON), st.sampled_from([None, 2]))
def test_it_reads_json_as_the_module_does(content: dict[str, Any], indent: int | None) -> None:
    assert read_object(json.dumps(content, indent=indent) + "\n") == content


@given(st.text(st.sampled_from('{}[]":,.0123456789e-+ \n\tntruefalsNI\\u')))
def test_what_is_no_json_is_refused_as_by_the_module(text: str) -> None:
    try:
        wanted = json.loads(text)
    except ValueError:
        wanted = None
    if isinstance(wanted, dict):
        assert read_object(text) == wanted or wanted != wanted
    else:
        with pytest.raises(ValueError, match="this is not"):
            read_object(text)


def test_what_is_no_json_is_refused_without_the_module() -> None:
    """The interpreter's reader then lacks the class of its error."""
    code = (
        "import sys; sys.path.append(sys.argv.pop()); import post_receive\n"
        "for text in ('', '{', '{\"a\":}', '{\"a\" 1}', '{} x', '[1]', '{\"a\": \"'):\n"
        "    try: post_receive.read_object(text)\n"
        "    except ValueError as error: print(error)\n"
        "assert 'json' not in sys.modules"
    )
    folder = str(Path(post_receive.__file__).parent)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, folder], capture_output=True, text=True, check=True
    )
    assert len(done.stdout.splitlines()) == 7


@given(st.dictionaries(st.text(), st.text(st.characters())))
def test_it_writes_json_as_the_module_does(content: dict[str, str]) -> None:
    assert json.loads(text_object(content)) == json.loads(json.dumps(content))


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_it_signs_as_hmac_does(secret: bytes, content: bytes) -> None:
    assert post_receive._signature(secret, content) == hmac.new(secret, content, "sha256").hexdigest()


def test_it_imports_little_before_the_platform_is_told(tmp_path: Path) -> None:
    """Of what an interpreter without site-packages does not have, few modules: each costs every push some time."""
    (tmp_path / CONFIG).write_text('{"name": "demo", "url": "http://127.0.0.1:1", "secret": "x"}')
    folder = str(Path(post_receive.__file__).parent)
    code = (
        "import sys; sys.path.append(sys.argv.pop()); import post_receive\n"
        "def told(*_): print(*sys.modules); sys.exit()\n"
        "post_receive.PlatformClient._exchange = told\n"
        "post_receive.run()"
    )
    run = [sys.executable, "-I", "-S", "-c", code, str(tmp_path), folder]
    done = subprocess.run(run, input=CHANGE, capture_output=True, text=True, check=True)
    costly = {"json", "re", "socket", "hmac", "_hashlib", "ssl", "typing", "enum"}
    assert not set(done.stdout.split()) & costly


SHA2 = "import importlib as i; found = i.import_module('_sha2' if sys.version_info >= (3, 12) else '_sha256')"
LACKING = {
    "no JSON": "sys.modules['_json'] = None",
    "another reader": "import _json; del _json.make_scanner",
    "a reader that wants more": "import json, _json; _json.make_scanner = lambda like: like.array_hook",
    "a reader that reads otherwise": "import json, _json; _json.make_scanner = lambda like: lambda text, at: None",
    "no SHA-256": "sys.modules['_sha2'] = sys.modules['_sha256'] = None",
    "another SHA-256": f"{SHA2}; del found.sha256",
    "a SHA-256 that refuses": f"{SHA2}\ndef refusing(*_): raise ValueError\nfound.sha256 = refusing",
}


@pytest.mark.parametrize("lacking", LACKING.values(), ids=LACKING.keys())
def test_it_works_where_the_interpreter_has_something_else_built_in(tmp_path: Path, lacking: str) -> None:
    (tmp_path / CONFIG).write_text('{"name": "demo", "url": "http://127.0.0.1:1", "secret": "x"}')
    code = (
        f"import sys; {lacking}\n"
        "sys.path.append(sys.argv.pop()); import post_receive\n"
        "def told(_, request, timeout): print(request.decode()); sys.exit()\n"
        "post_receive.PlatformClient._exchange = told\n"
        "assert post_receive.read_object(' {\"a\": [1, \"\\u00e4\"]} ') == {'a': [1, '\u00e4']}\n"
        "for text in ('', '{', '{} x', '[1]'):\n"
        "    try: post_receive.read_object(text)\n"
        "    except ValueError: continue\n"
        "    raise AssertionError(text)\n"
        "post_receive.run()"
    )
    run = [sys.executable, "-I", "-S", "-c", code, str(tmp_path), str(Path(post_receive.__file__).parent)]
    done = subprocess.run(run, input=CHANGE, capture_output=True, text=True, check=True)
    head, _, body = done.stdout.strip().partition("\n\n")
    assert json.loads(body)["ref"] == "refs/heads/main"
    signature = hmac.new(b"x", body.encode(), "sha256").hexdigest()
    assert f"X-Signature: sha256={signature}" in head
