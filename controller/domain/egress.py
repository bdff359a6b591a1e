"""The exceptions to `docker.egress`: what else containers may reach. Pure."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Allowed:
    """One exception: a network, or an address of a TCP port."""

    network: str
    port: int | None = None

    @property
    def family(self) -> int:
        return ipaddress.ip_network(self.network).version

    @property
    def match(self) -> str:
        return f"-d {self.network}" + (f" -p tcp --dport {self.port}" if self.port else "")


def read_allowed(text: str) -> Allowed:
    """`10.1.0.0/16`, `10.0.0.5`, `10.0.0.5:5432` or `[fd00::5]:5432`. ValueError for anything else."""
    if "%" in text:
        raise ValueError("a link has no meaning to others")
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):([0-9]{1,5})", text)
    if not found:
        return Allowed(str(ipaddress.ip_network(text)))
    if not 0 < int(found[3]) < 2**16:
        raise ValueError(f"{found[3]} is not a port")
    return Allowed(str(ipaddress.ip_network(found[1] or found[2])), int(found[3]))
