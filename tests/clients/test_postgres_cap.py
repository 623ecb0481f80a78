"""When PostgreSQL is told how long a statement may take, and what."""

from __future__ import annotations

import asyncio
import re
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.clients.postgres import Cap, word_of
from sojourn.clients.psycopg_cap import ended_by_server, tell
from sojourn.clock import NEVER
from sojourn.scopes.deadline import deadline

LEFT = st.none() | st.floats(0.0001, 100_000)


class Session:
    """What PostgreSQL makes of SET and SET LOCAL, with transactions and savepoints."""

    def __init__(self, base: float) -> None:
        self.values = [base]

    @property
    def inside(self) -> bool:
        return len(self.values) > 1

    @property
    def seconds(self) -> float:
        return self.values[-1]

    def execute(self, statement: str) -> None:
        match = re.fullmatch(r"SET (LOCAL )?statement_timeout = (\d+)", statement)
        if match:
            assert bool(match[1]) == self.inside  # a SET that a rollback would take back is never sent
            self.values[-1] = int(match[2]) / 1000 or NEVER
        elif statement in ("BEGIN", "SAVEPOINT a"):
            self.values.append(self.seconds)
        elif statement == "ROLLBACK TO SAVEPOINT a":
            if len(self.values) > 2:
                self.values[-1] = self.values[-2]
        elif statement in ("COMMIT", "ROLLBACK"):
            del self.values[1:]


def test_without_any_limit_nothing_is_sent() -> None:
    cap = Cap()
    assert cap.setting(None, False) == ""
    assert cap.setting(None, True) == ""


def test_a_little_less_than_what_is_left_is_set_once_for_several_statements() -> None:
    cap = Cap()
    cap.base = NEVER
    assert cap.setting(0.3, False) == "SET statement_timeout = 270"
    assert [cap.setting(left, False) for left in (0.29, 0.28, 0.273)] == ["", "", ""]
    assert cap.setting(0.271, False) == "SET statement_timeout = 243"
    assert cap.setting(60, False) == "SET statement_timeout = 59500"
    assert cap.setting(None, False) == "SET statement_timeout = 0"
    assert cap.setting(None, False) == ""


def test_in_a_transaction_it_is_for_the_transaction() -> None:
    cap = Cap()
    cap.base = 5.0
    cap.boundary("BEGIN;")
    assert cap.setting(1, True) == "SET LOCAL statement_timeout = 900"
    assert cap.in_force(True) == 0.9
    cap.boundary("commit")
    assert cap.in_force(False) == 5.0
    assert cap.setting(None, False) == ""
    assert cap.setting(10, False) == ""


def test_what_a_savepoint_took_back_is_not_trusted() -> None:
    cap = Cap()
    cap.base = NEVER
    cap.setting(1, True)
    cap.boundary("rollback to savepoint a;")
    assert cap.setting(0.99, True) == "SET LOCAL statement_timeout = 891"


def test_a_set_that_may_not_have_arrived_is_sent_again() -> None:
    cap = Cap()
    cap.base = NEVER
    cap.setting(1, False)
    cap.unknown(False)
    assert cap.setting(1, False) == "SET statement_timeout = 900"
    cap.reset()
    assert cap.setting(None, False) == "SET statement_timeout = 0"


def test_who_ended_a_statement_is_judged_by_how_much_was_left() -> None:
    cap = Cap()
    assert cap.judge(1.0, False) is None
    cap.learn("5000")
    cap.setting(1.0, False)
    assert cap.judge(1.0, False) == pytest.approx(1.0 - 0.675)
    assert cap.judge(None, False) is None
    cap.setting(None, False)
    assert cap.judge(60.0, False) is None  # what ends it after 5 s is the session's own
    cap.learn("0")
    assert cap.base == NEVER


def test_no_timeout_is_so_short_that_a_busy_server_may_end_the_next_set_by_it() -> None:
    cap = Cap()
    cap.base = NEVER
    assert cap.setting(0.0005, False) == "SET statement_timeout = 10"
    assert cap.setting(0.0004, False) == ""
    assert cap.setting(0.0004, True) == ""
    assert cap.judge(0.0004, False) < 0.0  # type: ignore[operator]


class QueryCanceled(Exception):
    """As psycopg's."""

    sqlstate = "57014"


class Slow:
    """A cursor on a server that ends so many statements."""

    def __init__(self, ends: int) -> None:
        self.ends, self.sent = ends, 0

    def execute(self, statement: str) -> None:
        self.sent += 1
        if self.sent <= self.ends:
            raise QueryCanceled

    def close(self) -> None:
        pass


def told(slow: Slow, *, autocommit: bool) -> float | None:
    driver = SimpleNamespace(info=SimpleNamespace(transaction_status=0), autocommit=autocommit)
    driver._sojourn_cap = cap = Cap()
    cap.base = 60.0
    return tell(SimpleNamespace(_connection=driver, _adapt_connection=SimpleNamespace(cursor=lambda: slow)), "select 1")


def test_a_set_that_the_timeout_before_has_ended_is_sent_again() -> None:
    async def main() -> None:
        async with deadline(5.0, "orders"):
            assert told(slow := Slow(2), autocommit=True)
            assert slow.sent == 3
            for slow, autocommit in ((Slow(3), True), (Slow(1), False)):
                with pytest.raises(QueryCanceled) as raised:
                    told(slow, autocommit=autocommit)
                assert ended_by_server(raised.value)
                assert slow.sent == slow.ends

    asyncio.run(main())


@pytest.mark.parametrize(
    ("statement", "word"),
    [("BEGIN;", "BEGIN"), ("  rollback", "ROLLBACK"), ("select 1", "SELECT"), ("", ""), (" \n", ""), (";", "")],
)
def test_the_word_of_a_statement(statement: str, word: str) -> None:
    assert word_of(statement) == word


@given(
    st.sampled_from([0.004, 0.05, 1.0, 30.0, NEVER]),
    st.lists(
        st.tuples(st.sampled_from(["", "BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT a", "ROLLBACK TO SAVEPOINT a"]), LEFT)
    ),
)
def test_whatever_happens_the_server_ends_a_statement_in_time_and_none_too_early(
    base: float, steps: list[tuple[str, float | None]]
) -> None:
    cap, session = Cap(), Session(base)
    cap.base = base
    for word, left in steps:
        allowed = {"BEGIN": not session.inside, "": True}.get(word, session.inside)
        if word and allowed:
            session.execute(word)
            cap.boundary(word)
        setting = cap.setting(left, session.inside)
        if setting:
            session.execute(setting)
        assert session.seconds <= base
        if left is None:
            assert session.seconds == base
        elif session.seconds < base:
            assert session.seconds <= max(left, 0.01)
            assert session.seconds >= min(base, left * 0.79 - 0.003)
