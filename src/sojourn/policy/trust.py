"""Whom we believe: the proxies in front of us."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from sojourn.errors import ConfigError

__all__ = ["TrustList"]

#: Answers kept. Proxies are few; when clients fill it all is forgotten and costs one look-up again.
CACHED: Final = 4096

#: What the caller gives as the host of a Unix socket's peer.
UNIX: Final = "unix"


class TrustList:
    """Addresses and networks that are believed.

    Args:
        entries: Addresses, networks such as ``10.0.0.0/8``, ``unix`` for the peer of a Unix socket, ``*`` for everyone.

    Raises:
        ConfigError: An entry is none of these.
    """

    __slots__ = ("_answers", "_everyone", "_networks", "_unix")

    def __init__(self, entries: Iterable[str]) -> None:
        words = [entry.strip() for entry in entries]
        self._everyone = "*" in words
        self._unix = self._everyone or UNIX in words
        self._networks = tuple(_network(word) for word in words if word not in ("*", UNIX))
        self._answers: dict[str, bool] = {}

    def trusts(self, host: str) -> bool:
        """Whether the peer with this address (or ``unix``) is believed; what is no address never is, unless all are."""
        answer = self._answers.get(host)
        if answer is None:
            if len(self._answers) >= CACHED:
                self._answers.clear()
            answer = self._answers[host] = self._look_up(host)
        return answer

    def _look_up(self, host: str) -> bool:
        if self._everyone:
            return True
        if host == UNIX:
            return self._unix
        try:
            address = _plain(ip_address(host.partition("%")[0]))
        except ValueError:
            return False
        return any(address in network for network in self._networks)


def _network(entry: str) -> IPv4Network | IPv6Network:
    try:
        if "/" not in entry:
            return ip_network(_plain(ip_address(entry)))
        network = ip_network(entry, strict=False)
    except ValueError:
        raise ConfigError(
            f"{entry!r} is neither an address, a network such as 10.0.0.0/8, unix nor *", key="proxy.trusted"
        ) from None
    if str(network.network_address) != str(ip_address(entry.partition("/")[0])):
        raise ConfigError(f"{entry!r} has bits outside its mask; did you mean {network}?", key="proxy.trusted")
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    return ip_network((mapped, network.prefixlen - 96)) if mapped and network.prefixlen >= 96 else network


def _plain(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """An IPv4 peer of an IPv6 socket is the IPv4 address it is."""
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
