"""What requests ask for, in headers and in the query."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.errors import ProtocolError
from sojourn.routing.request import Connection
from sojourn.tasks.asked import Place, idempotency_key, number, place, preferred_wait, waits


def request(query: str = "", **headers: str | list[str]) -> Connection:
    pairs: list[tuple[bytes, bytes]] = []
    for name, said in headers.items():
        values = [said] if isinstance(said, str) else said
        pairs.extend((name.replace("_", "-").encode(), value.encode("latin-1")) for value in values)
    scope: Any = {"type": "http", "path": "/", "headers": pairs, "query_string": query.encode()}
    return Connection(scope, None)  # type: ignore[arg-type]  # nothing is received


@pytest.mark.parametrize(
    ("said", "key"),
    [
        ('"8e03978e-40d5-43e8-bc93-6894a57f9324"', "8e03978e-40d5-43e8-bc93-6894a57f9324"),
        ("8e03978e-40d5-43e8-bc93-6894a57f9324", "8e03978e-40d5-43e8-bc93-6894a57f9324"),
        ('"with space"', "with space"),
        ('"a\\"b\\\\c"', 'a"b\\c'),
        ('"key";created=1', "key"),
        ("a/b:c=d", "a/b:c=d"),
        ("x" * 255, "x" * 255),
    ],
)
def test_an_idempotency_key_is_a_string_with_or_without_quotes(said: str, key: str) -> None:
    assert idempotency_key(request(idempotency_key=said)) == key


@pytest.mark.parametrize(
    "said", ["", '""', '"open', 'in"side', "two words", "x" * 256, '"\\n"', "k\u00e9y", ["a", "b"]]
)
def test_what_is_no_key_is_refused(said: str | list[str]) -> None:
    with pytest.raises(ProtocolError, match="Idempotency-Key") as caught:
        idempotency_key(request(idempotency_key=said))
    assert caught.value.status == 400


def test_no_key_is_none() -> None:
    assert idempotency_key(request()) == ""


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("wait=10", 10.0),
        ("respond-async, wait=10", 10.0),
        ("Wait = 5; strict", 5.0),
        ('wait="7"', 7.0),
        ("wait=100000", 55.0),
        (["respond-async", "wait=3"], 3.0),
        ("wait", None),
        ("wait=soon", None),
        ("wait=-1", None),
        ("return=minimal", None),
        ("await=4", None),
    ],
)
def test_a_preference_to_wait_is_heeded_where_it_can_be_read(said: str | list[str], seconds: float | None) -> None:
    assert preferred_wait(request(prefer=said)) == seconds


def test_the_query_counts_before_the_preference() -> None:
    assert waits(request("wait=2.5", prefer="wait=10")) == 2.5
    assert waits(request(prefer="wait=10")) == 10.0
    assert waits(request("wait=1000")) == 55.0
    assert waits(request()) == 0.0


@pytest.mark.parametrize("said", ["soon", "-1", "nan", "inf", "", "1e99"])
def test_a_wait_that_is_no_number_is_refused(said: str) -> None:
    with pytest.raises(ProtocolError, match="wait is a number"):
        waits(request(f"wait={said}"))


@pytest.mark.parametrize(
    ("query", "header", "found"),
    [
        ("", "", Place()),
        ("after=3", "", Place(3)),
        ("after=3", "17", Place(17)),
        ("", "17.2", Place(17, 2)),
        ("", "0.0", Place(0, 0)),
    ],
)
def test_the_place_is_what_the_browser_sends_or_the_url(query: str, header: str, found: Place) -> None:
    assert place(request(query, **({"last_event_id": header} if header else {}))) == found


@pytest.mark.parametrize("said", ["-1", "x", "1.", "1.2.3", "9" * 16])
def test_a_place_that_is_none_is_refused(said: str) -> None:
    for asked in (request(f"after={said}"), request(last_event_id=said)):
        with pytest.raises(ProtocolError, match="number of an event"):
            place(asked)


@pytest.mark.parametrize(("said", "good"), [("1", True), ("500", True), ("0", False), ("501", False), ("x", False)])
def test_numbers_have_bounds(said: str, good: bool) -> None:
    if good:
        assert number(request(f"limit={said}"), "limit", 50, 500) == int(said)
    else:
        with pytest.raises(ProtocolError, match="limit is a number from 1 to 500"):
            number(request(f"limit={said}"), "limit", 50, 500)
    assert number(request(), "limit", 50, 500) == 50


@given(st.text(st.characters(max_codepoint=255), max_size=300))
def test_any_header_is_read_or_refused(text: str) -> None:
    for read in (idempotency_key, place):
        with suppress(ProtocolError):
            read(request(idempotency_key=text, last_event_id=text))
    preferred_wait(request(prefer=text))
