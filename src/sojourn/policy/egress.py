"""Which addresses a service may call when somebody else says which: not those inside (SSRF).

A name says nothing about where it leads, and may lead elsewhere the next time: so its shape and host are judged when it
is given, and each address it leads to when it is called. The caller connects to the address that was judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import urlsplit

__all__ = ["Egress", "Target"]

#: IPv4 addresses inside IPv6 ones, for translators (RFC 6052 section 2.1); RFC 8215 has them within one network.
_NAT64: Final = IPv6Network("64:ff9b::/96")
_NAT64_LOCAL: Final = IPv6Network("64:ff9b:1::/48")
_PORTS: Final = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class Target:
    """What a URL says of where it leads.

    Attributes:
        scheme: ``https`` or ``http``.
        host: A name in lower case, or an address.
        port: Its port.
        path: What follows, with the query; without the fragment.
    """

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """For the header Host: without a port that the scheme implies."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Egress:
    """A rule for URLs that come from outside.

    Args:
        hosts: Names that may be called; ``*.example.com`` stands for all below that. None at all: any public one.
        plain: Whether ``http`` may be called as well.
        private: Whether addresses may be called that are not public: loopback, private and link-local ones.

    Example:
        >>> Egress().target("https://hooks.example.com/a").host
        'hooks.example.com'
        >>> Egress().refuses("127.0.0.1"), Egress(private=True).refuses("127.0.0.1")
        (True, False)
    """

    hosts: tuple[str, ...] = ()
    plain: bool = False
    private: bool = False

    def target(self, url: str) -> Target:
        """Where a URL leads.

        Raises:
            ValueError: It may not be called; the message says why, and has nothing of the URL but its host.
        """
        if len(url) > 2048 or any(sign <= " " or sign == "\x7f" or sign == "\\" for sign in url):
            raise ValueError(
                "it is no URL: longer than 2048 characters, or with spaces, backslashes or control characters"
            )
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ValueError("it is no URL that can be read") from None
        if parts.scheme not in (("https", "http") if self.plain else ("https",)):
            raise ValueError(f"its scheme is {parts.scheme or 'missing'!r}, not https")
        host = (parts.hostname or "").rstrip(".").lower()
        if not host or not host.isascii() or "%" in host or parts.username is not None or parts.password is not None:
            raise ValueError("it needs a host in ASCII, and no user name")
        if self.hosts and not _listed(host, self.hosts):
            raise ValueError(f"{host} is none of the hosts that may be called")
        if _is_address(host) and self.refuses(host):
            raise ValueError(f"{host} is no public address")
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return Target(parts.scheme, host, _PORTS[parts.scheme] if port is None else port, path)

    def refuses(self, address: str) -> bool:
        """Whether an address that a name leads to may not be called."""
        return not self.private and not _is_public(ip_address(address.partition("%")[0]))


def _listed(host: str, hosts: Sequence[str]) -> bool:
    for listed in hosts:
        wanted = listed.lower()
        if host == wanted or (wanted.startswith("*.") and host.endswith(wanted[1:]) and len(host) >= len(wanted)):
            return True
    return False


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether it is one of the whole internet; an address inside another counts for it."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return _is_public(inner)
        if address.teredo is not None or address in _NAT64_LOCAL:
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)
