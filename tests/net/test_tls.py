"""TLS: clear errors for bad files, what ASGI is told, and a reason for each failed handshake."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from sojourn.config import Tls
from sojourn.ending import REASONS
from sojourn.errors import ConfigError
from sojourn.net.tls import ServerContext, _rfc4514, failure_reason, server_context, tls_extension

Run = Callable[[Coroutine[Any, Any, Any]], Any]
on_both_loops = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


class Files(NamedTuple):
    """A server's certificate and key in several forms, and two authorities."""

    authority: trustme.CA
    clients: trustme.CA
    cert: str
    key: str
    both: str
    encrypted: str
    other_key: str
    ca: str
    junk: str


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("tls")
    authority, clients = trustme.CA(), trustme.CA()
    ours, other = authority.issue_cert("a.example"), authority.issue_cert("b.example")

    def write(name: str, *blobs: bytes) -> str:
        (folder / name).write_bytes(b"".join(blobs))
        return str(folder / name)

    private = serialization.load_pem_private_key(ours.private_key_pem.bytes(), None)
    encrypted = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    chain = [blob.bytes() for blob in ours.cert_chain_pems]
    return Files(
        authority,
        clients,
        write("cert.pem", *chain),
        write("key.pem", ours.private_key_pem.bytes()),
        write("both.pem", ours.private_key_pem.bytes(), *chain),
        write("encrypted.pem", encrypted),
        write("other.pem", other.private_key_pem.bytes()),
        write("ca.pem", clients.cert_pem.bytes()),
        write("junk.pem", b"nothing of use\n"),
    )


# -- the context


def test_without_a_certificate_there_is_no_tls() -> None:
    assert server_context(Tls()) is None


def test_defaults_are_safe(files: Files) -> None:
    context = server_context(Tls(cert=files.cert, key=files.key))
    assert context is not None
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_NONE
    for option in (ssl.OP_NO_COMPRESSION, ssl.OP_NO_RENEGOTIATION, ssl.OP_CIPHER_SERVER_PREFERENCE):
        assert context.options & option
    assert Path(files.cert).read_text().startswith(context.server_cert)


@pytest.mark.parametrize("key", ["both", "encrypted"])
def test_the_key_may_be_in_the_certificate_file_or_encrypted(files: Files, key: str) -> None:
    if key == "both":
        assert server_context(Tls(cert=files.both)) is not None
    else:
        assert server_context(Tls(cert=files.cert, key=files.encrypted, key_password="secret")) is not None


@pytest.mark.parametrize(
    ("fields", "key", "problem"),
    [
        ({"cert": "/nowhere.pem"}, "tls.cert", "can't read /nowhere.pem: No such file"),
        ({"cert": "cert", "key": "/nowhere.pem"}, "tls.key", "can't read /nowhere.pem: No such file"),
        ({"cert": "junk"}, "tls.cert", "no certificate in PEM form"),
        ({"cert": "key"}, "tls.cert", "no certificate in PEM form"),
        ({"cert": "cert"}, "tls.key", "no private key in PEM form"),
        ({"cert": "cert", "key": "junk"}, "tls.key", "no private key in PEM form"),
        ({"cert": "cert", "key": "other_key"}, "tls.key", "is not the key of the certificate"),
        ({"cert": "cert", "key": "encrypted"}, "tls.key_password", "encrypted; a password is needed"),
        ({"cert": "cert", "key": "encrypted", "key_password": "no"}, "tls.key_password", "has another password"),
        ({"key": "key"}, "tls.key", "there is no tls.cert"),
        ({"ca": "ca"}, "tls.ca", "there is no tls.cert"),
        ({"cert": "both", "ca": "ca"}, "tls.ca", "tls.client_cert is none"),
        ({"cert": "both", "client_cert": "required"}, "tls.ca", "whose certificates"),
        ({"cert": "both", "client_cert": "required", "ca": "/nowhere.pem"}, "tls.ca", "No such file"),
        ({"cert": "both", "client_cert": "optional", "ca": "junk"}, "tls.ca", "no certificates in PEM form"),
        ({"cert": "both", "ciphers": "NO-SUCH-CIPHER"}, "tls.ciphers", "'NO-SUCH-CIPHER'"),
    ],
)
def test_a_bad_file_is_named_with_its_key(files: Files, fields: dict[str, str], key: str, problem: str) -> None:
    named = {name: getattr(files, value, value) if name != "ciphers" else value for name, value in fields.items()}
    with pytest.raises(ConfigError, match=problem) as caught:
        server_context(Tls(**named))  # type: ignore[arg-type]
    assert caught.value.key == key


