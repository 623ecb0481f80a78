"""Client certificates over real TLS, from the handshake to the end of the certificate."""

from __future__ import annotations

import asyncio
import datetime
import json
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from sojourn.config import Bind, Config, Drain, Tls
from sojourn.guards.auth.certificate import ClientCertificate
from sojourn.guards.auth.middleware import Authenticate
from sojourn.scopes.context import security
from sojourn.server.server import Server
from sojourn.testing import RawHttp


class Authorities:
    """A server's certificate, and certificates for clients."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = trustme.CA()
        self.ca.cert_pem.write_to_path(str(folder / "clients.pem"))
        issued = self.ca.issue_cert("localhost", "127.0.0.1")
        issued.private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))

    @property
    def config(self) -> Config:
        server, clients = str(self.folder / "server.pem"), str(self.folder / "clients.pem")
        tls = Tls(cert=server, ca=clients, client_cert="optional")
        return Config(bind=Bind(port=0), tls=tls, drain=Drain(delay=0.0, close_rate=None))

    def client(self, uri: str | None = None, seconds: float = 3600.0) -> ssl.SSLContext:
        """A client's side, with a certificate that has this SPIFFE id."""
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        if uri is not None:
            file = self.folder / "client.pem"
            file.write_bytes(self._issue(uri, seconds))
            context.load_cert_chain(str(file))
        return context

    def _issue(self, uri: str, seconds: float) -> bytes:
        authority = x509.load_pem_x509_certificate(self.ca.cert_pem.bytes())
        signs: Any = serialization.load_pem_private_key(self.ca.private_key_pem.bytes(), None)
        key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(authority.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(seconds=seconds))
            .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=True)
            .sign(signs, hashes.SHA256())
        )
        encoding = serialization.Encoding.PEM
        private = serialization.PrivateFormat.PKCS8
        return key.private_bytes(encoding, private, serialization.NoEncryption()) + certificate.public_bytes(encoding)


@pytest.fixture
def authorities(tmp_path: Path) -> Authorities:
    return Authorities(tmp_path)


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": security().principal.encode()})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": security().principal})
        while (await receive())["type"] != "websocket.disconnect":
            pass


def with_server(authorities: Authorities, test: Callable[[str], Awaitable[None]]) -> None:
    async def main() -> None:
        guarded = Authenticate(app, [ClientCertificate(trust_domains=["prod.example"])])
        async with asyncio.timeout(15), Server(guarded, authorities.config) as server:
            await test(server.addresses[0])
        assert len(guarded.sessions) == 0

    asyncio.run(main())


def test_a_client_is_who_its_certificate_says(authorities: Authorities) -> None:
    tls = authorities.client("spiffe://prod.example/web")

    async def test(address: str) -> None:
        async with await RawHttp.open(address, tls=tls) as client:
            for _ in range(2):
                await client.get("/")
                assert (await client.response()).body == b"spiffe://prod.example/web"

    with_server(authorities, test)


@pytest.mark.parametrize(
    ("uri", "reason"), [(None, "no_credentials"), ("spiffe://test.example/web", "bad_certificate")]
)
def test_a_client_without_one_that_counts_is_refused(authorities: Authorities, uri: str | None, reason: str) -> None:
    tls = authorities.client(uri)

    async def test(address: str) -> None:
        async with await RawHttp.open(address, tls=tls) as client:
            await client.get("/", "x-forwarded-client-cert: URI=spiffe://prod.example/admin")
            answer = await client.response()
            assert (answer.status, json.loads(answer.body)["reason"]) == (401, reason)

    with_server(authorities, test)


def test_a_websocket_ends_with_the_certificate_of_its_client(authorities: Authorities) -> None:
    tls = authorities.client("spiffe://prod.example/web", seconds=2.0)

    async def test(address: str) -> None:
        url = address.replace("https", "wss")
        async with connect(url, ssl=tls) as socket:
            assert await socket.recv() == "spiffe://prod.example/web"
            with pytest.raises(ConnectionClosed) as caught:
                await socket.recv()
            assert caught.value.rcvd is not None
            assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4401, "the credentials have expired")

    with_server(authorities, test)
