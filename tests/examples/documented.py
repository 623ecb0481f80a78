"""What each example of the documentation must do; ``tests/test_docs.py`` executes it and calls its check."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import inspect
import json
import re
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import trustme
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

import sojourn
from sojourn.clock import SystemClock
from sojourn.config import Config, Timeouts, Tls
from sojourn.policy.egress import Egress
from tests.databases import redis_server
from tests.examples.serving import serving
from tests.guards.auth.issuing import Issuer
from tests.guards.layers.frameworks import django_settings

__all__ = ["CHECKS", "Names", "late"]

DOCS: Final = Path(__file__).resolve().parents[2] / "docs"

#: The JSON protocol of a hub.
V1: Final = Subprotocol("sojourn.v1")

#: What an example defined.
Names = dict[str, Any]


def check_readme(names: Names) -> None:
    with serving(names["app"]) as url:
        began = time.monotonic()
        answer = httpx.get(f"{url}/report")
        assert answer.status_code == 504
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["reason"] == "handler_deadline"
        assert time.monotonic() - began < 5


def check_first_service(names: Names) -> None:
    with serving(names["app"]) as url:
        assert httpx.get(f"{url}/hello").json() == {"hello": "world"}
        assert httpx.get(f"{url}/report?work=0.05").json() == {"worked": 0.05}
        page = (DOCS / "tutorial" / "first-service.md").read_text()
        (shown,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
        assert httpx.get(f"{url}/report?work=30").json() == json.loads(shown)


def check_long_connection(names: Names) -> None:
    with serving(names["app"]) as url:
        with connect(f"{url.replace('http', 'ws', 1)}/echo") as socket:
            socket.send("hello")
            assert socket.recv(timeout=5) == "hello"
        stream = threading.Thread(target=collect, args=(f"{url}/ticks", lines := []))
        stream.start()
        until(lambda: "data: 0" in lines)
    stream.join(10)  # the server has stopped, and the stream is complete
    assert lines[:4] == [":", "", "id: 0", "data: 0"]
    assert 1000 <= retry_of(lines) <= 5000


def retry_of(lines: list[str]) -> int:
    """The milliseconds after which a stream that has ended wants its client back."""
    (text,) = [line.removeprefix("retry: ") for line in lines if line.startswith("retry: ")]
    return int(text)


def collect(url: str, lines: list[str]) -> None:
    """Read a stream to its end."""
    with httpx.stream("GET", url, timeout=20) as answer:
        lines.extend(answer.iter_lines())  # one by one: the caller watches them come


def check_event_stream(names: Names) -> None:
    with serving(names["app"]) as url:
        stream = threading.Thread(target=collect, args=(f"{url}/orders", lines := []))
        stream.start()
        httpx.post(f"{url}/orders/apples")
        httpx.post(f"{url}/orders/pears")
        sold = ["event: sold", "id: 2", 'data: {"order":"pears"}']
        until(lambda: lines[-4:-1] == sold)
        with httpx.stream("GET", f"{url}/orders", headers={"last-event-id": "1"}) as answer:
            again = answer.iter_lines()
            assert [next(again) for _ in range(5)] == [":", "", *sold]
    stream.join(10)
    assert "event: goodbye" in lines
    assert 1000 <= retry_of(lines) <= 5000


def check_browser_client(names: Names) -> None:
    with serving(names["app"]) as url, connect(f"{url.replace('http', 'ws')}/hub/?ch=chat:1&since=") as socket:
        position = json.loads(socket.recv(timeout=10))["_id"]
        httpx.post(f"{url}/hub/", json={"id": 1, "pub": {"ch": "chat:1", "d": {"text": "hello"}}}).raise_for_status()
        message = json.loads(socket.recv(timeout=10))
        assert message == {"_id": message["_id"], "text": "hello"}
        assert message["_id"] != position


def check_on_drain(names: Names) -> None:
    with serving(names["app"]) as url:
        assert httpx.post(f"{url}/jobs/one").json() == {"waiting": 1, "last call": False}
        assert names["saved"] == []
    assert names["saved"] == ["one"]


def check_client_leaves(names: Names) -> None:
    with serving(names["app"], Config(timeouts=Timeouts(disconnect_grace=0.3))) as url:
        with httpx.stream("GET", f"{url}/rows") as answer:
            assert next(answer.iter_text()) == "first row\n"
        until(lambda: names["released"] == ["database connection"])


def check_decorators(names: Names) -> None:
    with serving(names["app"]) as url:
        body = bytes(9 * 1024 * 1024)  # above the 8 MiB of other routes
        assert httpx.post(f"{url}/upload", content=body).json() == {"bytes": len(body)}
        assert httpx.get(f"{url}/report").json() == {"report": "ready"}


def check_extension(names: Names) -> None:
    with serving(names["app"]) as url:
        ordinary = httpx.post(url, content=b"x" * 100).text
        premium = httpx.post(url, content=b"x" * 100, headers={"x-plan": "premium"}).text
        assert float(ordinary.split()[2]) <= 2.0 < float(premium.split()[2]) <= 20.0
        assert httpx.post(url, content=b"x" * 2000).status_code == 413


def check_client_certificate(names: Names) -> None:
    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1")
    client = authority.issue_cert("worker-7@example.org", common_name="worker-7")
    stranger, known = ssl.create_default_context(), ssl.create_default_context()
    with (
        server.private_key_and_cert_chain_pem.tempfile() as cert,
        authority.cert_pem.tempfile() as ca,
        client.private_key_and_cert_chain_pem.tempfile() as shown,
    ):
        for context in (stranger, known):
            context.load_verify_locations(ca)
        known.load_cert_chain(shown)
        with serving(names["app"], Config(tls=Tls(cert=cert, ca=ca, client_cert="optional"))) as url:
            assert httpx.get(url, verify=stranger).status_code == 401
            assert "CN=worker-7" in httpx.get(url, verify=known).text


def check_goodbye(names: Names) -> None:
    with serving(names["app"]) as url:
        reader = threading.Thread(target=read_until_closed, args=(f"{url.replace('http', 'ws', 1)}/feed", codes := []))
        reader.start()
        until(lambda: codes == ["open"])
    reader.join(10)
    assert codes == ["open", 1012]


def read_until_closed(url: str, codes: list[object]) -> None:
    """Read a WebSocket to its end; the list gets ``open``, then the close code."""
    with connect(url) as socket:
        codes.append("open")
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=20)
        codes.append(socket.close_code)


def check_run(names: Names) -> None:
    assert list(inspect.signature(sojourn.run).parameters)[:2] == ["app", "config"]
    assert names["config"].bind.port == 8080
    assert names["config"].timeouts.handler == 30.0
    with serving(names["app"], names["config"]) as url:
        assert httpx.get(url).text == "hello\n"


def check_server(names: Names) -> None:
    assert asyncio.run(names["main"]()) == ["connected_no_data"]


def check_served_time(names: Names) -> None:
    assert names["served"] == pytest.approx(1.0)


def check_reasons(names: Names) -> None:
    row = sojourn.REASONS["pong_timeout"]
    assert names["summary"] == f"NETWORK NETWORK 1006 True: {row.advice}"


def check_half_close(names: Names) -> None:
    assert names["answer"].startswith(b"HTTP/1.1 200 OK")
    assert names["answer"].endswith(b"late, but whole")


def check_replay_fastapi(names: Names) -> None:
    def sign(body: bytes) -> dict[str, str]:
        signature = hmac.new(names["SECRET"], body, hashlib.sha256).hexdigest()
        return {"x-signature": signature, "content-type": "application/json"}

    with serving(names["app"]) as url:
        body = b'{"apples": 7}'
        assert httpx.post(f"{url}/hook", content=body, headers=sign(body)).json() == {"got": {"apples": 7}}
        assert httpx.post(f"{url}/hook", content=body, headers=sign(b"other")).status_code == 403
        large = bytes(257 * 1024)
        assert httpx.post(f"{url}/hook", content=large, headers=sign(large)).status_code == 413


def check_replay_django(names: Names) -> None:
    with django_settings(), serving(names["make_application"]()) as url:
        assert httpx.post(f"{url}/anywhere", content=b"x" * 1000).text == "fine"
    assert names["Audit"].sizes == [1000]


def check_guard_starlette(names: Names) -> None:
    with serving(names["guarded"]) as url:
        assert httpx.get(f"{url}/api/users").text == "ann"
    assert [found.key for found in names["found"]] == ["scope['path']"]
    assert names["found"][0].layer.name.endswith(".Prefix")


async def late(scope: Any, receive: Any, send: Any) -> None:
    """Answers after a while."""
    await asyncio.sleep(0.3)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"late, but whole"})


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


#: The checks by the name of their example.
def check_deadline(names: Names) -> None:
    with serving(names["app"]) as url:
        found = httpx.get(f"{url}/orders/1").json()
        assert found["order"] == 1
        assert 1.0 < found["left"] <= 2.0
        late = httpx.get(f"{url}/orders/13")
        page = (DOCS / "how-to" / "deadlines-that-flow.md").read_text()
        (shown,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
        assert json.loads(shown).items() <= late.json().items()


def check_background(names: Names) -> None:
    with serving(names["app"]) as url:
        answer = httpx.post(f"{url}/orders/7").json()
        assert answer["fingerprint"].startswith("7902699be42c8a8e")
        until(lambda: "mail to alice@a.example" in names["log"])
    assert "watching 7" in names["log"]


def check_security_context(names: Names) -> None:
    with serving(names["app"]) as url, httpx.Client(base_url=url) as client:
        names["TOKENS"]["t-bob"] = sojourn.SecurityContext("bob")
        assert client.get("/report").status_code == 401
        assert client.get("/report", headers={"x-token": "t-alice"}).json() == {"for": "alice"}
        assert client.get("/report", headers={"x-token": "t-bob"}).status_code == 403
        assert client.get("/report").status_code == 401


class _Slow:
    """A cache that hangs, a connection whose return takes a moment."""

    returned = False

    async def get(self, item: str) -> str:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    async def write(self) -> None:
        await self.get("")

    async def give_back(self) -> None:
        await asyncio.sleep(0.05)
        self.returned = True


class _Quick:
    async def get(self, item: str) -> str:
        return f"price of {item}"


def check_shielded(names: Names) -> None:
    connection = _Slow()

    async def main() -> None:
        async with sojourn.deadline(0.02):
            await names["save"](connection)

    with pytest.raises(sojourn.DeadlineExceeded):
        asyncio.run(main())
    assert connection.returned


def check_budget(names: Names) -> None:
    assert asyncio.run(names["price"](_Slow(), _Quick(), "tea")) == "price of tea"


def check_outgoing_guards(names: Names) -> None:
    tries: list[str] = []

    async def ask(account: str) -> int:
        tries.append(account)
        if len(tries) in (1, 2):
            raise ConnectionError("reset")
        if len(tries) == 4:
            await asyncio.get_running_loop().create_future()
        return 12

    assert asyncio.run(names["balance"]("ann")) == 12
    names["ask"] = ask
    assert asyncio.run(names["balance"]("ann")) == 12
    assert asyncio.run(names["balance"]("bob")) == 12  # the first of its tries takes too long
    assert tries == ["ann", "ann", "ann", "bob", "bob"]
    names["circuit"].trip()
    with pytest.raises(sojourn.CircuitOpen):
        asyncio.run(names["balance"]("ann"))
    figures = names["circuit"].figures().counts
    assert (figures["failure"], figures["success"]) == (3, 3)


def check_outgoing_fallback(names: Names) -> None:
    with serving(names["app"]) as url:
        assert httpx.get(f"{url}/prices/tea").json() == {"tea": 12}
        names["prices"].trip()
        assert httpx.get(f"{url}/prices/tea").json() == {"tea": 12}
        answer = httpx.get(f"{url}/prices/milk")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")


def check_outgoing_workers(names: Names) -> None:
    with serving(names["app"]) as url:
        assert httpx.get(f"{url}/thumbnails/cat").text == "cat in small"
        slots = names["thumbnails"]._line.slots
        slots.running, slots.queue = slots.limit, 0  # a burst
        assert httpx.get(f"{url}/thumbnails/cat").text == "a grey box"
        slots.running = 0


def check_rate_limits(names: Names) -> None:
    with serving(names["app"]) as url:

        def export(tenant: str) -> tuple[int, str | None]:
            answer = httpx.get(f"{url}/export", headers={"x-tenant": tenant})
            return answer.status_code, answer.headers.get("retry-after")

        assert [export("acme")[0] for _ in range(2)] == [200, 200]
        assert export("acme") == (429, "1800")
        assert export("other")[0] == 200
        assert export("third")[0] == 200
        assert export("fourth") == (429, "12")  # it is the client's sixth
        began = time.monotonic()
        with connect(f"{url.replace('http', 'ws', 1)}/echo") as socket:
            for number in range(8):
                socket.send(str(number))
            assert [socket.recv(timeout=5) for _ in range(8)] == [str(number) for number in range(8)]
        assert time.monotonic() - began > 0.08  # three at once, five more at 50 a second


def check_authentication(names: Names) -> None:
    issuer = Issuer()
    issuer.clock = SystemClock()  # type: ignore[assignment]
    names["tokens"].keys[issuer.name]._fetch = issuer.fetch
    headers = {"authorization": f"Bearer {issuer.token()}"}
    with serving(names["app"]) as url:
        assert httpx.get(f"{url}/me").status_code == 401
        assert httpx.get(f"{url}/me", headers=headers).json() == {"name": "alice"}
        soon = issuer.token(exp=int(time.time()) + 10)
        chat = connect(f"{url.replace('http', 'ws', 1)}/chat", additional_headers={"authorization": f"Bearer {soon}"})
        with chat as socket:
            until(lambda: any(session.expiring.is_set() for session in names["sessions"]))
            socket.send(json.dumps({"text": "hello"}))
            assert json.loads(socket.recv(timeout=5)) == {"from": "alice", "text": "hello"}
            assert 0 < json.loads(socket.recv(timeout=5))["renew within"] <= 40
            socket.send(json.dumps({"token": issuer.token()}))
            until(lambda: not any(session.expiring.is_set() for session in names["sessions"]))
            admin = {"authorization": f"Bearer {issuer.token(sub='root', roles=['admin'])}"}
            assert httpx.delete(f"{url}/people/alice", headers=admin).json() == {"ended": 1}
            with pytest.raises(ConnectionClosed) as caught:
                socket.recv(timeout=5)
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 4501


def check_authorization(names: Names) -> None:
    web = {"x-forwarded-client-cert": "Hash=1;URI=spiffe://prod.example/web"}
    with serving(names["app"]) as url:
        assert httpx.get(f"{url}/health").json() == "well"
        assert httpx.get(f"{url}/stock/tea").status_code == 401
        assert httpx.get(f"{url}/stock/tea", headers=web).json() == {"asked by": "spiffe://prod.example/web"}
        assert httpx.get(f"{url}/stock/gold", headers=web).status_code == 403


def check_outgoing_calls(names: Names) -> None:
    async def upstream(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise NotImplementedError
        left = dict(scope["headers"])[b"request-timeout-ms"]
        await asyncio.sleep(5 if scope["path"].startswith("/slow") else 0)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": left})

    with serving(upstream, Config(timeouts=Timeouts(disconnect_grace=0.1))) as other, serving(names["app"]) as url:
        assert 100 <= httpx.get(f"{url}/checkout", params={"upstream": other}).json() <= 300
        began = time.monotonic()
        answer = httpx.get(f"{url}/checkout", params={"upstream": f"{other}/slow"})
        assert time.monotonic() - began < 3
        assert answer.status_code in (500, 504)


def check_fault_proxy(names: Names) -> None:
    with redis_server() as server:
        port = server.port
        assert asyncio.run(names["drill"](port)) == b"value"


def check_python_client(names: Names) -> None:
    rule = sojourn.Channel("chat:{room}", history=sojourn.History(size=10), public=True, publish=True)
    hub = sojourn.Hub(channels=[rule])
    with serving(hub.app()) as url:

        async def main() -> str:
            state: list[str] = []
            async with sojourn.HubClient(f"{url}/hub", token="t") as other:
                room = await other.join("chat:1")
                following = asyncio.ensure_future(names["follow"](f"{url}/hub", state))
                await anext(room)
                await room.publish({"text": "goodbye"})
                position = await following
            assert state == ["hello", "goodbye"]
            return str(position)

        assert asyncio.run(main()).endswith(".2")


def check_routing(names: Names) -> None:
    with serving(names["app"]) as url:
        assert httpx.get(f"{url}/users/1").json() == {"name": "Ada"}
        assert httpx.get(f"{url}/users/9").status_code == 404
        made = httpx.post(f"{url}/users", json={"name": "Grace"})
        assert (made.status_code, made.headers["location"]) == (201, "/users/2")
        assert httpx.post(f"{url}/users", json={"nome": "Grace"}).status_code == 422
        assert httpx.post(f"{url}/users/1").headers["allow"] == "GET, HEAD, OPTIONS"
        assert httpx.get(f"{url}/users/1/", follow_redirects=True).json() == {"name": "Ada"}
        with connect(f"{url.replace('http', 'ws', 1)}/echo/blue") as socket:
            socket.send("hello")
            assert socket.recv(timeout=5) == "blue: hello"


def check_routing_parts(names: Names) -> None:
    with serving(names["app"]) as url:
        assert httpx.get(f"{url}/health/ping").text == "pong"
        assert httpx.get(f"{url}/tenants/blue/users/7").json() == {"greeting": "hello", "tenant": "blue", "id": 7}


def check_fast_routes(names: Names) -> None:
    with serving(names["app"]) as url:
        assert httpx.get(f"{url}/items/7").json() == {"id": 7}
        assert httpx.get(f"{url}/items/x").status_code == 422


def check_fan_out(names: Names) -> None:
    with serving(names["app"]) as url:
        sockets = url.replace("http", "ws", 1)
        with connect(f"{sockets}/room/1") as plain, connect(f"{sockets}/hub/?ch=chat:1", subprotocols=[V1]) as client:
            assert "hello" in json.loads(client.recv(timeout=5))
            plain.send("good morning")
            assert plain.recv(timeout=5) == "good morning"
            told = [json.loads(client.recv(timeout=5)) for _ in range(2)]
            (said,) = [each for each in told if "d" in each]  # the other is presence
            assert said["d"] == "good morning"
            client.send('{"id":1,"join":{"ch":"chat:closed"}}\n{"id":2,"join":{"ch":"nowhere"}}')
            for _ in range(2):
                assert json.loads(client.recv(timeout=5))["error"]["code"] == "forbidden"
        assert httpx.post(f"{url}/price/EURUSD/1.08").json() == {"members": 0}
        polled = httpx.get(f"{url}/hub/", params={"ch": "price:EURUSD", "wait": 1, "since": "x.0"}).json()
        assert [each["d"] for each in polled["pubs"]] == [{"symbol": "EURUSD", "price": 1.08}]


def check_fan_out_who(names: Names) -> None:
    with serving(names["hub"].app()) as url:
        sockets = url.replace("http", "ws", 1)
        with connect(f"{sockets}/?token=open+sesame", subprotocols=[V1]) as client:
            assert json.loads(client.recv(timeout=5))["hello"]["user"] == "ali baba"
        with pytest.raises(InvalidStatus, match="401"), connect(f"{sockets}/?token=open"):
            pass


def check_fan_out_engines(names: Names) -> None:
    assert not names["many_nodes"].engine.available
    assert not names["one_host"].engine.available


def check_sessions(names: Names) -> None:
    store = sojourn.MemorySessions()
    app = sojourn.Sessions(names["app"], store, cookie=sojourn.SessionCookie(secure=False))
    names["served"] = app
    with serving(app) as url, httpx.Client(base_url=url) as here, httpx.Client(base_url=url) as there:
        for client in (here, there):
            client.post("/login", params={"name": "ann"})
        header = {"cookie": f"session={there.cookies['session']}"}
        with connect(f"{url.replace('http', 'ws', 1)}/chat", additional_headers=header) as socket:
            socket.send("hello")
            assert socket.recv(timeout=5) == "1 so far"
            until(lambda: there.get("/me").json() == {"user": "ann", "said": ["hello"]})
            here.post("/elsewhere")
            with pytest.raises(ConnectionClosed):
                socket.recv(timeout=2)
            assert socket.close_code == 4501
        assert here.get("/me").json() == {"user": "ann", "said": []}
        here.post("/logout")
        assert [client.get("/me").json()["user"] for client in (here, there)] == [None, None]


def check_sessions_and_tokens(names: Names) -> None:
    issuer = Issuer()
    issuer.clock = SystemClock()  # type: ignore[assignment]
    names["tokens"].keys[issuer.name]._fetch = issuer.fetch
    with serving(names["served"]) as url:
        assert httpx.get(url).status_code == 401
        token = {"authorization": f"Bearer {issuer.token()}"}
        assert httpx.get(url, headers=token).text == "alice by jwt"


def check_durable_tasks(names: Names) -> None:
    with journaled(names), serving(names["app"]) as url:
        started = httpx.post(f"{url}/orders/7/export")
        assert started.status_code == 202
        assert started.headers["retry-after"]
        again = httpx.post(f"{url}/orders/7/export")
        assert again.headers["location"] == started.headers["location"]
        task = f"{url}{started.headers['location']}"
        with httpx.stream("GET", task, headers={"accept": "text/event-stream"}, timeout=10) as answer:
            lines = list(answer.iter_lines())
        assert [line for line in lines if line.startswith("id: ")][:10] == [f"id: {number}" for number in range(1, 11)]
        assert "event: end" in lines
        assert httpx.get(task).json()["result"] == {"order": 7, "pages": 10}


def check_durable_tasks_checkpoint(names: Names) -> None:
    async def main(path: str) -> None:
        async with names["tasks"] as tasks:
            task_id = (await tasks.start(names["count"], 60)).id
            await asyncio.sleep(0.2)
        again = sojourn.Tasks(path)
        again.define(names["count"])
        async with again:
            left = await again.get(task_id)
            assert (left.state, left.interruptions) in (("pending", 1), ("running", 1))
            assert int(left.checkpoint) > 0
            assert await again.result(task_id, 10) == 60

    with journaled(names) as path:
        asyncio.run(main(path))


def check_durable_tasks_periodic(names: Names) -> None:
    with journaled(names), serving(names["tasks"].app()):
        until(lambda: names["seen"][:2] == ["heartbeat", "heartbeat"])
        assert "clean up" not in names["seen"]


def check_durable_tasks_webhooks(names: Names) -> None:
    tasks, told = names["tasks"], names["told"]
    tasks.webhooks._egress = Egress(plain=True, private=True)

    async def main(url: str) -> None:
        async with tasks:
            await tasks.start(names["ship"], 7, callback=f"{url}/hooks")
            await asyncio.to_thread(until, lambda: bool(told))

    with serving(names["receiver"]) as url, journaled(names):
        asyncio.run(main(url))
    (said,) = told
    assert (said["type"], said["data"]["result"]) == ("task.completed", "order 7 is shipped")


@contextmanager
def journaled(names: Names) -> Iterator[str]:
    """Keep the tasks of an example in a folder of their own."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/tasks.db"
        names["tasks"].journal = sojourn.SqliteJournal(path)
        yield path


CHECKS: Final[dict[str, Callable[[Names], None]]] = {
    name.removeprefix("check_").replace("_", "-"): check
    for name, check in list(globals().items())
    if name.startswith("check_")
}
