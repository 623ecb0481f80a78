"""A session over HTTP: begun, found, changed, rotated and ended; by nobody who only knows what it was."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sojourn.clock import ManualClock
from sojourn.errors import ConfigError, SessionStoreUnavailable
from sojourn.guards.auth.middleware import Authenticate
from sojourn.scopes.context import SecurityContext, current_security
from sojourn.sessions.cookie import SessionCookie
from sojourn.sessions.ids import key_of, new_id
from sojourn.sessions.memory import MemorySessions
from sojourn.sessions.middleware import Sessions
from sojourn.sessions.stored import GRACE, Draft
from sojourn.sessions.user import session_user
from tests.sessions.scene import browser, cookie_of, endpoint, play, until


def counting(session: Any) -> int:
    session["n"] = session.get("n", 0) + 1
    return int(session["n"])


def test_what_is_set_is_there_with_the_next_request() -> None:
    async def main() -> None:
        store = MemorySessions()
        async with browser(Sessions(endpoint(counting), store)) as client:
            answers = [(await client.get("/")).text for _ in range(3)]
        assert answers == ["1", "2", "3"]
        assert len(store) == 1

    play(main())


def test_the_cookie_is_for_this_host_over_https_and_for_no_script_or_other_site() -> None:
    async def main() -> None:
        app = Sessions(endpoint(counting), MemorySessions(), absolute=7200.0)
        async with browser(app) as client:
            answer = await client.get("/")
        text, *attributes = answer.headers["set-cookie"].split("; ")
        assert text.startswith("__Host-session=")
        assert attributes == ["Path=/", "Max-Age=7200", "HttpOnly", "Secure", "SameSite=Lax"]
        assert answer.headers["vary"] == "Cookie"
        assert answer.headers["cache-control"] == "no-store"

    play(main())


def test_who_sets_nothing_gets_no_cookie_and_no_room_in_the_store() -> None:
    async def main() -> None:
        store = MemorySessions()
        async with browser(Sessions(endpoint(dict), store)) as client:
            answer = await client.get("/")
        assert "set-cookie" not in answer.headers
        assert len(store) == 0

    play(main())


@pytest.mark.parametrize("chosen", ["q" * 43, "short", "x" * 43 + "!", ""])
def test_an_id_that_a_client_has_chosen_is_never_adopted(chosen: str) -> None:
    async def main() -> None:
        store = MemorySessions()
        async with browser(Sessions(endpoint(counting), store), chosen) as client:
            given = cookie_of(await client.get("/"))
        assert given
        assert given != chosen
        assert await store.load(key_of(chosen)) is None
        assert await store.load(key_of(given)) is not None

    play(main())


def test_the_store_knows_only_the_hash_of_an_id() -> None:
    async def main() -> None:
        store = MemorySessions()
        async with browser(Sessions(endpoint(counting), store)) as client:
            given = cookie_of(await client.get("/"))
        assert list(store._unknown) == [key_of(given)]
        assert given not in repr(store._unknown)

    play(main())


def login(session: Any) -> str:
    session["user"] = "ann"
    return session.key[:0]


def test_a_login_gives_a_new_id_and_who_had_planted_the_old_one_has_nothing() -> None:
    """Session fixation, with an id that the store does know."""

    async def main() -> None:
        clock = ManualClock()
        store = MemorySessions(clock=clock)
        sessions = Sessions(endpoint(lambda session: login(session) if "cart" in session else counting(session)), store)
        async with browser(Sessions(endpoint(lambda s: s.update(cart=1)), store)) as attacker:
            planted = cookie_of(await attacker.get("/"))
        async with browser(sessions, planted) as victim:
            fresh = cookie_of(await victim.get("/"))
        assert fresh not in ("", planted)
        seen: list[Any] = []
        look = Sessions(endpoint(lambda s: seen.append((dict(s), s.user, s.read_only))), store)
        for given in (planted, fresh):
            async with browser(look, given) as client:
                await client.get("/")
        assert seen == [({"cart": 1}, "", True), ({"cart": 1, "user": "ann"}, "ann", False)]
        # What is written by the old id goes nowhere, and it is over soon.
        write = Sessions(endpoint(lambda s: s.update(evil=1)), store)
        async with browser(write, planted) as client:
            assert cookie_of(await client.get("/")) == ""
        assert write.lost == 1
        clock.advance(GRACE + 1)
        async with browser(look, planted) as client:
            await client.get("/")
        async with browser(look, fresh) as client:
            await client.get("/")
        assert seen[2:] == [({}, "", False), ({"cart": 1, "user": "ann"}, "ann", False)]

    play(main())


def test_another_user_begins_with_another_id_and_the_old_one_is_nobodys_at_once() -> None:
    async def main() -> None:
        store = MemorySessions()
        names = iter(["ann", "bob"])
        async with browser(Sessions(endpoint(lambda s: s.login(next(names))), store)) as client:
            first = cookie_of(await client.get("/"))
            second = cookie_of(await client.get("/"))
        assert len({first, second, ""}) == 3
        assert await store.load(key_of(first)) is None
        found = await store.load(key_of(second))
        assert found is not None
        assert found.user == "bob"

    play(main())


@pytest.mark.parametrize("leave", ["clear", "logout", "pop"])
def test_a_logout_deletes_the_session_and_the_cookie(leave: str) -> None:
    async def main() -> None:
        store = MemorySessions()

        def app(session: Any) -> None:
            if not session:
                session.login("ann")
            elif leave == "pop":
                session.pop("user")
            else:
                getattr(session, leave)()

        async with browser(Sessions(endpoint(app), store)) as client:
            given = cookie_of(await client.get("/"))
            answer = await client.get("/")
            assert "Max-Age=0" in answer.headers["set-cookie"]
            assert not client.cookies
        assert await store.load(key_of(given)) is None
        assert len(store) == 0

    play(main())


def test_rotate_changes_the_id_and_nothing_else() -> None:
    async def main() -> None:
        store = MemorySessions()
        sessions = Sessions(endpoint(lambda s: s.rotate() if s else counting(s)), store)
        async with browser(sessions) as client:
            first = cookie_of(await client.get("/"))
            second = cookie_of(await client.get("/"))
        old, new = await store.load(key_of(first)), await store.load(key_of(second))
        assert old is not None
        assert new is not None
        assert (old.read_only, new.read_only, old.data) == (True, False, new.data)

    play(main())


@pytest.mark.parametrize("how", ["cancelled", "inside a value"])
def test_a_login_that_no_answer_tells_of_is_none(how: str) -> None:
    """The old id must not become somebody's, whatever happens to the request."""

    async def main() -> None:
        store = MemorySessions()
        given = new_id()
        await store.create(key_of(given), Draft("", b'{"user":{"name":"?"}}', 100.0, 100.0))

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if how == "cancelled":
                scope["session"]["user"] = "ann"
                await asyncio.Event().wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            scope["session"]["user"]["sub"] = "ann"
            await send({"type": "http.response.body"})

        sessions = Sessions(app, store)
        async with browser(sessions, given) as client:
            task = asyncio.create_task(client.get("/"))
            await asyncio.sleep(0.02)
            task.cancel()
            await asyncio.wait((task,))
        stored = await store.load(key_of(given))
        assert stored is not None
        assert (stored.user, stored.data, sessions.lost) == ("", b'{"user":{"name":"?"}}', 1)

    play(main())


