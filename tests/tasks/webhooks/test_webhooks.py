"""Webhooks to real receivers: what is sent, what counts as taken, and where nothing is ever sent to."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from typing import Any

import msgspec
import pytest
import trustme

from sojourn.errors import AuthenticationError, ConfigError, WebhookFailed, WebhookRefused
from sojourn.tasks.spec import Problem, Spec
from sojourn.tasks.tasks import Tasks
from sojourn.tasks.webhooks import WEBHOOK, Webhooks, verify_webhook
from tests.hub.stand_ins import in_a_loop
from tests.tasks.webhooks.receiver import SECRET, receiving

OTHER = b"o" * 32
BODY = '{"type":"task.completed"}'


class Lookups(Webhooks):
    """Leads all names to addresses of the test's choice."""

    found: tuple[str, ...] = ("127.0.0.1",)
    looked: tuple[str, ...] = ()

    async def _lookup(self, host: str, port: int) -> list[str]:
        self.looked += (host,)
        return list(self.found)


def inside(**options: Any) -> Lookups:
    return Lookups(SECRET, plain=True, private=True, **{"timeout": 5.0, **options})


@in_a_loop
async def test_a_webhook_is_signed_and_its_receiver_can_tell() -> None:
    async with receiving("200 OK") as receiver:
        url = f"http://hooks.example:{receiver.port}/a/b?c=d"
        assert await inside().deliver("m1", url, BODY) == {"status": 200}
        (request,) = receiver.received
        assert request.line == "POST /a/b?c=d HTTP/1.1"
        assert request.headers["host"] == f"hooks.example:{receiver.port}"
        assert request.headers["content-type"] == "application/json"
        assert request.headers["webhook-id"] == "m1"
        assert verify_webhook(request.headers, request.body, SECRET) == {"type": "task.completed"}
        raw = [(name.title().encode(), value.encode()) for name, value in request.headers.items()]
        assert verify_webhook(raw, request.body, [OTHER, SECRET]) == {"type": "task.completed"}
        with pytest.raises(AuthenticationError, match="no signature fits"):
            verify_webhook(request.headers, request.body, OTHER)


@in_a_loop
async def test_while_a_secret_is_replaced_both_are_believed() -> None:
    async with receiving("200 OK") as receiver:
        webhooks = Webhooks([OTHER, SECRET], plain=True, private=True)
        await webhooks.deliver("m1", f"http://127.0.0.1:{receiver.port}/", BODY)
        (request,) = receiver.received
        assert len(request.headers["webhook-signature"].split()) == 2
        for secret in (OTHER, SECRET):
            verify_webhook(request.headers, request.body, secret)


@pytest.mark.parametrize(
    ("answer", "kind", "status", "later"),
    [
        ("500 Oops", WebhookFailed, 500, None),
        ("404 Not Found", WebhookFailed, 404, None),
        ("302 Found\r\nlocation: http://169.254.169.254/", WebhookFailed, 302, None),
        ("429 Slow Down\r\nretry-after: 17", WebhookFailed, 429, 17.0),
        ("503 Later\r\nretry-after: 120", WebhookFailed, 503, 120.0),
        ("410 Gone", WebhookRefused, 410, None),
    ],
)
@in_a_loop
async def test_what_is_not_2xx_was_not_taken(answer: str, kind: type, status: int, later: float | None) -> None:
    async with receiving(answer) as receiver:
        with pytest.raises(WebhookFailed) as caught:
            await inside().deliver("m1", f"http://hooks.example:{receiver.port}/", BODY)
        assert type(caught.value) is kind
        assert (caught.value.status, caught.value.retry_after) == (status, later)
        assert len(receiver.received) == 1, "a redirect is not followed"


@in_a_loop
async def test_a_receiver_that_says_nothing_is_left_in_time() -> None:
    async with receiving("") as receiver:
        with pytest.raises(WebhookFailed, match=r"no answer in 0\.1 s"):
            await inside(timeout=0.1).deliver("m1", f"http://hooks.example:{receiver.port}/", BODY)


@in_a_loop
async def test_a_receiver_that_is_not_there_can_be_tried_again() -> None:
    async with receiving() as receiver:
        port = receiver.port
    with pytest.raises(WebhookFailed, match="can't be connected to") as caught:
        await inside().deliver("m1", f"http://hooks.example:{port}/", BODY)
    assert not isinstance(caught.value, WebhookRefused)


@in_a_loop
async def test_a_name_that_is_not_there_can_be_tried_again() -> None:
    with pytest.raises(WebhookFailed, match="can't be found"):
        await Webhooks(SECRET).deliver("m1", "https://no.such.host.invalid/", BODY)


