"""TLS: the server's context, what ASGI tells of a connection, and why a handshake failed."""

from __future__ import annotations

import errno
import re
import ssl
from collections.abc import Iterable
from typing import Any, Final

from sojourn.config import Tls
from sojourn.errors import ConfigError

__all__ = ["ServerContext", "failure_reason", "server_context", "tls_extension"]

#: Numbers of the ASGI TLS extension (RFC 8446 section 4.2.1).
VERSIONS: Final = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}

#: OpenSSL's long names -> short names of RFC 4514 section 3.
SHORT_NAMES: Final = {
    "commonName": "CN",
    "countryName": "C",
    "domainComponent": "DC",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
    "streetAddress": "STREET",
    "userId": "UID",
}

#: OpenSSL's word for a failed handshake -> what it means to whoever reads the log.
FAILURES: Final = {
    "CERTIFICATE_VERIFY_FAILED": "the client's certificate is not acceptable",
    "NO_SHARED_CIPHER": "the client offers no cipher of tls.ciphers",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the client showed no certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the client refuses our certificate",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the client refuses our certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "the client does not know the authority of our certificate",
    "UNSUPPORTED_PROTOCOL": "the client's TLS version is older than tls.min_version",
    "WRONG_VERSION_NUMBER": "the client does not speak TLS",
}


class ServerContext(ssl.SSLContext):
    """An SSLContext that knows its own certificate and the numbers of its ciphers, which OpenSSL does not tell later.

    Attributes:
        server_cert: The certificate clients see, PEM.
        cipher_numbers: Number of each cipher suite by OpenSSL's name.
    """

    server_cert: str
    cipher_numbers: dict[str, int]


def server_context(tls: Tls) -> ServerContext | None:
    """Make the context for all TLS connections; None when TLS is not set up.

    Raises:
        ConfigError: A file is missing, is not what it should be, or does not belong to the others.
    """
    if tls.cert is None:
        for name in ("key", "ca"):
            if getattr(tls, name) is not None:
                raise ConfigError("set, but there is no tls.cert to go with it", key=f"tls.{name}")
        return None
    context = ServerContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if tls.min_version == "1.3" else ssl.TLSVersion.TLSv1_2
    # A client could have us redo the expensive half of a handshake again and again (TLS 1.2).
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    if tls.ciphers is not None:
        try:
            context.set_ciphers(tls.ciphers)
        except ssl.SSLError as error:
            raise ConfigError(f"{tls.ciphers!r} names no cipher OpenSSL has", key="tls.ciphers") from error
    _load_certificate(context, tls, tls.cert)
    _ask_clients(context, tls)
    context.set_alpn_protocols(["http/1.1"])
    context.cipher_numbers = _cipher_numbers(context)
    return context


def _load_certificate(context: ServerContext, tls: Tls, cert: str) -> None:
    text = _read(cert, "tls.cert")
    if tls.key is not None:
        _read(tls.key, "tls.key")
    first = re.search("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", text, re.DOTALL)
    if first is None:
        raise ConfigError(f"{cert} has no certificate in PEM form (-----BEGIN CERTIFICATE-----)", key="tls.cert")
    context.server_cert = first[0] + "\n"
    asked = False

    def password() -> str:
        nonlocal asked
        asked = True
        return tls.key_password or ""  # never OpenSSL's own question on the terminal

    try:
        context.load_cert_chain(cert, tls.key, password)
    except (ssl.SSLError, ValueError) as error:
        key_file = tls.key or cert
        reason = getattr(error, "reason", None) or ""
        if reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(f"{key_file} is not the key of the certificate in {cert}", key="tls.key") from error
        if asked:
            problem = "is encrypted; a password is needed" if not tls.key_password else "has another password"
            raise ConfigError(f"the key in {key_file} {problem}", key="tls.key_password") from error
        if "PRIVATE KEY-----" not in _read(key_file, "tls.key"):
            raise ConfigError(f"{key_file} has no private key in PEM form", key="tls.key") from error
        raise ConfigError(f"{cert} and {key_file} can't be used: {_words(reason) or error}", key="tls.cert") from error


def _ask_clients(context: ServerContext, tls: Tls) -> None:
    if tls.client_cert == "none":
        if tls.ca is not None:
            raise ConfigError("set, but tls.client_cert is none; say optional or required", key="tls.ca")
        return
    if tls.ca is None:
        raise ConfigError(f"tls.client_cert is {tls.client_cert}: whose certificates are accepted?", key="tls.ca")
    _read(tls.ca, "tls.ca")
    try:
        context.load_verify_locations(tls.ca)
    except ssl.SSLError as error:
        raise ConfigError(f"{tls.ca} has no certificates in PEM form", key="tls.ca") from error
    context.verify_mode = ssl.CERT_REQUIRED if tls.client_cert == "required" else ssl.CERT_OPTIONAL


