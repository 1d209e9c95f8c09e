"""Which network addresses a downloader may talk to: the public internet, and what is allowed.

A URL of a list may name the machine itself, its neighbours or a cloud's metadata service, by
number, by a name that leads there, or after a redirect. So what is judged is not the URL but the
address of each connection, after its name is resolved and before it is opened.
"""

import socket
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from fourmill.manifests.errors import ConfigError

_NAT64 = IPv6Network("64:ff9b::/96")

AddressInfo = tuple[Any, Any, int, str, tuple[Any, ...]]
"""What `socket.getaddrinfo` gives."""


REFUSAL = "is not an address of the public internet"


class ForbiddenAddressError(OSError):
    """An address that is not of the public internet, and not allowed."""


def parse_networks(texts: Sequence[str]) -> list[Any]:
    """Networks such as `10.0.0.0/8`, or single addresses.

    Raises:
        ConfigError: one is neither.
    """
    try:
        return [ip_network(each, strict=False) for each in texts]
    except ValueError as error:
        raise ConfigError(f"download.allow: {error}; expected networks like 10.0.0.0/8") from error


def is_public(address: str) -> bool:
    """Whether an address is one of the public internet, looking through addresses in addresses.

    >>> [is_public(each) for each in ("1.1.1.1", "10.0.0.1", "::ffff:127.0.0.1", "169.254.169.254")]
    [True, False, False, False]
    """
    parsed = _innermost(ip_address(address.partition("%")[0]))
    return parsed.is_global and not parsed.is_multicast


def _innermost(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    if isinstance(address, IPv4Address):
        return address
    inner = address.ipv4_mapped or address.sixtofour
    if inner is None and address.teredo is not None:
        inner = address.teredo[1]
    if inner is None and address in _NAT64:
        inner = IPv4Address(int(address) & 0xFFFFFFFF)
    return inner or address


def guarded_sockets(allow: Sequence[str]) -> Callable[[AddressInfo], socket.socket]:
    """A maker of sockets that refuses addresses: called for every connection, after resolving.

    Raises:
        ConfigError: `allow` holds something else than networks.
    """
    networks = parse_networks(allow)

    def make(info: AddressInfo) -> socket.socket:
        family, kind, protocol, _, place = info
        address = str(place[0])
        parsed = ip_address(address.partition("%")[0])
        if not is_public(address) and not any(parsed in each for each in networks):
            raise ForbiddenAddressError(f"{address} {REFUSAL}")
        return socket.socket(family, kind, protocol)

    return make