def test_a_broken_certificate_is_not_taken(files: Files, tmp_path: Path) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    with pytest.raises(ConfigError, match="can't be used"):
        server_context(Tls(cert=str(broken), key=files.key))


# -- real handshakes


def trusting(files: Files) -> ssl.SSLContext:
    context = ssl.create_default_context()
    files.authority.configure_trust(context)
    return context


def handshake(run: Run, context: ssl.SSLContext, act: Callable[[socket.socket], None], timeout: float = 5.0) -> Any:
    """Serve one connection; what the TLS extension says, or the error the handshake raised."""

    def talk(address: Any) -> None:
        with socket.create_connection(address, timeout=5) as client, suppress(OSError):
            act(client)

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as server:
            talking = loop.run_in_executor(None, talk, server.getsockname())
            sock = server.accept()[0]
            sock.setblocking(False)
            try:
                transport, _ = await loop.connect_accepted_socket(
                    asyncio.Protocol, sock, ssl=context, ssl_handshake_timeout=timeout
                )
            except OSError as error:
                return error
            else:
                result = tls_extension(transport.get_extra_info("ssl_object"))
                transport.abort()
                return result
            finally:
                await talking

    return run(main())


def greet(context: ssl.SSLContext) -> Callable[[socket.socket], None]:
    def act(client: socket.socket) -> None:
        with context.wrap_socket(client, server_hostname="a.example") as wrapped:
            wrapped.recv(1)

    return act


@on_both_loops
@pytest.mark.parametrize(
    ("version", "number", "suite"), [("TLSv1_2", 0x0303, 0xC02F), ("TLSv1_3", 0x0304, 0x1301)], ids=["1.2", "1.3"]
)
def test_an_application_learns_version_cipher_and_certificate(
    files: Files, run: Run, version: str, number: int, suite: int
) -> None:
    context, client = server_context(Tls(cert=files.cert, key=files.key)), trusting(files)
    assert context is not None
    client.maximum_version = ssl.TLSVersion[version]
    told = handshake(run, context, greet(client))
    # What the two agree on depends on OpenSSL; its name says whether the number is right.
    assert told["tls_version"] == number
    assert told["cipher_suite"] in context.cipher_numbers.values()
    assert told["server_cert"] == context.server_cert
    assert told["server_cert"].startswith("-----BEGIN CERTIFICATE-----\n")
    assert (told["client_cert_chain"], told["client_cert_name"], told["client_cert_error"]) == ([], None, None)
    names = {0xC02F: "ECDHE-RSA-AES128-GCM-SHA256", 0x1301: "TLS_AES_128_GCM_SHA256"}
    assert context.cipher_numbers[names[suite]] == suite


@on_both_loops
def test_a_context_of_someone_else_is_described_as_far_as_it_can_be(files: Files, run: Run) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.both)
    told = handshake(run, context, greet(trusting(files)))
    assert told["server_cert"] is None
    assert told["tls_version"] == 0x0304
    assert told["cipher_suite"] & 0xFF00 == 0x1300


@on_both_loops
@pytest.mark.parametrize("policy", ["optional", "required"])
@pytest.mark.parametrize("shown", [True, False], ids=["shown", "not shown"])
def test_client_certificates(files: Files, run: Run, policy: Any, shown: bool) -> None:
    context = server_context(Tls(cert=files.both, ca=files.ca, client_cert=policy))
    assert isinstance(context, ServerContext)
    middle = files.clients.create_child_ca()
    certificate = middle.issue_cert("alice@a.example", common_name="Alice", organization_name="A, Inc.")
    client = trusting(files)
    if shown:
        certificate.configure_cert(client)
    told = handshake(run, context, greet(client))
    if not shown and policy == "required":
        reason, detail = failure_reason(told)
        assert reason == "tls_handshake_failed"
        assert detail.startswith("the client showed no certificate")
    elif not shown:
        assert (told["client_cert_chain"], told["client_cert_name"]) == ([], None)
    else:
        sent = [blob.bytes().decode() for blob in certificate.cert_chain_pems]
        assert [ssl.PEM_cert_to_DER_cert(pem) for pem in told["client_cert_chain"]] == [
            ssl.PEM_cert_to_DER_cert(pem) for pem in sent
        ]
        subject = x509.load_pem_x509_certificate(certificate.cert_chain_pems[0].bytes()).subject
        assert told["client_cert_name"] == subject.rfc4514_string()
        assert told["client_cert_name"].startswith("CN=Alice,")
        assert told["client_cert_error"] is None


