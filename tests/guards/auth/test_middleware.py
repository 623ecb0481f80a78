"""Who comes in, and what is said to who does not. Without a server: the middleware works under any."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from sojourn.clock import ManualClock
from sojourn.errors import AuthenticationError, SecurityContextError
from sojourn.guards.auth.every import Every
from sojourn.guards.auth.jwt import JwtRules
from sojourn.guards.auth.middleware import Authenticate
from sojourn.guards.auth.policy import Authorizer
from sojourn.guards.auth.session import AuthSession
from sojourn.guards.auth.sessions import AuthSessions
from sojourn.scopes.context import SecurityContext, current_security, security
from tests.guards.auth.issuing import Issuer, verifier

DENIAL = {"websocket.http.response": {}}


class Inside:
    """An application that tells who acts in it."""

    def __init__(self) -> None:
        self.scope: Any = None
        self.who: str | None = None

    @property
    def session(self) -> AuthSession:
        found: AuthSession = self.scope["state"]["auth"]
        return found

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scope = scope
        acting = current_security()
        self.who = acting.principal if acting is not None else None
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"inside"})


class Answer:
    """What a client gets."""

    def __init__(self, sent: list[Any]) -> None:
        self.sent = sent
        self.status = sent[0].get("status") if sent else None
        self.headers = {name.decode(): value.decode() for name, value in sent[0].get("headers", ())} if sent else {}
        body = sent[1]["body"] if len(sent) > 1 else b""
        self.problem: dict[str, Any] = json.loads(body) if body.startswith(b"{") else {}


def scope(*headers: tuple[bytes, bytes], kind: str = "http", path: str = "/orders", **more: Any) -> dict[str, Any]:
    return {"type": kind, "method": "GET", "path": path, "headers": list(headers), "client": None, **more}


def bearing(token: str, **more: Any) -> dict[str, Any]:
    return scope((b"authorization", b"Bearer " + token.encode()), **more)


def ask(app: Any, scope: dict[str, Any]) -> Answer:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect" if scope["type"] == "websocket" else "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return Answer(sent)


def test_the_application_acts_as_who_asks() -> None:
    issuer, inside = Issuer(), Inside()
    sessions = AuthSessions(clock=issuer.clock)
    answer = ask(Authenticate(inside, [verifier(issuer)], sessions=sessions), bearing(issuer.token()))
    assert (answer.status, inside.who) == (200, "alice")
    assert inside.session.context is not None
    assert inside.session.context.principal == "alice"
    assert len(sessions) == 0  # over with the request
    with pytest.raises(SecurityContextError):
        security()


def test_a_good_token_of_now_passes_security() -> None:
    async def inside(scope: Any, receive: Any, send: Any) -> None:
        assert security().principal == "bob"

    async def by(scope: Any) -> SecurityContext:
        return SecurityContext("bob")

    ask(Authenticate(inside, [by]), scope())


def test_nobody_gets_401_with_the_way_to_prove_it() -> None:
    issuer, inside = Issuer(), Inside()
    answer = ask(Authenticate(inside, [verifier(issuer)]), scope())
    assert (answer.status, answer.problem["reason"]) == (401, "no_credentials")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"
    assert inside.scope is None


def test_a_bad_token_gets_401_with_what_failed() -> None:
    issuer, inside = Issuer(), Inside()
    answer = ask(Authenticate(inside, [verifier(issuer)]), bearing(issuer.token(exp=5)))
    assert (answer.status, answer.problem["reason"]) == (401, "token_expired")
    said = answer.headers["www-authenticate"]
    assert said == 'Bearer error="invalid_token", error_description="the token has expired (exp)"'
    assert inside.scope is None


def test_an_error_says_nothing_that_would_break_its_header() -> None:
    async def by(scope: Any) -> SecurityContext:
        raise AuthenticationError("odd", 'a "quote", a \\ and\r\nset-cookie: x=\u20ac')

    by.challenge = "Bearer"  # type: ignore[attr-defined]
    answer = ask(Authenticate(Inside(), [by]), scope())
    said = answer.headers["www-authenticate"].removeprefix('Bearer error="invalid_token", error_description=')
    assert said == '"a ?quote?, a ? and??set-cookie: x=?"'


def test_keys_that_can_not_be_had_are_503_and_try_again() -> None:
    issuer = Issuer()

    async def fail() -> bytes:
        raise OSError

    issuer.answer = fail
    answer = ask(Authenticate(Inside(), [verifier(issuer)]), bearing(issuer.token()))
    assert (answer.status, answer.problem["reason"]) == (503, "keys_unavailable")
    assert answer.headers["retry-after"] == "5"
    assert "www-authenticate" not in answer.headers


def test_a_credential_that_does_not_count_is_not_replaced_by_another_way() -> None:
    issuer, inside = Issuer(), Inside()

    async def anybody(scope: Any) -> SecurityContext:
        return SecurityContext("anybody")

    both = Authenticate(inside, [verifier(issuer), anybody], optional=True)
    assert ask(both, bearing("x.y.z")).status == 401
    assert ask(both, scope()).status == 200
    assert inside.who == "anybody"


def test_where_it_is_optional_nobody_comes_in_as_nobody() -> None:
    issuer, inside = Issuer(), Inside()

    def public(scope: Any) -> bool:
        return bool(scope["path"].startswith("/public/"))

    for optional in (True, public):
        app = Authenticate(inside, [verifier(issuer)], optional=optional)
        assert ask(app, scope(path="/public/a")).status == 200
        assert (inside.who, inside.session.context) == (None, None)
    assert ask(app, scope()).status == 401


def test_a_credential_that_is_over_does_not_count_whoever_gave_it() -> None:
    async def by(scope: Any) -> SecurityContext:
        return SecurityContext("bob", expires_at=1.0)

    answer = ask(Authenticate(Inside(), [by]), scope())
    assert (answer.status, answer.problem["reason"]) == (401, "credentials_expired")


def test_the_policy_is_asked_with_method_and_path() -> None:
    issuer, inside, asked = Issuer(), Inside(), []

    async def policy(context: SecurityContext, action: str, resource: str) -> bool:
        asked.append((context.principal, action, resource))
        return resource != "/secret"

    by = [verifier(issuer)]
    app = Authenticate(inside, by, policy=Authorizer(policy, version="7"), sessions=AuthSessions(clock=issuer.clock))
    assert ask(app, bearing(issuer.token())).status == 200
    assert inside.session.context is not None
    assert inside.session.context.policy_version == "7"
    answer = ask(app, bearing(issuer.token(), path="/secret"))
    assert (answer.status, answer.problem["reason"]) == (403, "access_denied")
    assert ask(app, bearing(issuer.token(), kind="websocket")).status is None
    assert asked == [
        ("alice", "GET", "/orders"),
        ("alice", "GET", "/secret"),
        ("alice", "WEBSOCKET", "/orders"),
    ]


def test_a_websocket_is_refused_before_it_is_accepted() -> None:
    app = Authenticate(Inside(), [verifier(Issuer())])
    answer = ask(app, scope(kind="websocket", extensions=DENIAL))
    assert (answer.sent[0]["type"], answer.status) == ("websocket.http.response.start", 401)
    assert answer.headers["www-authenticate"] == "Bearer"
    assert ask(app, scope(kind="websocket")).sent == [{"type": "websocket.close", "code": 4401}]


def test_a_token_among_the_subprotocols_is_taken_out() -> None:
    issuer, inside = Issuer(), Inside()
    by = verifier(issuer, rules=JwtRules(subprotocol="bearer."))
    app = Authenticate(inside, [by], sessions=AuthSessions(clock=issuer.clock))
    ask(app, scope(kind="websocket", subprotocols=["chat", f"bearer.{issuer.token()}"]))
    assert (inside.who, inside.scope["subprotocols"]) == ("alice", ["chat"])


def test_what_is_in_the_state_stays_and_is_not_changed() -> None:
    issuer, inside = Issuer(), Inside()
    state = {"pool": 1}
    app = Authenticate(inside, [verifier(issuer)], sessions=AuthSessions(clock=issuer.clock))
    ask(app, bearing(issuer.token(), state=state))
    assert inside.scope["state"]["pool"] == 1
    assert state == {"pool": 1}


def test_several_proofs_at_once_end_with_the_first_of_them() -> None:
    ends: dict[str, float | None] = {"token": 500.0, "certificate": 300.0}

    def proof(name: str) -> Any:
        async def by(scope: Any) -> SecurityContext | None:
            return SecurityContext(name, expires_at=ends[name]) if name in ends else None

        return by

    inside, clock = Inside(), ManualClock(wall=100.0)
    way = Every(proof("token"), proof("certificate"))
    app = Authenticate(inside, [way], sessions=AuthSessions(clock=clock))
    assert ask(app, scope()).status == 200
    assert (inside.who, inside.session.expires_at, inside.session.latest) == ("token", 300.0, 300.0)
    ends["certificate"] = None
    ask(app, scope())
    assert inside.session.expires_at == 500.0
    del ends["certificate"]
    assert ask(app, scope()).problem["detail"].startswith("one of several")
    del ends["token"]
    assert ask(app, scope()).problem["reason"] == "no_credentials"


def test_lifespan_goes_through() -> None:
    inside = Inside()
    ask(Authenticate(inside, [verifier(Issuer())]), {"type": "lifespan"})
    assert inside.scope == {"type": "lifespan"}


def test_there_must_be_a_way() -> None:
    with pytest.raises(ValueError, match="by"):
        Authenticate(Inside(), [])


def test_an_error_of_the_application_goes_through() -> None:
    issuer = Issuer()
    sessions = AuthSessions(clock=issuer.clock)

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        ask(Authenticate(broken, [verifier(issuer)], sessions=sessions), bearing(issuer.token()))
    assert len(sessions) == 0


@pytest.mark.parametrize("turns", range(12))
def test_cancelled_anywhere_nothing_is_left(turns: int) -> None:
    issuer = Issuer()
    sessions = AuthSessions(clock=issuer.clock)

    async def policy(*asked: Any) -> bool:
        await asyncio.sleep(0)
        return True

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0)

    async def main() -> None:
        app = Authenticate(inside, [verifier(issuer)], policy=policy, sessions=sessions)
        task = asyncio.create_task(app(bearing(issuer.token()), None, None))  # type: ignore[arg-type]
        for _ in range(turns):
            await asyncio.sleep(0)
        ended = task.done()
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            assert not ended
        assert len(sessions) == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


# -- another server: timers of the loop, and the application is cancelled


class Bare:
    """A server that does no more than ASGI asks."""

    def __init__(self, app: Any, kind: str = "http", left: float = 0.15, **settings: Any) -> None:
        self.sent: list[Any] = []
        self.sessions = AuthSessions(**{"warn": 0.0, **settings})
        self.left = left
        self.app = Authenticate(app, [self.by], sessions=self.sessions)
        self.scope = scope(kind=kind, extensions=DENIAL if kind == "websocket" else {})

    async def by(self, scope: Any) -> SecurityContext:
        return SecurityContext("bob", expires_at=self.sessions.clock.wall() + self.left)

    async def receive(self) -> Any:
        return {"type": "websocket.connect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    def run(self) -> list[Any]:
        async def main() -> None:
            async with asyncio.timeout(5):
                await self.app(self.scope, self.receive, self.send)
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            assert len(self.sessions) == 0

        asyncio.run(main())
        return self.sent


def waiting(*first: dict[str, Any]) -> Any:
    """An application that sends something, and then waits for ever."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in first:
            await send(message)
        await asyncio.Event().wait()

    return app