def test_two_requests_at_the_same_time_do_not_undo_each_other() -> None:
    async def main() -> None:
        store = MemorySessions()
        go, waiting = asyncio.Event(), []

        async def slow(session: Any) -> None:
            if "began" not in session:
                session["began"] = 1
                return
            waiting.append(session)
            session[f"from {len(waiting)}"] = len(waiting)
            session["last"] = len(waiting)
            await go.wait()

        sessions = Sessions(endpoint(slow), store)
        async with browser(sessions) as client:
            given = cookie_of(await client.get("/"))
            both = [asyncio.create_task(client.get("/")) for _ in range(5)]
            await until(lambda: len(waiting) == 5)
            go.set()
            await asyncio.gather(*both)
        stored = await store.load(key_of(given))
        assert stored is not None
        assert stored.version == 6
        assert {key for key in eval(stored.data) if key.startswith("from")} == {f"from {n}" for n in range(1, 6)}

    play(main())


def test_a_change_inside_of_a_value_is_found() -> None:
    async def main() -> None:
        async with browser(
            Sessions(endpoint(lambda s: s.setdefault("list", []).append(1) or s), MemorySessions())
        ) as c:
            assert [(await c.get("/")).text for _ in range(2)] == ["{'list': [1]}", "{'list': [1, 1]}"]

    play(main())