@in_a_loop
async def test_the_second_address_of_a_name_is_tried_when_nobody_is_at_the_first() -> None:
    async with receiving() as receiver:
        webhooks = inside()
        webhooks.found = ("127.0.0.2", "127.0.0.1")  # the receiver is on the second alone
        assert await webhooks.deliver("m1", f"http://hooks.example:{receiver.port}/", BODY) == {"status": 204}


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1"])
@in_a_loop
async def test_a_name_that_leads_inside_is_never_called(address: str) -> None:
    async with receiving() as receiver:
        webhooks = Lookups(SECRET, plain=True)
        webhooks.found = ("93.184.216.34", address)
        with pytest.raises(WebhookRefused, match="not public"):
            await webhooks.deliver("m1", f"http://hooks.example:{receiver.port}/", BODY)
        assert not receiver.received


@pytest.mark.parametrize("host", ["2130706433", "127.1", "0x7f.1", "localhost"])
@in_a_loop
async def test_other_ways_to_write_an_address_inside_are_found_out(host: str) -> None:
    async with receiving() as receiver:
        with pytest.raises(WebhookFailed):
            await Webhooks(SECRET, plain=True, timeout=5).deliver("m1", f"http://{host}:{receiver.port}/", BODY)
        assert not receiver.received


@in_a_loop
async def test_a_name_is_looked_up_once_and_the_certificate_is_its_own() -> None:
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("hooks.example").configure_cert(tls)
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    async with receiving(tls=tls) as receiver:
        webhooks = Lookups(SECRET, private=True, tls=trust, timeout=5)
        await webhooks.deliver("m1", f"https://hooks.example:{receiver.port}/", BODY)
        assert receiver.received[0].sni == "hooks.example"
        assert webhooks.looked == ("hooks.example",)
        with pytest.raises(WebhookFailed, match="CERTIFICATE_VERIFY_FAILED"):
            await webhooks.deliver("m1", f"https://other.example:{receiver.port}/", BODY)
        assert len(receiver.received) == 1


@in_a_loop
async def test_proxies_of_the_environment_are_not_used() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        patch.setenv("ALL_PROXY", "http://127.0.0.1:9")
        async with receiving() as receiver:
            await inside().deliver("m1", f"http://hooks.example:{receiver.port}/", BODY)


@in_a_loop
async def test_a_delivery_that_is_cancelled_leaves_nothing() -> None:
    async with receiving("") as receiver:
        task = asyncio.ensure_future(inside().deliver("m1", f"http://hooks.example:{receiver.port}/", BODY))
        while not receiver.received:  # noqa: ASYNC110 - what it waits for has no event
            await asyncio.sleep(0.002)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize(
    ("state", "result", "error", "told"),
    [
        ("completed", b'{"n":1}', b"", {"result": {"n": 1}}),
        ("completed", b"", b"", {"result": None}),
        ("completed", b'"%s"' % (b"x" * 70_000), b"", {"omitted": True}),
        (
            "failed",
            b"",
            msgspec.json.encode(Problem("ValueError", "no", "Traceback: secret", 3)),
            {"error": {"type": "ValueError", "detail": "no", "attempt": 3}},
        ),
        ("cancelled", b"", b"", {}),
    ],
)
def test_what_is_told_of_an_end(state: str, result: bytes, error: bytes, told: dict[str, Any]) -> None:
    task = inside(retries=4).delivery("t1", "resize", state, result, error, "https://a.example/")
    assert task.kind == WEBHOOK
    payload = json.loads(task.payload)
    assert payload["url"] == "https://a.example/"
    assert payload["message"] == task.id
    body = json.loads(payload["body"])
    assert body["type"] == f"task.{state}"
    assert body["timestamp"].endswith("Z")
    assert body["data"] == {"id": "t1", "kind": "resize", "state": state} | told
    assert msgspec.json.decode(task.spec, type=Spec).attempts == 5


def test_an_end_that_is_told_again_is_the_same_delivery() -> None:
    told = [inside().delivery("t1", "k", "completed", b"1", b"", "https://a.example/", run="3") for _ in range(2)]
    assert [each.id for each in told] == ["t1.3", "t1.3"]
    others = [inside().delivery("t1", "k", "completed", b"1", b"", "https://a.example/") for _ in range(2)]
    assert others[0].id != others[1].id


def test_webhooks_belong_to_one_service() -> None:
    webhooks = Webhooks(SECRET)
    webhooks.join(Tasks("unused.db"))
    with pytest.raises(ConfigError, match="another service"):
        webhooks.join(Tasks("unused.db"))


@pytest.mark.parametrize("url", ["http://a.example/", "https://127.0.0.1/", "https://b.example/", "nothing"])
def test_a_callback_that_can_not_be_called_is_refused_when_it_is_given(url: str) -> None:
    with pytest.raises(ConfigError, match="a callback that can't be called"):
        Webhooks(SECRET, allow=["a.example"]).check(url)


@pytest.mark.parametrize("secret", ["secret", [], b"short", ["whsec_!"]])
def test_a_bad_secret_is_said_at_once(secret: Any) -> None:
    with pytest.raises(ConfigError, match="secret"):
        Webhooks(secret)


def test_without_httpx_it_says_what_to_install() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "httpx", None)
        with pytest.raises(ConfigError, match=r"pip install 'sojourn\[httpx\]'"):
            Webhooks(SECRET).join(None)  # type: ignore[arg-type]  # it is not asked for
