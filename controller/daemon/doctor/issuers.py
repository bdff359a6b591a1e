"""Asks the OpenID Connect issuers with which people sign in (`people.oidc`), for `prichal doctor` and the page of
health: whether each answers with what a sign-in needs, and whether the two clocks agree. All are asked at once, each
for some seconds at most.

It is an examination alone: a sign-in fetches and verifies all of it again, in the web process.
"""

from __future__ import annotations

import json
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from http.client import OK, HTTPException, HTTPResponse
from typing import Any, Final
from urllib.parse import urlsplit

from controller.config import OpenIdIssuer, Settings
from controller.domain.findings import Finding
from controller.domain.localizable import Localizable, joined
from controller.domain.people.openid import WELL_KNOWN, discovery_url
from controller.domain.text import printable
from controller.fetch import fetched_url

ANSWER: Final = 5.0  # seconds for one answer
BYTES: Final = 256 * 1024  # of one answer
CLOCKS: Final = 30.0  # seconds by which two clocks may differ: tokens are refused beyond that
NEEDED: Final = ("authorization_endpoint", "token_endpoint", "jwks_uri")
_REACH: Final = Localizable(
    "check the address in people.oidc, and name servers, firewall and proxy of this host"
)
_ADDRESS: Final = Localizable(
    "write issuer in people.oidc exactly as its {well_known} does, without that path", well_known=WELL_KNOWN
)


def check_issuers(settings: Settings, within: float = ANSWER) -> str:
    """Examine all issuers; each answer may take `within` seconds. Raises Finding with all that is wrong, and what to do
    about it."""
    allowed = settings.sign_in.oidc
    if not allowed:
        return Localizable("none is configured: people sign in with passwords")
    with ThreadPoolExecutor(len(allowed), thread_name_prefix="issuer") as threads:
        results = list(threads.map(lambda each: (each.name, _finding(each, within)), allowed))
    if wrong := [(name, found) for name, found in results if found]:
        detail = joined(joined((name, found.detail), ": ") for name, found in wrong)
        raise Finding(detail, joined(dict.fromkeys(found.advice for _, found in wrong)))
    return Localizable(
        "{names}: discovery and keys answer, the clocks agree",
        names=", ".join(each.name for each in allowed),
    )


def _finding(issuer: OpenIdIssuer, within: float) -> Finding | None:
    try:
        _examine(issuer.issuer, within)
    except Finding as finding:
        return finding
    return None


def _examine(issuer: str, within: float) -> None:
    place = discovery_url(issuer)
    document, clock = _asked(place, within)
    named = document.get("issuer")
    if named != issuer:
        raise Finding(Localizable("{place} is that of {named}", place=place, named=_shown(named)), _ADDRESS)
    schemes = ("https://", "http://") if issuer.startswith("http://") else ("https://",)
    if lacking := [name for name in NEEDED if not str(document.get(name)).startswith(schemes)]:
        advice = Localizable(
            "the issuer has to offer the code flow of OpenID Connect over https: ask those who run it"
        )
        raise Finding(
            Localizable(
                "{place} has no {field} with such a URL as sign-in needs", place=place, field=lacking[0]
            ),
            advice,
        )
    keys, _ = _asked(str(document["jwks_uri"]), within)
    if not isinstance(keys.get("keys"), list) or not keys["keys"]:
        raise Finding(
            Localizable("{url} has no keys", url=_shown(document["jwks_uri"])),
            Localizable("ask those who run the issuer"),
        )
    if abs(clock) > CLOCKS:
        seconds = round(abs(clock))
        told = (
            Localizable(
                "the clock of this host is {seconds} s behind that of {issuer}, so tokens are refused",
                seconds=seconds,
                issuer=issuer,
            )
            if clock > 0
            else Localizable(
                "the clock of this host is {seconds} s ahead of that of {issuer}, so tokens are refused",
                seconds=seconds,
                issuer=issuer,
            )
        )
        raise Finding(
            told, Localizable("set the clock of this host, for example with: timedatectl set-ntp true")
        )


def _asked(url: str, within: float) -> tuple[dict[str, Any], float]:
    """Return the JSON object at a URL, and the seconds by which the server's clock is ahead. Raises Finding."""
    try:
        with fetched_url(urlsplit(url), accept="application/json", within=within) as response:
            status, text, clock = response.status, response.read(BYTES + 1), _ahead(response)
    except ssl.SSLCertVerificationError as error:
        advice = Localizable(
            "renew its certificate, or add the authority to those of this host: update-ca-certificates"
        )
        raise Finding(f"{_shown(url)}: {error.verify_message}", advice) from error
    except (OSError, HTTPException, ValueError) as error:
        raise Finding(
            Localizable(
                "{url} does not answer: {error}", url=_shown(url), error=str(error) or type(error).__name__
            ),
            _REACH,
        ) from error
    if status != OK:
        raise Finding(Localizable("{url} answers {status}", url=_shown(url), status=status), _ADDRESS)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if len(text) > BYTES or not isinstance(found, dict):
        raise Finding(
            Localizable("{url} answers with something else than a JSON object", url=_shown(url)), _ADDRESS
        )
    return found, clock


def _ahead(response: HTTPResponse) -> float:
    """Return by how many seconds the clock of a server is ahead of ours, as far as its answer tells; a cache on the way
    says how old the answer is."""
    try:
        age = float(response.headers.get("Age") or 0)
        return parsedate_to_datetime(response.headers["Date"]).timestamp() + age - time.time()
    except (TypeError, ValueError, OverflowError):
        return 0.0


def _shown(value: object) -> str:
    return printable(str(value)[:200])