def _read(path: str, key: str) -> str:
    try:
        with open(path, encoding="latin-1") as file:
            return file.read()
    except OSError as error:
        raise ConfigError(f"can't read {path}: {error.strerror}", key=key) from error


def _cipher_numbers(context: ssl.SSLContext) -> dict[str, int]:
    # OpenSSL's id is 0x0300 before the two bytes of the RFCs.
    return {str(cipher["name"]): int(cipher["id"]) & 0xFFFF for cipher in context.get_ciphers()}


# -- the ASGI extension


def tls_extension(ssl_object: ssl.SSLObject | ssl.SSLSocket) -> dict[str, Any]:
    """The ``tls`` extension of a connection's scopes. Costly enough to be made once for each connection.

    ``client_cert_error`` is None always: a certificate that can't be verified ends the handshake.

    Args:
        ssl_object: After its handshake, as a transport's ``get_extra_info("ssl_object")`` gives it.

    Source: ASGI TLS extension 0.2.
    """
    context = ssl_object.context
    ours = context if isinstance(context, ServerContext) else None
    numbers = ours.cipher_numbers if ours else _cipher_numbers(context)
    cipher = ssl_object.cipher()
    details = ssl_object.getpeercert()
    return {
        "server_cert": ours.server_cert if ours else None,
        "client_cert_chain": _client_chain(ssl_object) if details else [],
        "client_cert_name": _rfc4514(details["subject"]) if details else None,
        "client_cert_error": None,
        "tls_version": VERSIONS.get(ssl_object.version() or ""),
        "cipher_suite": numbers.get(cipher[0]) if cipher else None,
    }


def _client_chain(ssl_object: ssl.SSLObject | ssl.SSLSocket) -> list[str]:
    # The chain is public from Python 3.13 on; before that it is there, one level below.
    get = getattr(ssl_object, "get_unverified_chain", None) or getattr(
        getattr(ssl_object, "_sslobj", None), "get_unverified_chain", None
    )
    found: Iterable[Any] = (get() if get is not None else None) or [ssl_object.getpeercert(binary_form=True)]
    ders = (each if isinstance(each, bytes) else each.public_bytes(_DER) for each in found)
    return [ssl.DER_cert_to_PEM_cert(der) for der in ders]


#: ``_ssl.ENCODING_DER``; the enum of it has no public name.
_DER: Final = 2


def _rfc4514(subject: Any) -> str:
    """A Distinguished Name as text: last RDN first (section 2.1), values of one RDN joined by ``+`` (section 2.2)."""
    return ",".join("+".join(_attribute(name, value) for name, value in rdn) for rdn in reversed(subject))


def _attribute(name: str, value: str) -> str:
    if name[:1].isdigit():
        # Section 2.4: an attribute without a name has its value in hexadecimal BER; here always as UTF8String.
        raw = value.encode()
        size = bytes([len(raw)]) if len(raw) < 128 else b"\x82" + len(raw).to_bytes(2)
        return f"{name}=#{(bytes([12]) + size + raw).hex().upper()}"
    escaped = "".join("\\" + char if char in '"+,;<>\\' else "\\00" if char == "\0" else char for char in value)
    if escaped[:1] in ("#", " "):
        escaped = "\\" + escaped
    if escaped[-1:] == " " and len(value) > 1:
        escaped = escaped[:-1] + "\\ "
    return f"{SHORT_NAMES.get(name, name)}={escaped}"


# -- failed handshakes


def failure_reason(error: BaseException) -> tuple[str, str]:
    """Why a handshake failed: a word of ``ending.REASONS`` and a detail for the log.

    asyncio and uvloop say the same: a deadline is a ConnectionAbortedError, an end of the stream a bare
    ConnectionResetError, a reset one with an errno.
    """
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "reason", None) or ""
        if reason in ("HTTP_REQUEST", "HTTPS_PROXY_REQUEST"):
            return "plain_on_tls", "an HTTP request came where a TLS handshake was due"
        meaning = FAILURES.get(reason)
        verify = getattr(error, "verify_message", "")
        words = verify or _words(reason) or str(error)
        return "tls_handshake_failed", f"{meaning} ({words})" if meaning else words
    if isinstance(error, TimeoutError) or (
        isinstance(error, ConnectionAbortedError) and "handshake is taking longer" in str(error)
    ):
        return "tls_timeout", ""
    if isinstance(error, ConnectionError):
        if error.errno in (errno.ECONNRESET, errno.EPIPE):
            return "client_reset", "reset inside the TLS handshake"
        return "tls_handshake_failed", "closed inside the TLS handshake"
    return "tls_handshake_failed", f"{type(error).__name__}: {error}"


def _words(reason: str) -> str:
    return reason.lower().replace("_", " ")
