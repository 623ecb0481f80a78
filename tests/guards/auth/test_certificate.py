"""Client certificates: from our own handshake, or from a proxy that is listed, and from nobody else."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from sojourn.clock import ManualClock
from sojourn.errors import AuthenticationError, ConfigError
from sojourn.guards.auth.certificate import Certificate, ClientCertificate
from sojourn.guards.auth.xfcc import read_xfcc
from sojourn.scopes.context import SecurityContext

NOW = datetime.datetime.fromtimestamp(1_700_000_000, datetime.UTC)
HOUR = datetime.timedelta(hours=1)


def certificate(
    *uris: str,
    names: Sequence[str] = ("worker-7",),
    begins: datetime.timedelta = -HOUR,
    ends: datetime.timedelta = HOUR,
) -> str:
    """A certificate in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name) for name in names])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW + begins)
        .not_valid_after(NOW + ends)
    )
    if uris:
        alternatives = [x509.UniformResourceIdentifier(uri) for uri in uris]
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def scope(pem: str | None = None, *xfcc: str, client: str | None = "192.0.2.1", error: str | None = None) -> Any:
    """Of a request with a certificate in the handshake, and headers of a proxy."""
    tls = {"client_cert_chain": [pem] if pem else [], "client_cert_error": error}
    return {
        "type": "http",
        "client": (client, 7) if client else None,
        "headers": [(b"x-forwarded-client-cert", value.encode()) for value in xfcc],
        "extensions": {"tls": tls},
    }


def who(scope: Any, **settings: Any) -> SecurityContext | None:
    return asyncio.run(ClientCertificate(clock=ManualClock(), **settings)(scope))


def test_a_spiffe_id_is_the_identity() -> None:
    context = who(scope(certificate("spiffe://prod.example/web")), trust_domains=["prod.example"])
    assert context is not None
    assert (context.principal, context.authn) == ("spiffe://prod.example/web", "mtls")
    assert context.expires_at == (NOW + HOUR).timestamp()


def test_without_a_uri_the_common_name_is() -> None:
    context = who(scope(certificate()))
    assert context is not None
    assert context.principal == "worker-7"
    assert context.claims["subject"] == "CN=worker-7"


def test_roles_are_given_by_a_function() -> None:
    def roles(certificate: Certificate) -> list[str]:
        return ["worker"] if certificate.common_name.startswith("worker-") else []

    context = who(scope(certificate()), roles=roles)
    assert context is not None
    assert context.roles == {"worker"}


@pytest.mark.parametrize(
    ("pem", "settings"),
    [
        (certificate("spiffe://test.example/web"), {"trust_domains": ["prod.example"]}),
        (certificate("spiffe://prod.example.evil/web"), {"trust_domains": ["prod.example"]}),
        (certificate("spiffe://prod.example"), {}),
        (certificate("spiffe:///web"), {}),
        (certificate("spiffe://prod.example/web", "https://x.example"), {}),
        (certificate("spiffe://prod.example/web", "spiffe://prod.example/db"), {}),
        (certificate(), {"trust_domains": ["prod.example"]}),
        (certificate(names=["a", "b"]), {}),
        (certificate(names=[]), {}),
        (certificate(ends=-HOUR / 2), {}),
        (certificate(begins=HOUR / 2), {}),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", {}),
        ("", {"proxies": ["192.0.2.1"]}),
    ],
    ids=[
        "another trust domain",
        "a longer trust domain",
        "no path",
        "no domain",
        "another uri",
        "two ids",
        "no id where there must be one",
        "two names",
        "no name",
        "expired",
        "not yet valid",
        "no certificate at all",
        "unreadable header",
    ],
)
def test_a_certificate_does_not_count(pem: str, settings: Any) -> None:
    shown = scope(pem) if pem else scope(None, 'URI="spiffe://prod.example')
    with pytest.raises(AuthenticationError, match="bad_certificate"):
        who(shown, **settings)


def test_a_server_that_could_not_verify_it_is_believed_in_that() -> None:
    with pytest.raises(AuthenticationError, match="could not be verified"):
        who(scope(certificate(), error="self signed"))


def test_nobody_is_there_without_a_certificate() -> None:
    assert who(scope()) is None
    assert who({"type": "http", "headers": [], "client": None}) is None


def test_the_header_of_a_listed_proxy_is_believed() -> None:
    header = 'By=spiffe://a/us;URI=spiffe://a/first,Hash=1;Subject="CN=web,O=A \\"B\\", Inc";URI=spiffe://a/web'
    context = who(scope(None, header), proxies=["192.0.2.0/24"])
    assert context is not None
    assert (context.principal, context.authn, context.expires_at) == ("spiffe://a/web", "xfcc", None)


def test_a_certificate_in_the_header_says_until_when() -> None:
    context = who(scope(None, f"Hash=1;Cert={quote(certificate('spiffe://a/web'))}"), proxies=["192.0.2.1"])
    assert context is not None
    assert context.expires_at == (NOW + HOUR).timestamp()


def test_the_header_of_anybody_else_is_not_looked_at() -> None:
    assert who(scope(None, "URI=spiffe://a/admin"), proxies=["10.0.0.0/8"]) is None
    assert who(scope(None, "URI=spiffe://a/admin")) is None
    context = who(scope(certificate(), "URI=spiffe://a/admin"))
    assert context is not None
    assert context.principal == "worker-7"


def test_the_certificate_of_a_proxy_is_never_that_of_its_client() -> None:
    assert who(scope(certificate("spiffe://a/proxy")), proxies=["192.0.2.1"]) is None
    assert who(scope(certificate("spiffe://a/proxy"), ""), proxies=["192.0.2.1"]) is None


def test_the_proxy_is_who_is_connected_and_not_whom_it_speaks_for() -> None:
    from sojourn.asgi.control import RequestControl

    class Control(RequestControl):
        connection = SimpleNamespace(peer=("10.0.0.1", 5))  # type: ignore[assignment]
        draining = remaining = set_timeout = set_limit = expire = dismiss = None  # type: ignore[assignment]

    shown = scope(None, "URI=spiffe://a/web", client="192.0.2.1")
    shown["extensions"]["sojourn"] = Control()
    assert who(shown, proxies=["10.0.0.1"]) is not None
    assert who(shown, proxies=["192.0.2.1"]) is None


def test_a_certificate_is_read_once() -> None:
    by = ClientCertificate(clock=ManualClock())
    shown = scope(certificate())
    for _ in range(3):
        asyncio.run(by(shown))
    assert len(by._read) == 1


def test_a_proxy_that_is_no_address_is_found_at_start() -> None:
    with pytest.raises(ConfigError):
        ClientCertificate(proxies=["envoy"])


@pytest.mark.parametrize("value", ["", "nothing", 'URI="a', "URI=a;URI=b", "a=b;c"])
def test_a_header_without_one_meaning_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match=r"field|quote|URI"):
        read_xfcc(value)


@given(st.text(alphabet='URI=;,"\\ab:/%', max_size=40))
def test_no_header_breaks_the_reader(value: str) -> None:
    try:
        read_xfcc(value)
    except ValueError:
        return


@given(st.text(alphabet=st.characters(exclude_characters='\\"', min_codepoint=32, max_codepoint=126), max_size=30))
def test_what_stands_in_quotes_is_not_taken_apart(text: str) -> None:
    assert read_xfcc(f'URI=spiffe://a/b;Subject="{text}"').uri == "spiffe://a/b"