def test_a_session_that_was_revoked_meanwhile_does_not_come_back() -> None:
    async def main() -> None:
        store = MemorySessions()

        async def app(session: Any) -> None:
            if session:
                await sessions.revoke(session=session.key)
            counting(session)

        sessions = Sessions(endpoint(app), store)
        async with browser(sessions) as client:
            given = cookie_of(await client.get("/"))
            assert cookie_of(await client.get("/")) == ""
        assert await store.load(key_of(given)) is None
        assert (len(store), sessions.lost) == (0, 1)

    play(main())


def test_log_out_everywhere_else_keeps_the_one_that_asks() -> None:
    async def main() -> None:
        store = MemorySessions()

        async def app(session: Any) -> int:
            if not session:
                session.login("ann")
                return 0
            found = len(await sessions.of("ann"))
            await sessions.revoke(user="ann", keep=session.key)
            return found

        sessions = Sessions(endpoint(app), store)
        for _ in range(3):
            async with browser(sessions) as client:
                await client.get("/")
                last = client.cookies
        async with browser(sessions) as client:
            client.cookies = last
            assert (await client.get("/")).text == "3"
            assert (await client.get("/")).text == "1"

    play(main())


@pytest.mark.parametrize(
    "arguments", [{}, {"user": "a", "session": "b"}, {"everyone": True, "user": "a"}, {"keep": "a"}]
)
def test_a_revocation_says_whose(arguments: dict[str, Any]) -> None:
    sessions = Sessions(endpoint(dict), MemorySessions())
    with pytest.raises(ValueError, match="revoke a user, a session or everyone"):
        asyncio.run(sessions.revoke(**arguments))


# -- Who acts


def test_the_application_acts_as_the_user_of_the_session() -> None:
    async def main() -> None:
        seen: list[SecurityContext | None] = []

        def app(session: Any) -> None:
            seen.append(current_security())
            session["user"] = "ann"

        async with browser(Sessions(endpoint(app), MemorySessions(), absolute=5000.0)) as client:
            await client.get("/")
            await client.get("/")
        nobody, ann = seen
        assert nobody is None
        assert ann is not None
        assert (ann.principal, ann.authn) == ("ann", "session")
        assert ann.expires_at is not None
        assert current_security() is None

    play(main())


def test_who_acts_and_as_what_can_be_said_by_the_application() -> None:
    async def main() -> None:
        seen: list[SecurityContext | None] = []

        def app(session: Any) -> None:
            seen.append(current_security())
            session.update(user={"sub": "ann", "roles": ["editor"]})

        def identify(session: Any) -> SecurityContext | None:
            roles = session.get("user", {}).get("roles", ())
            return SecurityContext(session.user, roles=frozenset(roles)) if session.user else None

        async with browser(Sessions(endpoint(app), MemorySessions(), identify=identify)) as client:
            await client.get("/")
            await client.get("/")
        assert seen[1] == SecurityContext("ann", roles=frozenset({"editor"}))

    play(main())


def test_a_session_is_a_way_to_authenticate() -> None:
    async def main() -> None:
        store = MemorySessions()
        async with browser(Sessions(Authenticate(endpoint(login), [session_user]), store)) as client:
            assert (await client.get("/")).status_code == 401
        async with browser(Sessions(endpoint(login), store)) as client:
            given = cookie_of(await client.get("/"))
        async with browser(Sessions(Authenticate(endpoint(lambda s: s.user), [session_user]), store), given) as client:
            assert (await client.get("/")).text == "'ann'"

    play(main())


# -- What goes wrong


