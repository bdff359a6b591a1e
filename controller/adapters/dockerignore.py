"""What a `.dockerignore` excludes from a build context, by the rules of the `docker build` command.

The classic builder expects its client to apply the file. The rules, quirks included, are those of the
client's library, https://github.com/moby/patternmatcher, and of the walk over the context that uses it.
Patterns become regular expressions in RE2, whose syntax is that of the client's language, and which match in
linear time. Used by the adapters of Git and Docker, which walk over different kinds of folders. Pure.
"""

from __future__ import annotations

import posixpath
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import re2

from controller.domain.errors import Stalled
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason

NAME = ".dockerignore"
#: The client refuses longer lines.
MAX_LINE = 65_535
MAX_PATTERNS = 2000
#: Bytes that the automata of all patterns may take; each pattern has at least 64 KiB, more than common ones
#: need.
MAX_MEMORY = 2**27
#: Patterns times files and folders in one walk: some tens of seconds.
MAX_JUDGEMENTS = 20_000_000
#: CPU seconds that one walk may take: matching a name takes at most the product of its length and the
#: pattern's, without the interpreter's lock, but either may be thousands of characters long.
MAX_SECONDS = 60.0
#: What the client considers white space. `str.strip` alone would remove some control characters, too.
_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
_NOT_UTF8 = re.compile("[\udc80-\udcff]")
_CLASS_CHARACTER = r"(?:\\[^\udc80-\udcff]|[^\\\]\-\udc80-\udcff])"
#: What Go's `filepath.Match` accepts: classes such as `[^a-z]` are closed, and `\` escapes something.
_SYNTAX = re.compile(rf"(?:[^\\\[]|\\.|\[\^?(?:{_CLASS_CHARACTER}(?:-{_CLASS_CHARACTER})?)++\])*+", re.DOTALL)
#: The part between two `*` outside of classes.
_CHUNK = re.compile(r"\**((?:\\.?|\[(?:\\.?|[^\]\\])*+\]?|[^*\[\\])*+)", re.DOTALL)
#: Without `{|}`, which the client intends to escape but does not.
_ESCAPED = frozenset(".+()$")

#: For a pattern that is not UTF-8, which the client cannot compile either.
_NONE = "("
#: For each pattern, whether it matches a folder, as far as this was checked; empty above the root.
Matched = tuple[bool, ...]


@dataclass(frozen=True)
class Pattern:
    """`text` is the pattern as cleaned by the client. An exception (`!`) includes what earlier patterns
    exclude.
    """

    text: str
    exception: bool
    expression: str

    def covers(self, folder: str) -> bool:
        """Return whether it is an exception below the folder. One like `!**/x` is not, nor is it for the
        client.
        """
        return self.exception and f"{self.text}/".startswith(f"{folder}/")


class IgnoreRules:
    """The patterns of one file, for one walk over one context. `source` is the name of the file, "" if there
    is none.
    """

    def __init__(
        self,
        patterns: tuple[Pattern, ...] = (),
        source: str = "",
        spent: Callable[[], float] = time.thread_time,
    ) -> None:
        """Create rules. `spent` returns the CPU seconds of this thread."""
        self.patterns = patterns
        self._spent = spent
        self._end = spent() + MAX_SECONDS if patterns else 0.0
        self.source = source
        self._matchers = [_compiled(pattern.expression, len(patterns)) for pattern in patterns]
        # Most files match no pattern, which one check shows.
        self._any = (
            None
            if None in self._matchers
            else _compiled("|".join(_closed(p.expression) for p in patterns), 1)
        )
        self._left = MAX_JUDGEMENTS

    def _matches(self, number: int, text: bytes) -> bool:
        """Match a pattern. One that cannot be compiled causes an error only when it is used."""
        matcher = self._matchers[number]
        if matcher is None:
            raise _invalid(
                self.source,
                Localizable(
                    "the pattern `{pattern}` is invalid or too long", pattern=self.patterns[number].text
                ),
            )
        return matcher.search(text) is not None

    def judge(self, path: str, above: Matched) -> tuple[bool, Matched]:
        """Return whether the path is excluded, and what its children need as `above`."""
        if not self.patterns:
            return False, ()
        text = _matchable(path)
        if self._spent() > self._end:
            raise _invalid(
                self.source,
                Localizable("its patterns take longer than {most} s to match", most=round(MAX_SECONDS)),
            )
        if self._any and not any(above) and not self._any.search(text):
            return False, above
        self._left -= len(self.patterns)
        if self._left < 0:
            raise _invalid(
                self.source,
                Localizable("it has too many patterns for the number of files in the build context"),
            )
        ignored, matched = False, []
        for number, pattern in enumerate(self.patterns):
            hit = bool(above) and above[number]
            # The client skips patterns that would change nothing, and does not record whether they match.
            if not hit and pattern.exception == ignored:
                hit = self._matches(number, text)
            matched.append(hit)
            if hit:
                ignored = not pattern.exception
        return ignored, tuple(matched)

    def leaves_out(self, path: str) -> bool:
        """Return whether a single file is excluded, possibly by one of its folders."""
        names = path.split("/")
        parts = [_matchable("/".join(names[: depth + 1])) for depth in range(len(names))]
        ignored = False
        for number, pattern in enumerate(self.patterns):
            if pattern.exception == ignored and any(self._matches(number, part) for part in parts):
                ignored = not pattern.exception
        return ignored

    def enters(self, folder: str) -> bool:
        """Return whether an ignored folder is searched because of an exception below it."""
        return any(pattern.covers(folder) for pattern in self.patterns)

    def sparing(self, *names: str) -> IgnoreRules:
        """Return the rules of the walk, in which the client includes files that the builder itself reads."""
        spared = [name for name in names if self.leaves_out(name)]
        added = (Pattern(name, True, _expression(re.sub(r"([\\*?\[])", r"\\\1", name))) for name in spared)
        return IgnoreRules((*self.patterns, *added), self.source) if spared else self