def start(kind: bytes = b"text/plain") -> dict[str, Any]:
    return {"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]}


def piece(data: bytes) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": True}


EXPIRED = {
    "type": "http.response.body",
    "body": b"event: auth-expired\ndata: credentials_expired\n\n",
    "more_body": False,
}


def test_elsewhere_a_request_without_an_answer_gets_401() -> None:
    answer = Answer(Bare(waiting()).run())
    assert (answer.status, answer.problem["reason"]) == (401, "credentials_expired")


def test_elsewhere_a_websocket_is_closed_with_4401() -> None:
    sent = Bare(waiting({"type": "websocket.accept"}), "websocket").run()
    assert sent[1] == {"type": "websocket.close", "code": 4401, "reason": "the credentials have expired"}


def test_elsewhere_a_websocket_that_was_not_accepted_is_refused() -> None:
    assert Answer(Bare(waiting(), "websocket").run()).status == 401


def test_elsewhere_an_event_stream_is_told_and_ends() -> None:
    assert Bare(waiting(start(b"text/event-stream"), piece(b"data: 1\n\n"))).run()[-1] == EXPIRED


def test_half_an_event_is_not_completed_by_the_goodbye() -> None:
    sent = Bare(waiting(start(b"text/event-stream"), piece(b"data: half"))).run()
    assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


def test_elsewhere_half_an_answer_is_an_error_so_that_it_does_not_look_whole() -> None:
    bare = Bare(waiting(start(), piece(b"half")))
    with pytest.raises(AuthenticationError, match="credentials_expired"):
        bare.run()


def test_elsewhere_an_application_that_swallows_it_ends_in_peace() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await send(start())
            await send({"type": "http.response.body", "body": b"partial result"})

    assert Bare(app).run()[-1]["body"] == b"partial result"


def test_elsewhere_a_cancellation_of_the_servers_own_is_not_swallowed() -> None:
    bare = Bare(waiting(), left=60.0)

    async def main() -> None:
        task = asyncio.create_task(bare.app(bare.scope, bare.receive, bare.send))  # type: ignore[arg-type]
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert bare.sent == []


def test_elsewhere_it_is_warned_before() -> None:
    warned: list[AuthSession] = []
    bare = Bare(waiting(), left=0.3, warn=0.2, on_expiring=warned.append)
    bare.run()
    assert len(warned) == 1


def test_a_warning_that_fails_does_not_keep_it_alive() -> None:
    def fail(session: AuthSession) -> None:
        raise RuntimeError("mine")

    assert Answer(Bare(waiting(), warn=0.1, on_expiring=fail).run()).status == 401


@pytest.mark.parametrize("settings", [{"warn": -1.0}, {"warn": float("nan")}, {"max_age": 0.0}])
def test_times_that_make_no_sense_are_refused(settings: Any) -> None:
    with pytest.raises(ValueError, match="warn"):
        AuthSessions(**settings)
