"""The end of a credential is a deadline of the connection: warned, renewed, or ended as its protocol says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from sojourn.asgi.event_stream import event_stream
from sojourn.clock import ManualClock
from sojourn.config import Config, Timeouts, WebSocket
from sojourn.errors import AccessDenied, AuthenticationError, ClientDisconnected
from sojourn.events import ConnectionEnded, RequestEnded
from sojourn.guards.auth.middleware import Authenticate
from sojourn.guards.auth.policy import Authorizer
from sojourn.guards.auth.session import AuthSession
from sojourn.guards.auth.sessions import AuthSessions
from sojourn.scopes.context import SecurityContext, current_security
from sojourn.testing import MemoryClient, MemoryServer, Outcome
from tests.asgi.ws_harness import Client, Served, accept, on_both_loops, serving
from tests.guards.auth.issuing import Issuer, verifier


class Scene:
    """An issuer, sessions and a server in memory, all with one clock."""

    def __init__(self, app: Any, policy: Any = None, **settings: Any) -> None:
        self.clock = ManualClock()
        self.issuer = Issuer(clock=self.clock)
        self.sessions = AuthSessions(clock=self.clock, **settings)
        self.app = Authenticate(app, [verifier(self.issuer)], policy=policy, sessions=self.sessions)
        patient = Timeouts(response_start=None, stream_idle=None)
        self.server = MemoryServer(self.app, Config(timeouts=patient))
        self.server.clock = self.clock

    async def ask(self, path: str = "/", client: MemoryClient | None = None, **claims: Any) -> MemoryClient:
        """Send a request with a token for a minute, and let it begin."""
        client = client or self.server.connect()
        claims = {"exp": self.clock.wall() + 60, **claims}
        client.get(path, f"authorization: Bearer {self.issuer.token(**claims)}")
        await self.server.settle()
        return client

    async def pass_time(self, seconds: float) -> None:
        await self.server.advance(seconds)

    @property
    def session(self) -> AuthSession:
        (session,) = self.sessions
        return session


def play(scene: Scene, act: Callable[[Scene], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(20), scene.server:
            await act(scene)
            assert len(scene.sessions) == 0, "a session is left"

    asyncio.run(main())


async def wait_for_ever(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await asyncio.Event().wait()


def streaming(kind: bytes, data: bytes) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
            await send({"type": "http.response.body", "body": data, "more_body": True})
            await asyncio.Event().wait()

    return app


def test_a_request_without_an_answer_gets_401_when_its_token_ends() -> None:
    async def act(s: Scene) -> None:
        client = await s.ask()
        assert client.connection.principal == "alice"
        await s.pass_time(59.5)
        assert client.received == b""
        await s.pass_time(1.0)
        answer = client.response()
        assert answer.status == 401
        assert json.loads(answer.body)["reason"] == "credentials_expired"
        assert answer.header("www-authenticate") == "Bearer"
        assert s.server.seen(RequestEnded)[-1].ending.reason == "credentials_expired"
        assert client.connection.principal == ""
        # The connection goes on with another token.
        await s.ask(client=client)
        assert s.session.context is not None
        await s.pass_time(61)
        assert client.response().status == 401

    play(Scene(wait_for_ever), act)


def test_a_request_that_is_answered_leaves_no_deadline() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body"})

    async def act(s: Scene) -> None:
        client = await s.ask()
        assert client.response().status == 204
        assert "credential" not in client.connection.due.armed()
        await s.pass_time(70)
        assert client.connection.ending is None

    play(Scene(app), act)


def test_an_answer_in_parts_is_cut_so_that_it_does_not_look_whole() -> None:
    async def act(s: Scene) -> None:
        client = await s.ask()
        await s.pass_time(61)
        answer = client.response()
        assert (answer.status, answer.outcome) == (200, Outcome.RESET)
        assert s.server.seen(ConnectionEnded)[-1].ending.reason == "credentials_expired"

    play(Scene(streaming(b"text/plain", b"half")), act)


def test_an_event_stream_is_told_and_ends_whole() -> None:
    async def act(s: Scene) -> None:
        client = await s.ask()
        await s.pass_time(60.4)
        answer = client.response()
        assert answer.complete
        assert answer.body == b"data: 1\n\nevent: auth-expired\ndata: credentials_expired\n\n"

    play(Scene(streaming(b"text/event-stream", b"data: 1\n\n")), act)


def test_an_event_stream_of_ours_is_told_at_once_and_says_goodbye() -> None:
    async def never() -> Any:
        await asyncio.Event().wait()
        yield

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            headers = [(b"content-type", b"text/event-stream")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async for part in event_stream(never(), heartbeat=None):
                await send({"type": "http.response.body", "body": part, "more_body": True})

    async def act(s: Scene) -> None:
        client = await s.ask()
        await s.pass_time(60.4)
        answer = client.response()
        assert answer.complete
        assert answer.body == b":\n\nevent: auth-expired\ndata: credentials_expired\n\n"
        await s.pass_time(5)

    play(Scene(app), act)


def test_nothing_more_is_sent_to_who_has_expired() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            headers = [(b"content-type", b"text/event-stream")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            while True:
                await s.server.sleep(1.0)
                await send({"type": "http.response.body", "body": b"data: tick\n\n", "more_body": True})

    async def act(s: Scene) -> None:
        client = await s.ask()
        await s.pass_time(70)
        answer = client.response()
        assert answer.complete
        assert answer.body.endswith(b"data: tick\n\nevent: auth-expired\ndata: credentials_expired\n\n")
        assert 50 < answer.body.count(b"tick") <= 60

    s = Scene(app)
    play(s, act)


def test_it_is_warned_a_minute_before() -> None:
    warned: list[AuthSession] = []

    async def act(s: Scene) -> None:
        await s.ask(exp=s.clock.wall() + 100)
        assert not s.session.expiring.is_set()
        await s.pass_time(39.9)
        assert warned == []
        await s.pass_time(0.5)
        assert warned == [s.session]
        assert s.session.expiring.is_set()
        assert 59 < (s.session.remaining or 0) <= 60
        await s.pass_time(61)
        assert len(warned) == 1

    play(Scene(wait_for_ever, on_expiring=warned.append), act)


def test_a_credential_that_was_renewed_counts_as_long_as_the_new_one() -> None:
    async def act(s: Scene) -> None:
        client = await s.ask()
        await s.pass_time(30)
        assert s.session.expiring.is_set()
        await s.session.reauthenticate(s.issuer.token(exp=s.clock.wall() + 200))
        assert not s.session.expiring.is_set()
        await s.pass_time(100)
        assert client.received == b""
        assert not s.session.expiring.is_set()
        await s.pass_time(101)
        assert client.response().status == 401

    play(Scene(wait_for_ever), act)


def test_a_renewed_credential_may_also_end_earlier() -> None:
    async def act(s: Scene) -> None:
        client = await s.ask(exp=s.clock.wall() + 1000)
        await s.session.reauthenticate(s.issuer.token(exp=s.clock.wall() + 10))
        await s.pass_time(11)
        assert client.response().status == 401

    play(Scene(wait_for_ever), act)


def test_whatever_is_renewed_it_ends_at_its_greatest_age() -> None:
    async def act(s: Scene) -> None:
        client = await s.ask(exp=s.clock.wall() + 1000)
        await s.pass_time(20)
        await s.session.reauthenticate(s.issuer.token(exp=s.clock.wall() + 1000))
        await s.pass_time(9)
        assert client.received == b""
        await s.pass_time(2)
        assert client.response().status == 401

    play(Scene(wait_for_ever, max_age=30.0), act)


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"sub": "mallory"}, "not_the_same"),
        ({"tenant": "other"}, "not_the_same"),
        ({"roles": ["editor", "admin"]}, "scope_widened"),
        ({"exp": 5}, "token_expired"),
    ],
)
def test_what_does_not_renew_changes_nothing(claims: dict[str, Any], reason: str) -> None:
    async def act(s: Scene) -> None:
        client = await s.ask(roles=["editor"])
        before = s.session.context
        with pytest.raises(AuthenticationError, match=reason):
            await s.session.reauthenticate(s.issuer.token(**{"roles": ["editor"], **claims}))
        assert s.session.context is before
        await s.pass_time(61)
        assert client.response().status == 401

    play(Scene(wait_for_ever), act)


def test_fewer_roles_count_at_once_in_code_that_runs() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            session = scope["state"]["auth"]
            await session.reauthenticate(s.issuer.token(roles=["reader"]))
            acting = current_security()
            assert acting is not None
            seen.append(acting.roles)
            await asyncio.Event().wait()

    async def act(s: Scene) -> None:
        await s.ask(roles=["reader", "editor"])
        assert seen == [{"reader"}]
        await s.pass_time(301)

    s = Scene(app)
    play(s, act)


@pytest.mark.parametrize("turns", range(6))
def test_who_gives_up_renewing_has_changed_nothing(turns: int) -> None:
    async def policy(*asked: Any) -> bool:
        await asyncio.sleep(0)
        return True

    async def act(s: Scene) -> None:
        client = await s.ask()
        session, before = s.session, s.session.context
        task = asyncio.create_task(session.reauthenticate(s.issuer.token()))
        for _ in range(turns):
            await asyncio.sleep(0)
        if task.done():
            assert session.context is task.result()
            session.end()
        else:
            task.cancel()
            await asyncio.wait([task])
            assert session.context is before
        await s.pass_time(61)
        assert client.response().status == 401

    play(Scene(wait_for_ever, policy), act)


def test_of_two_new_credentials_at_once_one_counts() -> None:
    async def policy(*asked: Any) -> bool:
        await asyncio.sleep(0)
        return True

    async def act(s: Scene) -> None:
        await s.ask()
        tokens = [s.issuer.token(exp=s.clock.wall() + seconds) for seconds in (70, 80)]
        done = await asyncio.gather(*map(s.session.reauthenticate, tokens), return_exceptions=True)
        first, second = done
        assert s.session.context is first
        assert isinstance(second, AuthenticationError)
        assert second.reason == "session_changed"
        await s.pass_time(71)

    play(Scene(wait_for_ever, policy), act)


def test_after_the_end_nothing_is_renewed() -> None:
    async def act(s: Scene) -> None:
        await s.ask()
        session = s.session
        await s.pass_time(61)
        with pytest.raises(AuthenticationError, match="session_over"):
            await session.reauthenticate(s.issuer.token())

    play(Scene(wait_for_ever), act)


def test_a_policy_is_asked_when_a_credential_is_renewed_and_when_it_has_changed() -> None:
    allowed = {"alice", "bob"}

    async def policy(context: SecurityContext, action: str, resource: str) -> bool:
        return context.principal in allowed

    authorizer = Authorizer(policy, version="1")

    async def act(s: Scene) -> None:
        alice, bob = await s.ask(), await s.ask(sub="bob")
        (session,) = s.sessions.of("alice")
        authorizer.version = "2"
        assert await s.sessions.recheck() == 0
        assert {each.context.policy_version for each in s.sessions if each.context} == {"2"}
        allowed.remove("alice")
        with pytest.raises(AccessDenied):
            await session.reauthenticate(s.issuer.token())
        assert await s.sessions.recheck() == 1
        await s.server.settle()
        assert alice.response().status == 403
        assert bob.received == b""
        await s.pass_time(61)

    play(Scene(wait_for_ever, authorizer), act)


def test_what_is_revoked_ends_now_and_only_that() -> None:
    async def act(s: Scene) -> None:
        alice, other, bob = await s.ask(), await s.ask(), await s.ask(sub="bob")
        assert len(s.sessions) == 3
        assert s.sessions.revoke("alice") == 2
        assert s.sessions.revoke("nobody") == 0
        await s.server.settle()
        for client in (alice, other):
            answer = client.response()
            assert (answer.status, json.loads(answer.body)["reason"]) == (401, "credentials_revoked")
        assert bob.received == b""
        await s.pass_time(61)

    play(Scene(wait_for_ever), act)


def test_of_two_around_each_other_both_hold() -> None:
    inner_sessions, lengths = AuthSessions(warn=0.0), [0.1, 1000.0]

    async def inner_by(scope: Any) -> SecurityContext:
        return SecurityContext("inner", expires_at=inner_sessions.clock.wall() + lengths.pop(0))

    inner = Authenticate(wait_for_ever, [inner_by], sessions=inner_sessions)

    async def act(s: Scene) -> None:
        client = await s.ask()
        assert client.connection.principal == "alice"
        (session,) = inner_sessions
        await asyncio.sleep(0.2)  # that of the inner one is real time: the slot of the connection is the outer one's
        await s.server.settle()
        assert client.response().status == 401
        assert session.ended == "credentials_expired"
        client = await s.ask()
        (session,) = inner_sessions
        await s.pass_time(61)
        assert client.response().status == 401
        assert session.ended == ""

    play(Scene(inner), act)


def test_a_clock_that_is_set_is_noticed_within_minutes() -> None:
    async def act(s: Scene) -> None:
        client = await s.ask(exp=s.clock.wall() + 10_000)
        s.clock._wall += 20_000
        await s.pass_time(301)
        assert client.response().status == 401

    play(Scene(wait_for_ever), act)


# -- WebSockets, on real sockets


async def talk(scope: Any, receive: Any, send: Any) -> None:
    """Takes a message for a new token, and says what came of it."""
    if scope["type"] != "websocket":
        return
    await accept(receive, send)
    session: AuthSession = scope["state"]["auth"]
    while (message := await receive())["type"] == "websocket.receive":
        try:
            context = await session.reauthenticate(message["text"])
            await send({"type": "websocket.send", "text": context.principal})
        except AuthenticationError as error:
            await send({"type": "websocket.send", "text": error.reason})
        except ClientDisconnected:
            return


class Socket:
    """A served WebSocket application behind Authenticate, with a clock that tests move."""

    def __init__(self, app: Any = talk, **settings: Any) -> None:
        self.clock = ManualClock()
        self.issuer = Issuer(clock=self.clock)
        self.sessions = AuthSessions(clock=self.clock)
        by = [verifier(self.issuer)]
        self.app = Authenticate(app, by, sessions=self.sessions, **settings)

    async def play(self, act: Callable[[Served], Awaitable[None]]) -> None:
        async with serving(self.app, Config(websocket=WebSocket(ping_interval=None)), clock=self.clock) as served:
            served.clock = self.clock
            await act(served)
        assert len(self.sessions) == 0

    async def connect(self, served: Served, seconds: float = 60.0, **claims: Any) -> Client:
        token = self.issuer.token(exp=self.clock.wall() + seconds, **claims)
        return await served.connect(headers={"Authorization": f"Bearer {token}"})


@on_both_loops
async def test_a_websocket_is_closed_with_4401_when_its_token_ends() -> None:
    socket = Socket()

    async def act(served: Served) -> None:
        client = await socket.connect(served, 15.0)
        assert client.status == 101
        assert served.connection.principal == "alice"
        await served.pass_time(14.8)
        (session,) = socket.sessions
        assert not session.ended
        await served.pass_time(0.8)
        assert await client.closed() == (4401, "the credentials have expired")
        client.close_frame(4401)
        assert (await served.ended()).ending.reason == "credentials_expired"

    await socket.play(act)


@on_both_loops
async def test_a_websocket_that_proves_itself_again_stays_open() -> None:
    socket = Socket()

    async def act(served: Served) -> None:
        client = await socket.connect(served, 10.0)
        for _ in range(3):
            await served.pass_time(8.0)
            client.send(socket.issuer.token(exp=socket.clock.wall() + 10))
            assert await client.text() == "alice"
        client.send(socket.issuer.token(sub="mallory"))
        assert await client.text() == "not_the_same"
        client.send("nonsense")
        assert await client.text() == "invalid_token"
        await served.pass_time(11.0)
        assert (await client.closed())[0] == 4401

    await socket.play(act)


@on_both_loops
async def test_a_websocket_without_a_token_is_refused_before_it_is_accepted() -> None:
    socket = Socket()

    async def act(served: Served) -> None:
        client = await served.connect()
        assert (client.status, client.headers["www-authenticate"]) == (401, "Bearer")
        assert b"no_credentials" in await client.rest()

    await socket.play(act)


@on_both_loops
async def test_a_websocket_may_prove_itself_by_its_first_message() -> None:
    socket = Socket(optional=True)

    async def act(served: Served) -> None:
        client = await served.connect()
        assert client.status == 101
        assert len(socket.sessions) == 0
        client.send(socket.issuer.token(exp=socket.clock.wall() + 10))
        assert await client.text() == "alice"
        assert [session.context.principal for session in socket.sessions if session.context] == ["alice"]
        await served.pass_time(11.0)
        assert (await client.closed())[0] == 4401

    await socket.play(act)


@on_both_loops
async def test_a_revoked_principal_loses_its_websockets() -> None:
    socket = Socket()

    async def act(served: Served) -> None:
        alice, bob = await socket.connect(served), await socket.connect(served, sub="bob")
        await served.pass_time(0.2)
        assert socket.sessions.revoke("alice") == 1
        assert await alice.closed() == (4501, "the credentials were revoked")
        bob.send("nonsense")
        assert await bob.text() == "invalid_token"

    await socket.play(act)


@on_both_loops
async def test_a_token_that_ends_before_the_handshake_is_answered_refuses_it() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            await asyncio.Event().wait()

    socket = Socket(app)

    async def act(served: Served) -> None:
        token = socket.issuer.token(exp=socket.clock.wall() + 3)
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(served.connect(headers={"Authorization": f"Bearer {token}"}))
            while not len(socket.sessions):  # noqa: ASYNC110 - what it waits for has no event
                await asyncio.sleep(0.002)
            await served.pass_time(3.5)
        client = asked.result()
        assert (client.status, client.headers["www-authenticate"]) == (401, "Bearer")
        assert b"credentials_expired" in await client.rest()

    await socket.play(act)
