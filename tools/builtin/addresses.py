"""Which internet addresses a tool may connect to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import TypeAlias

from agentflow.errors import AgentflowError, DefinitionError

Address: TypeAlias = "IPv4Address | IPv6Address"
Network: TypeAlias = "IPv4Network | IPv6Network"

_METADATA = tuple(
    ip_network(text)
    for text in (
        "169.254.0.0/16",  # AWS, Google, Azure, OpenStack and most others
        "fd00:ec2::/32",  # AWS
        "fd20:ce::/32",  # Google
        "100.100.100.200/32",  # Alibaba
        "168.63.129.16/32",  # Azure's host agent, on a public address
        "192.0.0.192/32",  # Oracle, older
    )
)
_SPECIAL = tuple(
    ip_network(text)
    for text in (  # is_private of older Python versions does not know these
        "100.64.0.0/10",
        "192.0.0.0/24",
        "192.88.99.0/24",
        "64:ff9b:1::/48",
        "2001::/23",
        "2002::/16",
        "3fff::/20",
        "5f00::/16",
        "fec0::/10",
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")
_COMPATIBLE = IPv6Network("::/96")
_ISATAP, _ISATAP_MASK = 0x5EFE, 0xFDFF_FFFF  # of the interface, its universal bit set or not
_DOTTED = re.compile(r"(?:0|[1-9]\d{0,2})(?:\.(?:0|[1-9]\d{0,2})){3}")
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*", re.IGNORECASE)


class AddressRefused(AgentflowError, PermissionError):
    """The address is not one the tool may connect to.

    Attributes:
        host: As it was written.
    """

    def __init__(self, message: str, *, host: str) -> None:
        self.host = host
        super().__init__(message)


class AddressPolicy:
    """Decides about resolved addresses.

    Args:
        allow_private: Whether loopback and private networks may be reached.
        allow: Networks that may be reached besides, such as ``10.1.0.0/16``.

    Metadata services of clouds, link-local, multicast and unspecified addresses need to be
    named in `allow`.

    Raises:
        DefinitionError: `allow` holds what is no network.
    """

    def __init__(self, allow_private: bool = False, allow: Iterable[str] = ()) -> None:
        self._allow_private = allow_private
        try:
            self._allow = tuple(ip_network(network) for network in allow)
        except ValueError as error:
            raise DefinitionError(f"allow takes networks such as '10.1.0.0/16': {error}") from None

    def check(self, text: str, host: str) -> Address:
        """The address, if it may be connected to.

        Raises:
            AddressRefused: It may not.
        """
        address = ip_address(text)
        if _within(address, self._allow):
            return address
        for each in _destinations(address):
            if reason := self._refusal(each):
                raise AddressRefused(
                    f"{host!r} is at {address} ({reason}), which is not allowed; "
                    f"http_tools(allow=['{address}']) would allow it",
                    host=host,
                )
        return address

    def _refusal(self, address: Address) -> str:
        if _within(address, _METADATA):
            return "cloud metadata or link-local"
        if address.is_multicast:
            return "multicast"
        if address.is_unspecified:
            return "unspecified"
        if address.is_link_local:
            return "link-local"
        if self._allow_private:
            return ""
        if address.is_loopback:
            return "loopback"
        return "private or reserved" if _is_special(address) else ""


def check_spelling(host: str) -> None:
    """Refuse numbers that some resolvers read as addresses: ``2130706433``, ``0x7f.1``, ``127.1``.

    Raises:
        AddressRefused: The host is spelled like that.
    """
    last = host.rstrip(".").rpartition(".")[2]
    if _NUMBER.fullmatch(last) and not _DOTTED.fullmatch(host):
        raise AddressRefused(
            f"{host!r} is an unusual spelling of an address: write it as four decimal numbers",
            host=host,
        )


def _is_special(address: Address) -> bool:
    return (
        address.is_private
        or address.is_reserved
        or not address.is_global
        or _within(address, _SPECIAL)
    )


def _within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)


def _destinations(address: Address) -> Iterator[Address]:
    """The address, and the IPv4 addresses that packets to an IPv6 address may end at."""
    if isinstance(address, IPv4Address):
        yield address
        return
    low = IPv4Address(int(address) & 0xFFFFFFFF)
    if address in _NAT64:  # how a network without IPv4 reaches all of it: only the end counts
        yield low
        return
    yield address
    if address.ipv4_mapped or (address in _COMPATIBLE and int(low) > 1):
        yield low
    if address.sixtofour:
        yield address.sixtofour
    if address.teredo:
        yield from address.teredo
    if int(address) >> 32 & _ISATAP_MASK == _ISATAP:
        yield low
