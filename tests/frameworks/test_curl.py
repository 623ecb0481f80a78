"""curl, as an operator's hand would use it, against plain and TLS listeners."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
import trustme

from sojourn.config import Bind, Config, Limits, Log, Proxy, Tls
from tests.frameworks.promises import eventually
from tests.frameworks.serving import Site, served


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Says what was asked, and how large the body was."""
    if scope["type"] != "http":
        raise NotImplementedError
    size = 0
    if scope["path"] != "/refuses":
        more = True
        while more:
            message = await receive()
            size += len(message["body"])
            more = message["more_body"]
    told = {
        "method": scope["method"],
        "version": scope["http_version"],
        "scheme": scope["scheme"],
        "client": scope["client"] and scope["client"][0],
        "name": scope["extensions"].get("tls", {}).get("client_cert_name"),
        "size": size,
    }
    status = 403 if scope["path"] == "/refuses" else 200
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(told).encode() + b"\n"})


class Curl:
    """Runs curl against a server."""

    def __init__(self, site: Site, options: tuple[str, ...]) -> None:
        self.site = site
        self.options = options
        port = site.url.rpartition(":")[2]
        self.base = site.url.replace("127.0.0.1", "a.example")
        self.options += ("--resolve", f"a.example:{port}:127.0.0.1")

    def __call__(self, *arguments: str, path: str = "/", count: int = 1) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["curl", "-sS", "--noproxy", "*", "--max-time", "20", *self.options, *arguments]
            + [f"{self.base}{path}?{number}" for number in range(count)],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            env={"PATH": os.environ["PATH"]},
        )

    def told(self, *arguments: str, **more: Any) -> Any:
        """What the application was asked."""
        done = self(*arguments, **more)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])


class Files:
    def __init__(self, folder: Path) -> None:
        authority, clients = trustme.CA(), trustme.CA()
        self.cert, self.ca, self.clients, self.client = (str(folder / f"{name}.pem") for name in ("s", "a", "c", "u"))
        authority.issue_cert("a.example").private_key_and_cert_chain_pem.write_to_path(self.cert)
        authority.cert_pem.write_to_path(self.ca)
        clients.cert_pem.write_to_path(self.clients)
        user = clients.issue_cert("u@a.example", common_name="a user")
        user.private_key_and_cert_chain_pem.write_to_path(self.client)
        assert ssl.create_default_context(cafile=self.ca)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def upload(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("upload") / "2MB"
    path.write_bytes(os.urandom(2_000_000))
    return str(path)


@pytest.fixture(params=["plain", "TLS 1.2", "TLS 1.3"])
def curl(request: pytest.FixtureRequest, files: Files) -> Any:
    secure = request.param != "plain"
    tls = Tls(cert=files.cert) if secure else Tls()
    options = ("--cacert", files.ca, f"--tlsv{request.param[4:]}", "--tls-max", request.param[4:]) if secure else ()
    with served(app, tls=tls) as site:
        yield Curl(site, options)


def test_several_requests_use_one_connection(curl: Curl) -> None:
    done = curl("-w", "%{num_connects} %{response_code}\n", "-o", "/dev/null", count=1)
    assert done.stdout == "1 200\n"
    done = curl("-w", "%{stderr}%{num_connects}", count=5)
    assert done.stderr == "10000"
    assert len(done.stdout.splitlines()) == 5


def test_a_large_upload_asks_before_it_sends(curl: Curl, upload: str) -> None:
    done = curl("-v", "-T", upload, "-H", "Expect: 100-continue", path="/file")
    assert "< HTTP/1.1 100 Continue" in done.stderr
    assert "HTTP/1.1 200 OK" in done.stderr
    assert json.loads(done.stdout)["size"] == 2_000_000


def test_an_upload_that_is_refused_is_not_sent(curl: Curl, upload: str) -> None:
    done = curl("-v", "-T", upload, "-H", "Expect: 100-continue", "-w", "%{size_upload}", path="/refuses")
    assert "100 Continue" not in done.stderr
    assert "HTTP/1.1 403 Forbidden" in done.stderr
    assert done.stdout.splitlines()[-1] == "0"


def test_an_upload_in_chunks(curl: Curl, upload: str) -> None:
    assert curl.told("-T", upload, "-H", "Transfer-Encoding: chunked")["size"] == 2_000_000


def test_a_form(curl: Curl) -> None:
    told = curl.told("-d", "a=b&c=d")
    assert (told["method"], told["size"]) == ("POST", 7)


def test_http_1_0(curl: Curl) -> None:
    done = curl("-0", "-i")
    assert done.stdout.startswith("HTTP/1.1 200 OK")
    assert "connection: close" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1])["version"] == "1.0"
    assert curl("-0", "-H", "Connection: keep-alive", "-w", "%{stderr}%{num_connects}", count=3).stderr == "100"


def test_head_and_options(curl: Curl) -> None:
    done = curl("-I")
    assert done.returncode == 0
    assert done.stdout.startswith("HTTP/1.1 200 OK")
    assert curl.told("-X", "OPTIONS")["method"] == "OPTIONS"


def test_an_upload_over_the_limit_gets_its_413(files: Files, upload: str) -> None:
    with served(app, limits=Limits(body=1_000_000)) as site:
        done = Curl(site, ())("-T", upload, "-w", "%{response_code}")
        assert done.stdout.endswith("413")


def test_plain_http_to_a_tls_port_fails_at_once(files: Files) -> None:
    with served(app, tls=Tls(cert=files.cert)) as site:
        curl = Curl(site, ())
        curl.base = curl.base.replace("https", "http")
        assert curl().returncode != 0


def test_a_client_certificate(files: Files) -> None:
    with served(app, tls=Tls(cert=files.cert, ca=files.clients, client_cert="required")) as site:
        curl = Curl(site, ("--cacert", files.ca))
        assert "CN=a user" in curl.told("--cert", files.client)["name"]
        assert curl().returncode != 0


def test_the_proxy_protocol(files: Files) -> None:
    for tls, options in ((Tls(), ()), (Tls(cert=files.cert), ("--cacert", files.ca))):
        with served(app, proxy=Proxy(protocol="on"), tls=tls) as site:
            assert Curl(site, options).told("--haproxy-protocol")["client"] == "127.0.0.1"
            eventually(lambda: site.served.server.runtime.registry.ended == 1)


def test_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with served(app, Config(bind=Bind(uds=path), log=Log(access="off"))) as site:
        site.url = "http://127.0.0.1:80"
        assert Curl(site, ("--unix-socket", path)).told()["client"] is None