@on_both_loops
def test_alpn_offers_http_1_1(files: Files, run: Run) -> None:
    context, client, agreed = server_context(Tls(cert=files.both)), trusting(files), []
    assert context is not None
    client.set_alpn_protocols(["h2", "http/1.1"])

    def act(sock: socket.socket) -> None:
        with client.wrap_socket(sock, server_hostname="a.example") as wrapped:
            agreed.append(wrapped.selected_alpn_protocol())

    handshake(run, context, act)
    assert agreed == ["http/1.1"]


def plain(client: socket.socket) -> None:
    client.sendall(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
    client.recv(1)


def stranger(client: socket.socket) -> None:
    client.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
    client.recv(1)


def silent(client: socket.socket) -> None:
    client.recv(1)


def leaver(client: socket.socket) -> None:
    client.sendall(b"\x16\x03\x01\x02\x00\x01")


def resetter(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.sendall(b"\x16\x03\x01\x02\x00\x01")


def doubter(client: socket.socket) -> None:
    greet(ssl.create_default_context())(client)


def veteran(client: socket.socket) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    greet(context)(client)


@on_both_loops
@pytest.mark.parametrize(
    ("act", "reason", "detail"),
    [
        (plain, "plain_on_tls", "HTTP request"),
        (stranger, "tls_handshake_failed", "the client does not speak TLS"),
        (silent, "tls_timeout", ""),
        (leaver, "tls_handshake_failed", "closed inside"),
        (resetter, "client_reset", "reset inside"),
        (doubter, "tls_handshake_failed", "the client does not know the authority of our certificate"),
        (veteran, "tls_handshake_failed", "the client's TLS version is older than tls.min_version"),
    ],
)
def test_each_failed_handshake_has_its_reason(
    files: Files, run: Run, act: Callable[[socket.socket], None], reason: str, detail: str
) -> None:
    context = server_context(Tls(cert=files.both, min_version="1.3"))
    assert context is not None
    found = failure_reason(handshake(run, context, act, 0.2 if act is silent else 5.0))
    assert found[0] == reason
    assert detail in found[1]
    assert reason in REASONS


@on_both_loops
def test_a_client_certificate_of_a_stranger_is_refused_by_name_of_the_problem(files: Files, run: Run) -> None:
    context = server_context(Tls(cert=files.both, ca=files.ca, client_cert="required"))
    assert context is not None
    client = trusting(files)
    files.authority.issue_cert("mallory@a.example").configure_cert(client)
    reason, detail = failure_reason(handshake(run, context, greet(client)))
    assert reason == "tls_handshake_failed"
    assert "not acceptable" in detail


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TimeoutError(), "tls_timeout"),
        (ConnectionAbortedError("SSL handshake is taking longer than 1 seconds: aborting"), "tls_timeout"),
        (ConnectionAbortedError(), "tls_handshake_failed"),
        (ConnectionResetError(), "tls_handshake_failed"),
        (BrokenPipeError(32, "Broken pipe"), "client_reset"),
        (ssl.SSLError("odd"), "tls_handshake_failed"),
        (ValueError("odd"), "tls_handshake_failed"),
    ],
)
def test_other_errors_have_a_reason_too(error: BaseException, reason: str) -> None:
    assert failure_reason(error)[0] == reason


# -- Distinguished Names


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        (((("commonName", "Alice"),),), "CN=Alice"),
        (((("countryName", "DE"),), (("organizationName", "A"),), (("commonName", "B"),)), "CN=B,O=A,C=DE"),
        (((("domainComponent", "net"),), (("userId", "jsmith"), ("commonName", "J"))), "UID=jsmith+CN=J,DC=net"),
        (((("commonName", 'James "Jim" Smith, III'),),), r"CN=James \"Jim\" Smith\, III"),
        (((("commonName", "#1 "),),), r"CN=\#1\ "),
        (((("commonName", " a"),),), r"CN=\ a"),
        (((("commonName", " "),),), r"CN=\ "),
        (((("commonName", "a\\;<>+b\0"),),), r"CN=a\\\;\<\>\+b\00"),
        (((("commonName", "Lučić"),),), "CN=Lučić"),
        (((("emailAddress", "a@b"),),), "emailAddress=a@b"),
        (((("1.3.6.1.4.1.1466.0", "Hi"),),), "1.3.6.1.4.1.1466.0=#0C024869"),
        ((), ""),
    ],
)
def test_names_are_written_as_rfc_4514_says(subject: Any, text: str) -> None:
    assert _rfc4514(subject) == text


@given(st.text(alphabet=' #,+"\\<>;=\0aé', min_size=1, max_size=12))
def test_names_are_escaped_as_another_implementation_does(value: str) -> None:
    other = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, value)])
    assert _rfc4514(((("commonName", value),),)) == other.rfc4514_string()
