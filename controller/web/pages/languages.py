"""The languages of the pages: which one a reader wants, its texts, and how it writes numbers, sizes and times.

Texts are English in the code and in the templates (`_("…")`, `ngettext`); `locale/<language>/*.po` translate them, one
file for each family of pages. The files are read when a page first needs them, so nothing has to be compiled, neither
for a wheel nor in a checkout. `tests/unit/web/pages/test_languages.py` finds texts without a translation.

What the platform says about one thing, with names and numbers in it, is a `Localizable`: it is made in English where it
arises, also outside of the web process, and translated where it is shown (`told`, `shown`).

Texts that stand in a table of Python and are translated where they are shown are marked by `N_`. None of them
may contain a per cent sign, with which a template would want to fill something in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Final

from babel import Locale
from babel.dates import format_datetime, format_timedelta
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import format_decimal
from babel.support import Translations
from markupsafe import Markup, escape

from controller.domain.localizable import Localizable
from controller.domain.units import in_utc, rfc3339

COOKIE: Final = "prichal-language"
LOCALE: Final = Path(__file__).parents[1] / "locale"
_MOST_HEADER: Final = 500  # characters of Accept-Language that are read


class Language(StrEnum):
    ENGLISH = "en"
    RUSSIAN = "ru"

    @property
    def own_name(self) -> str:
        """The language in itself, as the switch shows it."""
        return {"en": "English", "ru": "Русский"}[self]


def N_(text: str) -> str:  # noqa: N802 - the name that gettext's tools look for
    return text


_SECONDS: Final = N_("s")
#: Of sizes, each 1024 of the one before.
UNITS: Final = (N_("B"), N_("KiB"), N_("MiB"), N_("GiB"), N_("TiB"))


@dataclass(frozen=True)
class Wording:
    """All that depends on the reader's language. Threads may share it."""

    language: Language
    translations: Translations

    @property
    def locale(self) -> Locale:
        return Locale.parse(self.language)

    def text(self, message: str) -> str:
        return str(self.translations.ugettext(message)) if message else ""

    def told(self, text: str) -> str:
        """Return a message in the reader's language; of other texts those that have a translation."""
        return text.said(self.text) if isinstance(text, Localizable) else self.text(text)

    def message(self, text: str) -> str:
        """Return a message in the reader's language, and texts of others as they are."""
        return self.told(text) if isinstance(text, Localizable) else text

    def shown(self, text: str) -> Markup:
        """Return it for a page, which marks a text of others as English."""
        if isinstance(text, Localizable):
            return escape(self.told(text))
        return Markup('<span lang="en">{}</span>').format(text)

    def is_own(self, text: str) -> bool:
        """Return True for a message, which is shown in the reader's language."""
        return isinstance(text, Localizable)

    def number(self, value: float) -> str:
        return format_decimal(value, locale=self.locale)

    def size(self, size: float) -> str:
        """`1.5 MiB`."""
        step = 0
        while size >= 1024 and step < len(UNITS) - 1:
            size, step = size / 1024, step + 1
        digits = "0" if step == 0 or size >= 100 else "0.#"
        return f"{format_decimal(size, digits, locale=self.locale)}\N{NO-BREAK SPACE}{self.text(UNITS[step])}"

    def duration(self, seconds: float) -> str:
        """`3 min`: the largest unit alone."""
        if seconds < 60:
            digits = "0.#" if seconds < 10 else "0"
            return f"{format_decimal(seconds, digits, locale=self.locale)}\N{NO-BREAK SPACE}{self.text(_SECONDS)}"
        return format_timedelta(timedelta(seconds=seconds), threshold=1.5, format="short", locale=self.locale)

    def moment(self, at: float | None) -> Markup:
        """A moment in UTC. The page's module shows it in the reader's own zone."""
        return self._time(at, "")

    def ago(self, at: float | None) -> Markup:
        """The same; the page's module shows how long ago it was, and keeps that true."""
        return self._time(at, "ago")

    def _time(self, at: float | None, kind: str) -> Markup:
        exact = rfc3339(at) if at else None
        if not at or exact is None:
            return Markup("")
        shown = format_datetime(in_utc(at), "d MMM y, HH:mm:ss", locale=self.locale)
        return Markup('<time datetime="{}" data-time="{}">{} UTC</time>').format(exact, kind, escape(shown))


def wanted_language(chosen: str, accepted: str) -> Language:
    """Return the language that a reader has chosen with the switch, else the one that their browser asks for."""
    if chosen in list(Language):
        return Language(chosen)
    weighed = sorted(map(_weight, accepted[:_MOST_HEADER].split(",")), key=lambda pair: -pair[1])
    known = (name.strip().lower().partition("-")[0] for name, weight in weighed if weight > 0)
    return next((Language(name) for name in known if name in list(Language)), Language.ENGLISH)


@cache
def wording(language: Language) -> Wording:
    return Wording(language, _translations(language))


def _weight(part: str) -> tuple[str, float]:
    name, _, weight = part.partition(";")
    try:
        return name, float(weight.strip().removeprefix("q=") or 1)
    except ValueError:
        return name, 0.0


@cache
def patterns_of(language: Language, family: str) -> Mapping[str, str]:
    """Return the translations of one family, for scripts that get messages with what they were made of."""
    path = LOCALE / language / f"{family}.po"
    if not path.is_file():
        return {}
    with path.open("rb") as file:
        catalog = read_po(file, locale=str(language), abort_invalid=True)
    return {str(message.id): str(message.string) for message in catalog if message.id}


def _translations(language: Language) -> Translations:
    """The catalogs of the language in one."""
    found = Translations()
    for path in sorted((LOCALE / language).glob("*.po")):
        with path.open("rb") as file:
            catalog = read_po(file, locale=str(language), abort_invalid=True)
        compiled = BytesIO()
        write_mo(compiled, catalog)
        compiled.seek(0)
        read = Translations(compiled)
        found = found.merge(read) if found.files or found.info() else read
    return found
