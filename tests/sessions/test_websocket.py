"""A WebSocket that changes its session: saved on the way and at the end, and never silently lost."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from sojourn.errors import SessionStoreUnavailable
from sojourn.sessions import exchange
from sojourn.sessions.ids import key_of, new_id
from sojourn.sessions.memory import MemorySessions
from sojourn.sessions.middleware import Sessions
from sojourn.sessions.store import SessionStore
from sojourn.sessions.stored import Draft
from tests.sessions.scene import Socket, open_socket, play, until


async def keeping(store: SessionStore, user: str = "", content: dict[str, Any] | None = None) -> str:
    """Have a session; its id."""
    session_id = new_id()
    data = json.dumps(content or {"began": 1}).encode()
    await store.create(key_of(session_id), Draft(user, data, 3600.0, 86_400.0))
    return session_id


async def content(store: SessionStore, session_id: str) -> Any:
    """What a session holds in the store."""
    stored = await store.load(key_of(session_id))
    return None if stored is None else json.loads(stored.data)


async def until_holds(store: SessionStore, session_id: str, wanted: Any) -> None:
    """Wait until a session holds something."""
    async with asyncio.timeout(2):
        while await content(store, session_id) != wanted:  # noqa: ASYNC110 - the store tells nobody
            await asyncio.sleep(0.01)


def talking(act: Any) -> Any:
    """Accepts, and calls a function with the session and each message."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            found = act(scope["session"], message["text"])
            if asyncio.iscoroutine(found):
                found = await found
            await send({"type": "websocket.send", "text": repr(found)})

    return app


def put(session: Any, text: str) -> None:
    key, _, value = text.partition("=")
    session[key] = value


def test_what_a_websocket_changes_is_saved_while_it_is_open() -> None:
    async def main() -> None:
        store = MemorySessions()
        given = await keeping(store)
        sessions = Sessions(talking(put), store)
        async with open_socket(sessions, given) as socket:
            socket.say("a=1")
            await until(lambda: len(socket.sent) == 2)
            socket.say("b=2")
            await until_holds(store, given, {"began": 1, "a": "1", "b": "2"})
            stored = await store.load(key_of(given))
            assert stored is not None
            assert stored.version == 2  # gathered
        assert sessions.open == 0

    play(main())


def test_what_it_changes_last_is_saved_when_it_ends() -> None:
    async def main() -> None:
        store = MemorySessions()
        given = await keeping(store)
        async with open_socket(Sessions(talking(put), store), given) as socket:
            socket.say("a=1")
        assert await content(store, given) == {"began": 1, "a": "1"}

    play(main())


@pytest.mark.parametrize("when", ["waits", "cancelled", "raises"])
def test_what_it_has_changed_is_saved_however_it_ends(when: str) -> None:
    async def main() -> None:
        store = MemorySessions()
        given = await keeping(store)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            scope["session"]["list"] = [1]
            scope["session"]["list"].append(2)
            if when == "raises":
                raise ZeroDivisionError
            await receive()

        async with open_socket(Sessions(app, store), given) as socket:
            if when == "cancelled":
                socket.task.cancel()
            elif when == "waits":
                socket.say("")
            await asyncio.wait((socket.task,), timeout=5)
        assert await content(store, given) == {"began": 1, "list": [1, 2]}

    play(main())


def test_a_websocket_and_a_request_that_change_different_keys_keep_both() -> None:
    async def main() -> None:
        store = MemorySessions()
        given = await keeping(store)
        async with open_socket(Sessions(talking(put), store), given) as socket:
            stored = await store.load(key_of(given))
            assert stored is not None
            assert (await store.save(stored.key, 1, b'{"began":1,"http":1}')).done
            socket.say("ws=1")
        assert await content(store, given) == {"began": 1, "http": 1, "ws": "1"}

    play(main())


def test_a_websocket_can_look_at_what_others_have_changed() -> None:
    async def main() -> None:
        store = MemorySessions()
        given = await keeping(store)

        async def look(session: Any, text: str) -> Any:
            await session.reload()
            return dict(session)

        async with open_socket(Sessions(talking(look), store), given) as socket:
            assert (await store.save(key_of(given), 1, b'{"other":1}')).done
            socket.say("")
            await until(lambda: len(socket.sent) == 2)
            assert socket.sent[1]["text"] == "{'other': 1}"

    play(main())


def test_a_session_can_begin_with_the_handshake_and_not_after_it() -> None:
    async def main() -> None:
        store = MemorySessions()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            if early:
                scope["session"]["a"] = 1
            await send({"type": "websocket.accept"})
            scope["session"]["b"] = 2
            await receive()

        sessions = Sessions(app, store)
        early = True
        async with open_socket(sessions) as socket:
            fields = dict(socket.sent[0]["headers"])
            given = fields[b"set-cookie"].decode().partition(";")[0].partition("=")[2]
            await until(lambda: sessions.open == 1)
        assert await content(store, given) == {"a": 1, "b": 2}
        early = False
        async with open_socket(sessions) as socket:
            await asyncio.wait((socket.task,))
            with pytest.raises(RuntimeError, match="begins too late"):
                socket.task.result()

    play(main())


