from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from controller.adapters.docker.egress import resolvers
from controller.adapters.docker.egress_rules import LETTERS, LINK_LOCAL, PRIVATE, bridge


def test_a_bridge_says_whose_and_of_which_policy_it_is() -> None:
    names = {
        bridge(policy, instance, f"{instance}.{app}")
        for policy in LETTERS
        for instance in ("prichal", "other")
        for app in ("a", "b")
    }
    assert len(names) == 12
    assert all(name and len(name) <= 15 for name in names)  # more is no name of an interface
    for policy, letter in LETTERS.items():
        ours = [bridge(policy, "prichal", f"prichal.{app}") or "" for app in ("a", "b", "c")]
        assert {name[:7] for name in ours} == {ours[0][:7]}
        assert ours[0].startswith(f"prc{letter}")
    assert bridge("open", "prichal", "prichal.a") is None


@pytest.mark.parametrize(
    ("address", "closed"),
    [
        *(
            (a, True)
            for a in ("10.1.2.3", "172.31.0.1", "192.168.1.1", "100.127.0.1", "127.0.0.1", "239.1.1.1")
        ),
        *(
            (a, True)
            for a in ("169.254.169.254", "fe80::1", "fd00:ec2::254", "64:ff9b::a9fe:a9fe", "64:ff9b::a00:1")
        ),
        *((a, False) for a in ("1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1", "64:ff9b::101:101")),
    ],
)
def test_what_is_no_internet(address: str, closed: bool) -> None:
    networks = [ipaddress.ip_network(network) for network in (*PRIVATE, *LINK_LOCAL)]
    assert any(ipaddress.ip_address(address) in network for network in networks) is closed


def test_name_servers_that_containers_ask(tmp_path: Path) -> None:
    """Those of this host alone are none of them: the engine puts others in their place."""
    stub, real = tmp_path / "stub", tmp_path / "real"
    stub.write_text(
        "# made by a program\nnameserver 127.0.0.53\noptions edns0\nnameserver\nnameserver 1.2.3.4 x\n"
    )
    real.write_text("nameserver 10.0.0.2\nnameserver fd00::53\nnameserver fe80::1%eth0\nnameserver 1.2.3.4\n")
    assert resolvers((tmp_path / "none", real, stub)) == ("10.0.0.2", "fd00::53", "1.2.3.4")