class Away(MemorySessions):
    """A store that can be away."""

    away = False

    async def load(self, key: str) -> Any:
        self._check()
        return await super().load(key)

    async def create(self, key: str, draft: Any) -> Any:
        self._check()
        return await super().create(key, draft)

    async def save(self, key: str, version: int, data: bytes) -> Any:
        self._check()
        return await super().save(key, version, data)

    def _check(self) -> None:
        if self.away:
            raise SessionStoreUnavailable("it is away", 3.0)


def test_without_the_store_who_brings_an_id_gets_503_and_who_does_not_is_served() -> None:
    async def main() -> None:
        store = Away()
        async with browser(Sessions(endpoint(counting), store)) as client:
            await client.get("/")
            store.away = True
            answer = await client.get("/")
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "3")
            assert answer.json()["reason"] == "sessions_unavailable"
            assert "it is away" not in answer.text, "that is for who runs the server"
        async with browser(Sessions(endpoint(dict), store)) as client:
            assert (await client.get("/")).status_code == 200

    play(main())


def test_an_answer_whose_session_could_not_be_kept_is_replaced_by_503() -> None:
    async def main() -> None:
        store = Away()
        store.away = True
        async with browser(Sessions(endpoint(login), store)) as client:
            answer = await client.get("/")
            assert answer.status_code == 503
            assert "set-cookie" not in answer.headers
            store.away = False
            assert (await client.get("/")).status_code == 200

    play(main())


def test_on_failure_open_serves_an_empty_session_that_cant_be_changed() -> None:
    async def main() -> None:
        store = Away()
        sessions = Sessions(endpoint(lambda s: s if store.away and not boom else counting(s)), store, on_failure="open")
        boom = False
        async with browser(sessions) as client:
            await client.get("/")
            store.away = True
            answer = await client.get("/")
            assert (answer.status_code, answer.text) == (200, "{}")
            boom = True
            assert (await client.get("/")).status_code == 503
            store.away = False
            assert (await client.get("/")).text == "2"

    play(main())


@pytest.mark.parametrize("value", ["x" * 100_000, object(), {1, 2, object()}])
def test_what_cant_be_kept_is_an_error_of_the_application_and_keeps_nothing(value: object) -> None:
    async def main() -> None:
        store = MemorySessions()
        async with browser(Sessions(endpoint(lambda s: s.update(value=value)), store)) as client:
            answer = await client.get("/")
        assert answer.status_code == 500
        assert "set-cookie" not in answer.headers
        assert len(store) == 0

    play(main())


def test_where_says_which_requests_have_a_session() -> None:
    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200 if "session" in scope else 204, "headers": []})
            await send({"type": "http.response.body"})

        sessions = Sessions(app, MemorySessions(), where=lambda scope: not scope["path"].startswith("/static/"))
        async with browser(sessions) as client:
            assert [(await client.get(path)).status_code for path in ("/", "/static/a.js")] == [200, 204]

    play(main())


def test_a_request_with_a_session_that_is_not_used_leaves_it_alone() -> None:
    async def main() -> None:
        store = MemorySessions()
        async with browser(Sessions(endpoint(counting), store)) as client:
            given = cookie_of(await client.get("/"))
        async with browser(Sessions(endpoint(lambda s: 1), store), given) as client:
            answer = await client.get("/")
        assert {"set-cookie", "vary", "cache-control"} & set(answer.headers) == set()
        stored = await store.load(key_of(given))
        assert stored is not None
        assert stored.version == 1

    play(main())


def test_settings_that_make_no_sense_are_refused() -> None:
    for wrong in ({"idle": 0.0}, {"idle": 9e9}, {"size": 0}, {"on_failure": "maybe"}):
        with pytest.raises(ValueError, match=r"idle|on_failure"):
            Sessions(endpoint(dict), MemorySessions(), **wrong)  # type: ignore[arg-type]
    for cookie in (
        SessionCookie(name="a b"),
        SessionCookie("__Host-x", secure=False),
        SessionCookie(secure=False, same_site="none"),
    ):
        with pytest.raises(ValueError, match="cookie"):
            Sessions(endpoint(dict), MemorySessions(), cookie=cookie)
    with pytest.raises(ConfigError, match="Redis"):
        Sessions(endpoint(dict), "redis://localhost:port")