def test_a_login_inside_a_websocket_is_refused() -> None:
    async def main() -> None:
        store = MemorySessions()
        for act in (lambda s, _: s.login("ann"), lambda s, _: s.update(user="ann"), lambda s, _: s.rotate()):
            given = await keeping(store)
            async with open_socket(Sessions(talking(act), store), given) as socket:
                socket.say("")
                await asyncio.wait((socket.task,))
                with pytest.raises(RuntimeError, match="log in over HTTP"):
                    socket.task.result()
            assert await content(store, given) == {"began": 1}

    play(main())


def test_a_logout_inside_a_websocket_ends_the_session_and_its_other_sockets() -> None:
    async def main() -> None:
        store = MemorySessions()
        given = await keeping(store, "ann", {"user": "ann"})
        sessions = Sessions(talking(lambda session, _: session.logout()), store)
        async with open_socket(sessions, given) as one, open_socket(sessions, given) as other:
            await until(lambda: sessions.open == 2)
            one.say("")
            await until(lambda: other.code)
            assert other.code == 4501
            assert one.code is None
            assert await store.load(key_of(given)) is None

    play(main())


def test_changes_wait_while_the_store_is_away_and_one_that_cant_be_kept_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exchange, "_PATIENCE", 0.1)

    async def main() -> None:
        class Away(MemorySessions):
            away = False
            tries = 0

            async def save(self, key: str, version: int, data: bytes) -> Any:
                if self.away:
                    self.tries += 1
                    raise SessionStoreUnavailable("away")
                return await super().save(key, version, data)

        store = Away()
        given = await keeping(store)
        sessions = Sessions(talking(put), store)
        async with open_socket(sessions, given) as socket:
            store.away = True
            socket.say("a=1")
            await asyncio.sleep(0.15)
            store.away = False
            socket.say("b=1")
            await until(lambda: len(socket.sent) == 3)
        assert await content(store, given) == {"began": 1, "a": "1", "b": "1"}
        async with open_socket(sessions, given) as socket:
            socket.say("c=1")
            await until(lambda: len(socket.sent) == 2)
            store.away, store.tries = True, 0
            await socket.leave()
            assert store.tries >= 2
            with pytest.raises(SessionStoreUnavailable):
                socket.task.result()

    play(main())


def test_a_websocket_is_refused_with_503_without_the_store() -> None:
    async def main() -> None:
        class Away(MemorySessions):
            async def load(self, key: str) -> Any:
                raise SessionStoreUnavailable("away")

        async with open_socket(Sessions(talking(put), Away()), new_id()) as socket:
            assert socket.types() == ["websocket.http.response.start", "websocket.http.response.body"]
            assert socket.sent[0]["status"] == 503
        plain = Socket([(b"cookie", f"__Host-session={new_id()}".encode())])
        plain.scope["extensions"] = {}
        await Sessions(talking(put), Away())(plain.scope, plain.receive, plain.send)
        assert plain.code == 1013

    play(main())


def test_a_stream_that_changes_its_session_is_saved_on_the_way() -> None:
    async def main() -> None:
        store = MemorySessions()
        given = await keeping(store)
        go = asyncio.Event()
        sent: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for number in range(2):
                scope["session"]["sent"] = number
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await go.wait()
            await send({"type": "http.response.body", "body": b""})

        async def send(message: Any) -> None:
            sent.append(message)

        sessions = Sessions(app, store)
        scope = {"type": "http", "headers": [(b"cookie", f"__Host-session={given}".encode())]}
        task = asyncio.create_task(sessions(scope, asyncio.Event().wait, send))  # type: ignore[arg-type]
        await until_holds(store, given, {"began": 1, "sent": 1})
        assert sessions.open == 1
        go.set()
        await task
        assert sessions.open == 0

    play(main())


def test_nothing_is_left_of_a_websocket_that_is_cancelled_at_any_await() -> None:
    """Cancelled before each step of its life: it is not entered any more, and no task of its own is left."""

    async def main() -> None:
        store = MemorySessions()
        for step in range(12):
            given = await keeping(store)
            sessions = Sessions(talking(put), store)
            socket = Socket([(b"cookie", f"__Host-session={given}".encode())])
            socket.say("a=1")
            socket.task = asyncio.create_task(sessions(socket.scope, socket.receive, socket.send))
            for _ in range(step):
                await asyncio.sleep(0)
            socket.task.cancel()
            await asyncio.wait((socket.task,))
            assert socket.task.cancelled()
            assert sessions.open == 0
            await sessions.aclose()
            await asyncio.sleep(0)
            assert asyncio.all_tasks() == {asyncio.current_task()}

    play(main())
