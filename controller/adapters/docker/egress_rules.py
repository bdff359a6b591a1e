"""The firewall's rules for our bridges: names of bridges, and a script for `sh`. Pure. A bridge's name begins
with `prc` and contains its policy, so that one set of rules covers all of them, including later ones; they
are the same for every instance on a host, but for what that lets through besides. The rules hang in `INPUT`,
where containers would reach the host's own addresses, and in `DOCKER-USER`, where they would reach others.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Iterator

from controller.domain.egress import Allowed

#: First letters of the names of bridges, which have 15 at most.
PREFIX = "prc"
#: The letter after it.
LETTERS = {"all": "a", "internet": "i", "none": "n"}

#: Of this link, where clouds tell a machine its credentials.
LINK_LOCAL = ("169.254.0.0/16", "fe80::/10")
#: Networks of which the internet knows nothing: RFC 1918, RFC 6598 (shared by carriers), and those of protocols and
#: tests (RFC 6890).
_PRIVATE_4 = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/3",
)


def _translated(network: str) -> str:
    """A network of IPv4 as one of IPv6 that a gateway of the provider translates (RFC 6052)."""
    found = ipaddress.IPv4Network(network)
    return f"{ipaddress.IPv6Address((0x64FF9B << 96) | int(found.network_address))}/{96 + found.prefixlen}"


#: The same of both families; of IPv6 RFC 4193, and RFC 8215 for translation within a site.
PRIVATE = (
    *_PRIVATE_4,
    *map(_translated, (*_PRIVATE_4, LINK_LOCAL[0])),
    *("64:ff9b:1::/48", "fc00::/7", "fec0::/10", "ff00::/8"),
)

_OURS = f"{PREFIX}+"
_ANSWERS = "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"
#: Where what goes to others comes by: engines without rules of their own have no chain for those of users.
_BASE = "base=FORWARD; if {command} -w -S DOCKER-USER >/dev/null 2>&1; then base=DOCKER-USER; fi"
#: Hosts without IPv6 have neither rules nor a need of them.
_KNOWN = {4: "/proc/net/dev", 6: "/proc/net/if_inet6"}
_FAMILIES = ((4, "iptables"), (6, "ip6tables"))


def bridge(policy: str, instance: str, network: str) -> str | None:
    """Name of the bridge of the network called so; None leaves the choice to the engine, whose are not ruled."""
    letter = LETTERS.get(policy)
    return letter and f"{_of_instance(letter, instance)}{_digest(network)[:8]}"


def _of_instance(letter: str, instance: str) -> str:
    return f"{PREFIX}{letter}{_digest(instance)[:3]}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def script(instance: str, allowed: Iterable[Allowed], resolvers: Iterable[str]) -> str:
    """Brings the rules in, however far they are there already. `resolvers`: where the host's names are looked
    up, which containers do themselves."""
    asked, exceptions = tuple(resolvers), tuple(allowed)
    lines = ["set -eu"]
    for family, command in _FAMILIES:
        names = [name for name in asked if ipaddress.ip_address(name).version == family]
        ours = [entry for entry in exceptions if entry.family == family]
        lines.append(f"if [ -e {_KNOWN[family]} ]; then")
        lines += _installed(family, command, names, instance, ours)
        lines.append("fi")
    return "\n".join(lines) + "\n"


def looking() -> str:
    """Return a script that fails with a line about the first missing rule."""
    lines = ["set -u", _BASE.format(command="iptables")]
    for base, chain in (("INPUT", "PRICHAL-IN"), ("$base", "PRICHAL-OUT")):
        rule = f'"{base}" -i {_OURS} -j {chain}'
        lines.append(
            f'iptables -w -C {rule} || {{ echo "the chain {base} has no rule of ours" >&2; exit 1; }}'
        )
    return "\n".join(lines) + "\n"


def _installed(
    family: int, command: str, resolvers: list[str], instance: str, allowed: list[Allowed]
) -> Iterator[str]:
    """First what closes, whole at once; then what this instance lets through, in place of what it did before;
    then the way there."""
    comment = f"prichal-of-{instance}"
    for chain in ("PRICHAL-IN", "PRICHAL-OUT"):
        yield f"{command} -w -N {chain} 2>/dev/null || :"
    yield f"{command}-restore -w --noflush <<'END'"
    yield from _closing(family, resolvers)
    yield "END"
    yield "{ echo '*filter'"
    for chain in ("PRICHAL-IN", "PRICHAL-OUT"):
        yield f"{command} -w -S {chain} | sed -n '/ \"\\{{0,1\\}}{comment}\"\\{{0,1\\}} /s/^-A/-D/p'"
        for entry in allowed:
            for letter in LETTERS.values():
                rule = f"-i {_of_instance(letter, instance)}+ {entry.match} -m comment --comment {comment}"
                yield f"echo '-I {chain} {rule} -j RETURN'"
    yield f"echo COMMIT; }} | {command}-restore -w --noflush"
    yield _BASE.format(command=command)
    for chain in ("IN", "OUT"):
        rule = f"PRICHAL-{chain} -j PRICHAL-{chain}-CLOSED"
        yield f"{command} -w -C {rule} 2>/dev/null || {command} -w -A {rule}"
    for base, chain in (("INPUT", "PRICHAL-IN"), ('"$base"', "PRICHAL-OUT")):
        rule = f"{base} -i {_OURS} -j {chain}"
        yield f"{command} -w -C {rule} 2>/dev/null || {command} -w -I {rule}"


def _closing(family: int, resolvers: list[str]) -> Iterator[str]:
    """Return the input of `iptables-restore`, which empties the named chains. RETURN leads back to the
    engine's own rules, so no additional packet is accepted."""
    yield from ("*filter", ":PRICHAL-IN-CLOSED - [0:0]", ":PRICHAL-OUT-CLOSED - [0:0]")
    for chain in ("PRICHAL-IN-CLOSED", "PRICHAL-OUT-CLOSED"):
        yield f"-A {chain} {_ANSWERS}"
        for resolver in resolvers:
            for protocol in ("udp", "tcp"):
                yield f"-A {chain} -d {resolver} -p {protocol} --dport 53 -j RETURN"
    if family == 6:  # neighbours on a link find each other by it
        yield "-A PRICHAL-IN-CLOSED -p ipv6-icmp -j RETURN"
    yield "-A PRICHAL-IN-CLOSED -j REJECT"
    yield f"-A PRICHAL-OUT-CLOSED -o {_OURS} -j RETURN"  # within the app: the engine keeps bridges apart
    for interface, networks in ((_OURS, LINK_LOCAL), (f"{PREFIX}{LETTERS['internet']}+", PRIVATE)):
        for network in networks:
            if ipaddress.ip_network(network).version == family:
                yield f"-A PRICHAL-OUT-CLOSED -i {interface} -d {network} -j REJECT"
    yield "COMMIT"