def rules_for(read: Callable[[str], bytes | None], dockerfile: str) -> IgnoreRules:
    """Return the rules of a context, whose files `read` returns. A file named like the Dockerfile with
    `.dockerignore` appended takes precedence over the general one, as in current builders.
    """
    for name in (f"{dockerfile}{NAME}", NAME):
        content = read(name)
        if content is not None:
            found = tuple(islice(_patterns(content, name), MAX_PATTERNS + 1))
            if len(found) > MAX_PATTERNS:
                raise _invalid(name, Localizable("it has more than {most} patterns", most=MAX_PATTERNS))
            return IgnoreRules(found, name)
    return IgnoreRules()


def _invalid(source: str, why: str) -> Stalled:
    return Stalled(
        Reason.BUILD_FAILED,
        Localizable("{source} in the build context cannot be applied: {why}", source=source, why=why),
    )


def _compiled(expression: str, among: int) -> Any:
    """Compile an expression; None if that fails. `among` is the number of expressions that share the memory
    of a walk.
    """
    options = re2.Options()
    options.max_mem = min(max(MAX_MEMORY // among, 2**16), 2**23)
    options.log_errors = False
    options.never_capture = True
    try:
        return re2.compile(expression.encode(), options)
    except re2.error:
        return None


def _matchable(path: str) -> bytes:
    """Encode a path. Bytes that are not UTF-8 become replacement characters, one each."""
    return _NOT_UTF8.sub("\ufffd", path).encode()


# --- reading ----------------------------------------------------------------------------------------------------


def _patterns(content: bytes, source: str) -> Iterator[Pattern]:
    text = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    for number, line in enumerate(text.split("\n"), start=1):
        if len(line) > MAX_LINE:
            raise _invalid(
                source,
                Localizable("line {number} is longer than {most} characters", number=number, most=MAX_LINE),
            )
        stripped = line.strip(_SPACE)
        if line.startswith("#") or not stripped:
            continue
        inverted = "!" if stripped.startswith("!") else ""
        # Cleaned twice, as by the client: `./!x` is an exception, too, and `x /` is `x`.
        once = (inverted + _cleaned(stripped.removeprefix("!").strip(_SPACE))).strip(_SPACE)
        if not once:
            continue
        cleaned = _cleaned(once)
        exception = cleaned.startswith("!")
        cleaned = cleaned.removeprefix("!")
        if not cleaned:
            raise _invalid(
                source,
                Localizable(
                    "line {number} is `{pattern}`, an exception without a pattern",
                    number=number,
                    pattern=stripped,
                ),
            )
        if not _is_accepted(cleaned):
            why = Localizable(
                "line {number}: the pattern `{pattern}` has an unclosed bracket or ends in a backslash",
                number=number,
                pattern=cleaned,
            )
            raise _invalid(source, why)
        yield Pattern(cleaned, exception, _expression(cleaned))


def _is_accepted(pattern: str) -> bool:
    """Return whether the client's check passes. It ends early: a later part is checked only after one that
    fits `.`.
    """
    first = _CHUNK.match(pattern)
    if not first or not _SYNTAX.fullmatch(first[1]):
        return False
    second = _CHUNK.match(pattern, first.end())
    return first[1] not in (".", "?", "\\.") or not second or bool(_SYNTAX.fullmatch(second[1]))


def _cleaned(pattern: str) -> str:
    """Return Go's `filepath.Clean`, relative to the context."""
    if not pattern:
        return pattern
    clean = posixpath.normpath(pattern)
    return clean.lstrip("/") or "/" if clean.startswith("/") else clean


def _expression(pattern: str) -> str:
    """Return the regular expression of a pattern. Without wildcards, except for `**` at one end, it is
    compared literally: then `**x` also matches the end of a name.
    """
    if _NOT_UTF8.search(pattern):
        return _NONE
    if not re.search(r"[\\\[\]*?]", pattern):
        return f"^{re2.escape(pattern)}$"
    if "*" not in pattern.replace("**", "", 1) and not re.search(r"[\\\[\]?]", pattern):
        if pattern.startswith("**"):
            rest = pattern[2:]
            return (
                f"{re2.escape(rest)}$|^{re2.escape(rest.removeprefix('/'))}$"
                if rest[:1] == "/"
                else f"{re2.escape(rest)}$"
            )
        if pattern.endswith("**"):
            return f"^{re2.escape(pattern[:-2])}"
    return f"^{''.join(_translated(pattern))}$"


def _closed(expression: str) -> str:
    r"""Return an expression that can be joined with others: `\Q` quotes all that follows."""
    return f"(?:{expression}\\E)" if "\\Q" in expression else f"(?:{expression})"


def _translated(pattern: str) -> Iterator[str]:
    rest = pattern
    while rest:
        character, rest = rest[0], rest[1:]
        if character == "*" and rest.startswith("*"):
            rest = rest[1:].removeprefix("/")
            yield "(.*/)?" if rest else ".*"
        elif character == "*":
            yield "[^/]*"
        elif character == "?":
            yield "[^/]"
        elif character == "\\" and rest:
            yield f"\\{rest[0]}"
            rest = rest[1:]
        elif character == "\\":
            yield "\\"  # escapes the end, which becomes a dollar sign
        else:
            yield f"\\{character}" if character in _ESCAPED else character
