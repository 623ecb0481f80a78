"""The dictionary that an application sees, what it counts as a change, and what two changes become together."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sojourn.sessions.content import decoded, encoded, merged, user_of
from sojourn.sessions.cookie import SessionCookie
from sojourn.sessions.session import Session
from sojourn.sessions.stored import Stored

numbers = st.integers(-(2**50), 2**50) | st.floats(allow_nan=False, allow_infinity=False)
leaves = st.none() | st.booleans() | numbers | st.text(max_size=5)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
few = settings(max_examples=30, deadline=None)
contents = st.dictionaries(st.sampled_from("abcd"), values)


def stored(content: dict[str, Any], user: str = "", read_only: bool = False) -> Stored:
    return Stored("key", user, json.dumps(content).encode(), 1, 0.0, 100.0, read_only)


@few
@given(contents)
def test_what_is_kept_is_what_was_set(content: dict[str, Any]) -> None:
    assert decoded(encoded(content)) == content


@pytest.mark.parametrize("data", [b"", b"nonsense", b"[1]", b"1", b"\xff"])
def test_what_somebody_else_has_put_into_the_store_harms_nobody(data: bytes) -> None:
    assert decoded(data) == {}


@few
@given(contents, contents, contents)
def test_of_two_changes_each_key_is_as_who_changed_it_has_it(base: Any, mine: Any, theirs: Any) -> None:
    both = merged(base, mine, theirs)
    for key in "abcd":
        changed = (key in mine) != (key in base) or mine.get(key) != base.get(key)
        wanted = mine if changed else theirs
        assert (key in both, both.get(key)) == (key in wanted, wanted.get(key))


@few
@given(contents, contents)
def test_a_merge_with_nobody_is_no_merge(base: Any, mine: Any) -> None:
    assert merged(base, mine, base) == mine
    assert merged(base, base, mine) == mine


@pytest.mark.parametrize(
    ("value", "user"),
    [("ann", "ann"), (7, "7"), ({"sub": "ann"}, "ann"), ({"sub": 7}, "7"), (None, ""), (True, ""), ([], ""), ({}, "")],
)
def test_who_is_meant_by_what_an_application_keeps(value: object, user: str) -> None:
    assert user_of(value) == user


CHANGES: dict[str, Any] = {
    "set": lambda s: s.__setitem__("x", 1),
    "delete": lambda s: s.__delitem__("a"),
    "pop": lambda s: s.pop("a"),
    "popitem": lambda s: s.popitem(),
    "clear": lambda s: s.clear(),
    "update": lambda s: s.update(a=2),
    "update from pairs": lambda s: s.update([("a", 2)]),
    "or": lambda s: s.__ior__({"a": 2}),
    "setdefault": lambda s: s.setdefault("x"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_every_way_to_change_it_is_seen(change: Any) -> None:
    session = Session(stored=stored({"a": 1}))
    assert (session.modified, session.changed()) == (False, None)
    change(session)
    assert session.modified
    assert session.changed() is not None


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_every_way_to_change_it_is_refused_when_it_could_not_be_kept(change: Any) -> None:
    session = Session(stored=stored({"a": 1}))
    session.refuse(lambda: RuntimeError("not now"))
    with pytest.raises(RuntimeError, match="not now"):
        change(session)
    assert session == {"a": 1}


@pytest.mark.parametrize("look", [lambda s: s.get("x"), lambda s: s.pop("x", None), lambda s: s.setdefault("a"), dict])
def test_who_only_looks_changes_nothing(look: Any) -> None:
    session = Session(stored=stored({"a": 1}))
    look(session)
    assert (session.modified, session.changed()) == (False, None)


def test_a_value_that_is_set_to_what_it_was_is_no_change() -> None:
    session = Session(stored=stored({"a": [1]}))
    session["a"] = [1]
    assert session.changed() is None


def test_a_session_that_has_a_cookie_can_be_changed_late_but_not_its_user() -> None:
    session = Session(stored=stored({"user": "ann"}, "ann"))
    session.late = True
    session["a"] = 1
    session["user"] = "ann"
    for change in (
        lambda: session.update(user="bob"),
        lambda: session.pop("user"),
        lambda: session.__delitem__("user"),
        session.rotate,
        lambda: session.login("bob"),
    ):
        with pytest.raises(RuntimeError, match="log in over HTTP"):
            change()
    session.logout()
    assert session.changed() == b"{}"


def test_a_login_needs_a_name() -> None:
    with pytest.raises(ValueError, match="name"):
        Session().login("")


def test_what_a_browser_sends_is_read_as_it_says() -> None:
    cookie = SessionCookie("sid", secure=False).checked()
    headers = [(b"Cookie", b'a=1; sid=one ;xsid=no; sid="two"'), (b"cookie", b"sid=three"), (b"x", b"sid=no")]
    assert list(cookie.values(headers)) == ["one", "two", "three"]
    assert list(cookie.values([(b"cookie", b"\xff; ; =; sid")])) == []


def test_a_cookie_that_is_not_to_last_ends_with_the_window() -> None:
    cookie = SessionCookie(lasting=False, same_site="strict").checked()
    assert cookie.set("v", 60.0) == (b"set-cookie", b"__Host-session=v; Path=/; HttpOnly; Secure; SameSite=Strict")
    assert b"Max-Age=0" in cookie.removal()[1]
