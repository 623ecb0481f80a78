"""Sessions that are a cookie: believed while they are ours and in time, and never changed too late."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sojourn.clock import ManualClock
from sojourn.errors import ConfigError
from sojourn.scopes.context import current_security
from sojourn.sessions.cookie import SessionCookie
from sojourn.sessions.cookies import CookieSessions
from sojourn.sessions.seal import Seal
from tests.sessions.scene import browser, cookie_of, endpoint, open_socket, play

OLD, NEW = "o" * 32, "n" * 32
both = pytest.mark.parametrize("encrypt", [False, True])


def counting(session: Any) -> int:
    session["n"] = session.get("n", 0) + 1
    return int(session["n"])


@both
def test_what_is_set_comes_back_with_the_client(encrypt: bool) -> None:
    async def main() -> None:
        async with browser(CookieSessions(endpoint(counting), [NEW], encrypt=encrypt)) as client:
            answers = [await client.get("/") for _ in range(3)]
        assert [answer.text for answer in answers] == ["1", "2", "3"]
        readable = b'{"n":3}' in base64.urlsafe_b64decode(cookie_of(answers[-1]).partition(".")[0] + "===")
        assert readable is not encrypt
        assert answers[0].headers["cache-control"] == "no-store"

    play(main())


@both
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_whoever_changes_a_byte_has_nothing(encrypt: bool, data: Any) -> None:
    seal = Seal([NEW], "cookie", encrypt=encrypt)
    text = seal.seal(b'{"user":"ann"}', until=2000)
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters(codec="utf-8"))
    forged = text[:at] + other + text[at + 1 :]
    opened = seal.open(forged, 1000.0)
    # The last character of Base64 may have bits that say nothing.
    assert opened in (None, (b'{"user":"ann"}', 2000))
    if opened is not None:
        assert forged == text or at in (len(text) - 1, text.find(".") - 1)


@both
@settings(max_examples=30, deadline=None)
@given(text=st.text())
def test_what_was_not_sealed_here_is_nothing(encrypt: bool, text: str) -> None:
    assert Seal([NEW], "cookie", encrypt=encrypt).open(text, 0.0) is None


@both
def test_a_secret_can_be_changed_without_logging_anybody_out(encrypt: bool) -> None:
    old = Seal([OLD], "a", encrypt=encrypt).seal(b"{}", until=2000)
    changing = Seal([NEW, OLD], "a", encrypt=encrypt)
    assert changing.open(old, 0.0) == (b"{}", 2000)
    new = changing.seal(b"{}", until=2000)
    assert Seal([NEW], "a", encrypt=encrypt).open(new, 0.0) == (b"{}", 2000)
    assert Seal([NEW], "a", encrypt=encrypt).open(old, 0.0) is None
    assert Seal([OLD], "a", encrypt=encrypt).open(new, 0.0) is None
    assert Seal([NEW], "b", encrypt=encrypt).open(new, 0.0) is None, "sealed for another purpose"
    assert Seal([NEW], "a", encrypt=not encrypt).open(new, 0.0) is None


@both
def test_it_is_over_when_it_says_so(encrypt: bool) -> None:
    async def main() -> None:
        clock = ManualClock()
        app = CookieSessions(endpoint(counting), [NEW], max_age=60.0, encrypt=encrypt, clock=clock)
        async with browser(app) as client:
            given = cookie_of(await client.get("/"))
        for seconds, text in ((59, "2"), (2, "1")):
            clock.advance(seconds)
            async with browser(app, given) as client:
                assert (await client.get("/")).text == text

    play(main())


def test_the_application_acts_as_its_user_and_a_cleared_one_is_removed() -> None:
    async def main() -> None:
        seen: list[str] = []

        def app(session: Any) -> None:
            who = current_security()
            seen.append(f"{who.principal} by {who.authn}" if who else "nobody")
            session.logout() if who else session.login("robot")

        async with browser(CookieSessions(endpoint(app), NEW)) as client:
            await client.get("/")
            answer = await client.get("/")
            assert "Max-Age=0" in answer.headers["set-cookie"]
            await client.get("/")
        assert seen == ["nobody", "robot by cookie", "nobody"]

    play(main())


def test_what_comes_too_late_or_is_too_large_for_a_cookie_is_an_error() -> None:
    async def main() -> None:
        async def late(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            scope["session"]["a"] = 1
            await send({"type": "websocket.accept"})
            await scope["session"].reload()
            scope["session"]["b"] = 1

        async with open_socket(CookieSessions(late, [NEW])) as socket:
            assert any(name == b"set-cookie" for name, _ in socket.sent[0]["headers"])
            with pytest.raises(RuntimeError, match="use Sessions"):
                await socket.task
        async with browser(CookieSessions(endpoint(lambda s: s.update(a="x" * 4000)), [NEW])) as client:
            assert (await client.get("/")).status_code == 500

    play(main())


def test_a_weak_secret_or_a_cookie_that_no_browser_takes_is_refused() -> None:
    for secrets in ([], ["short"], [NEW, "short"]):
        with pytest.raises(ValueError, match="32 bytes"):
            CookieSessions(endpoint(dict), secrets)
    with pytest.raises(ValueError, match="cookie"):
        CookieSessions(endpoint(dict), [NEW], cookie=SessionCookie("__Secure-a", secure=False))
    with pytest.raises(ConfigError, match="max_age"):
        CookieSessions(endpoint(dict), [NEW], max_age=0)


def test_everything_that_is_no_request_passes() -> None:
    async def main() -> None:
        kinds: list[str] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            kinds.append(scope["type"])

        await CookieSessions(app, [NEW])({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
        assert kinds == ["lifespan"]

    play(main())
