"""Who the client is by its certificate: seen in our own TLS handshake, or by a proxy that is listed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from typing import Final, NamedTuple

from sojourn.clock import Clock, SystemClock
from sojourn.errors import AuthenticationError, ConfigError
from sojourn.guards.auth.peer import peer_of
from sojourn.guards.auth.xfcc import ForwardedCertificate, read_xfcc
from sojourn.policy.trust import TrustList
from sojourn.scopes.context import SecurityContext
from sojourn.typing import Scope

__all__ = ["Certificate", "ClientCertificate", "read_certificate"]

_HEADER: Final = b"x-forwarded-client-cert"
#: Certificates that are kept read: a connection has the same one with all its requests.
_REMEMBERED: Final = 1024
_SPIFFE: Final = "spiffe://"


class Certificate(NamedTuple):
    """What a certificate says of its owner.

    Attributes:
        uris: URIs in the subject's alternative names.
        common_name: CN of the subject; "" without one, or with several.
        subject: Distinguished name (RFC 4514).
        not_before: Seconds since 1970.
        not_after: Seconds since 1970; None when it is not known.
    """

    uris: tuple[str, ...]
    common_name: str
    subject: str
    not_before: float = 0.0
    not_after: float | None = None


class ClientCertificate:
    """Takes the client's certificate for its identity; give it to ``Authenticate(by=...)``.

    Who it is: the SPIFFE id among the URIs of the certificate, and without any URI the common name of its subject. That
    the certificate is one of an authority we trust was checked in the handshake (``tls.ca``), or by the proxy.

    Args:
        proxies: Addresses, networks or ``unix``: proxies whose X-Forwarded-Client-Cert is believed. What they send
            without that header comes from a client without a certificate: their own is never taken for it.
        trust_domains: SPIFFE trust domains that are taken; then only SPIFFE ids are. None: all are, and common names.
        roles: Gives the roles of a certificate; None gives none.
        clock: The time.

    Raises:
        ConfigError: An entry is no address, or the package ``cryptography`` is not installed.

    Example:
        >>> services = ClientCertificate(trust_domains=["prod.example"])
    """

    challenge = ""

    def __init__(
        self,
        *,
        proxies: Iterable[str] = (),
        trust_domains: Collection[str] | None = None,
        roles: Callable[[Certificate], Iterable[str]] | None = None,
        clock: Clock | None = None,
    ) -> None:
        try:
            import cryptography
        except ImportError as error:
            raise ConfigError("certificates are read with cryptography: pip install 'sojourn[jwt]'") from error
        del cryptography
        self._proxies = TrustList(proxies)
        self._domains = None if trust_domains is None else frozenset(trust_domains)
        self._roles = roles
        self._clock = clock or SystemClock()
        self._read: OrderedDict[str, Certificate] = OrderedDict()

    async def __call__(self, scope: Scope) -> SecurityContext | None:
        """Who asks; None without a certificate.

        Raises:
            AuthenticationError: There is one, and it does not count.
        """
        if self._proxies.trusts(peer_of(scope)):
            values = [value.decode("latin-1") for name, value in scope["headers"] if name == _HEADER]
            if not any(values):
                return None
            return self._identity(self._forwarded(",".join(values)), "xfcc")
        tls = scope.get("extensions", {}).get("tls") or {}
        chain = tls.get("client_cert_chain")
        if not chain:
            return None
        if tls.get("client_cert_error"):
            raise AuthenticationError("bad_certificate", "the client's certificate could not be verified")
        return self._identity(self._certificate(chain[0]), "mtls")

    def _forwarded(self, value: str) -> Certificate:
        try:
            said: ForwardedCertificate = read_xfcc(value)
        except ValueError as error:
            raise AuthenticationError("bad_certificate", f"X-Forwarded-Client-Cert can't be read: {error}") from error
        if said.certificate:
            return self._certificate(said.certificate)
        names = [part[3:] for part in said.subject.split(",") if part[:3].upper() == "CN="]
        return Certificate((said.uri,) if said.uri else (), names[0] if len(names) == 1 else "", said.subject)

    def _certificate(self, pem: str) -> Certificate:
        found = self._read.get(pem)
        if found is None:
            found = self._read[pem] = read_certificate(pem)
            if len(self._read) > _REMEMBERED:
                self._read.popitem(last=False)
        return found

    def _identity(self, certificate: Certificate, authn: str) -> SecurityContext:
        now = self._clock.wall()
        if not certificate.not_before <= now or (certificate.not_after is not None and now >= certificate.not_after):
            raise AuthenticationError("bad_certificate", "the client's certificate has expired, or is not valid yet")
        roles = frozenset(self._roles(certificate)) if self._roles is not None else frozenset()
        claims = {"subject": certificate.subject, "uris": certificate.uris}
        return SecurityContext(
            self._principal(certificate), roles, authn=authn, expires_at=certificate.not_after, claims=claims
        )

    def _principal(self, certificate: Certificate) -> str:
        ids = [uri for uri in certificate.uris if uri.startswith(_SPIFFE)]
        if ids and len(certificate.uris) > 1:
            # X.509-SVID section 2: exactly one URI, so that it is clear who it is.
            raise AuthenticationError("bad_certificate", "a certificate with a SPIFFE id has no other URI")
        if ids:
            domain, _, path = ids[0].removeprefix(_SPIFFE).partition("/")
            if not domain or not path or (self._domains is not None and domain not in self._domains):
                raise AuthenticationError("bad_certificate", "the SPIFFE id is of no trust domain that is taken here")
            return ids[0]
        if self._domains is not None or not certificate.common_name:
            raise AuthenticationError("bad_certificate", "the client's certificate says nothing that names it here")
        return certificate.common_name


def read_certificate(pem: str) -> Certificate:
    """Read a certificate.

    Raises:
        AuthenticationError: It is none.
    """
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    try:
        parsed = x509.load_pem_x509_certificate(pem.encode("ascii"))
        names = [str(each.value) for each in parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        try:
            alternative = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            uris = tuple(alternative.get_values_for_type(x509.UniformResourceIdentifier))
        except x509.ExtensionNotFound:
            uris = ()
        return Certificate(
            uris,
            names[0] if len(names) == 1 else "",
            parsed.subject.rfc4514_string(),
            parsed.not_valid_before_utc.timestamp(),
            parsed.not_valid_after_utc.timestamp(),
        )
    except (ValueError, x509.DuplicateExtension) as error:
        raise AuthenticationError("bad_certificate", "the client's certificate can't be read") from error
