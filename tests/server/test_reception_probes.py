"""Probes over a limit of connections: answered on real sockets, while everybody else is refused."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme

from sojourn.config import Admin, Drain, Limits, Timeouts, Tls
from sojourn.events import RequestEnded
from tests.server.serving import Run, both_loops, serving, until

GET = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
PROBE = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
PROBES = Admin(probes=True)
AT_ONCE = Drain(delay=0.0)


class Secure(NamedTuple):
    server: Tls
    client: ssl.SSLContext


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Secure:
    file: Path = tmp_path_factory.mktemp("tls") / "both.pem"
    authority, context = trustme.CA(), ssl.create_default_context()
    authority.issue_cert("a.example").private_key_and_cert_chain_pem.write_to_path(str(file))
    authority.configure_trust(context)
    return Secure(Tls(cert=str(file)), context)


def refused(answer: bytes) -> bool:
    return answer.startswith(b"HTTP/1.1 503 ") and b'"reason":"connection_limit"' in answer


@both_loops
@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "TLS"])
def test_over_the_limit_a_probe_is_answered_and_its_connection_ends(run: Run, secure: Secure, encrypted: bool) -> None:
    async def main() -> None:
        context = secure.client if encrypted else None
        tls = secure.server if encrypted else Tls()
        async with serving(limits=Limits(connections=1), drain=AT_ONCE, admin=PROBES, tls=tls) as served:
            first = await served.connect(context)
            for _ in range(3):
                client = await served.connect(context)
                client.send(PROBE)
                answer = await client.rest()
                assert answer.startswith(b"HTTP/1.1 200 ")
                assert answer.endswith(b"\r\n\r\nok")
                assert b"\r\nconnection: close\r\n" in answer
                assert refused(await served.get(tls=context))
            await until(lambda: len(served.connections) == 1)
            first.get()
            await first.head()
            assert served.ended_by == {"completed": 3, "connection_limit": 3}

    run(main())


@both_loops
def test_over_the_limit_a_probe_may_come_in_pieces_and_what_follows_it_is_not_served(run: Run) -> None:
    async def main() -> None:
        async with serving(limits=Limits(connections=1), drain=AT_ONCE, admin=PROBES) as served:
            await served.connect()
            client = await served.connect()
            for at in range(0, len(PROBE), 8):
                client.send(PROBE[at : at + 8])
                await asyncio.sleep(0.005)
            assert (await client.rest()).endswith(b"ok")
            client = await served.connect()
            client.send(PROBE + GET)
            answer = await client.rest()
            assert answer.count(b"HTTP/1.1 ") == 1
            assert [event.target for event in served.of(RequestEnded)] == [b"/livez", b"/livez"]

    run(main())


@both_loops
@pytest.mark.parametrize("data", [b"", b"GET /livez HTTP/1.1\r\n", b"GET /livezzz HTTP/1.1\r\nHost: a\r\n\r\n"])
def test_over_the_limit_who_does_not_prove_to_be_a_probe_in_time_is_refused(run: Run, data: bytes) -> None:
    async def main() -> None:
        timeouts = Timeouts(linger=0.3)
        async with serving(limits=Limits(connections=1), drain=AT_ONCE, admin=PROBES, timeouts=timeouts) as served:
            await served.connect()
            client = await served.connect()
            client.send(data)
            assert refused(await client.rest())
            await until(lambda: served.ended_by["connection_limit"] == 1)

    run(main())


@both_loops
def test_over_the_limit_no_handshake_lasts_longer_than_a_refusal(run: Run, secure: Secure) -> None:
    async def main() -> None:
        config = {"limits": Limits(connections=1), "timeouts": Timeouts(linger=0.3), "tls": secure.server}
        async with serving(**config, drain=AT_ONCE, admin=PROBES) as served:
            await served.connect(secure.client)
            silent = [await served.connect() for _ in range(20)]
            assert len(served.connections) <= 1 + 16
            assert [await client.rest() for client in silent] == [b""] * 20
            await until(lambda: len(served.connections) == 1)
            assert set(served.ended_by) <= {"connection_limit", "tls_timeout"}
            client = await served.connect(secure.client)  # there is room again
            client.send(PROBE)
            assert (await client.rest()).endswith(b"ok")

    run(main())
