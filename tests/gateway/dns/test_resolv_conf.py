"""Reading the system's list of resolvers."""

from __future__ import annotations

from gateway.dns.resolv_conf import parse_resolv_conf


def test_nameservers_are_read_in_order_and_once() -> None:
    """Comments, options, repetitions and rubbish are passed over; IPv6 with a scope is kept."""
    text = (
        "# made by hand\nsearch lan\nnameserver 192.0.2.1\n nameserver\tfe80::1%eth0 # uplink\n"
        "nameserver nonsense\nnameserver\nnameserver 192.0.2.1\noptions edns0\n"
    )
    assert [str(endpoint) for endpoint in parse_resolv_conf(text)] == ["192.0.2.1:53", "[fe80::1%eth0]:53"]


def test_an_empty_file_names_nobody() -> None:
    """No line, no resolver."""
    assert parse_resolv_conf("") == ()
