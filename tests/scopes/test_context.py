"""Who acts here."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import pickle
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from typing import Any

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from sojourn.clock import SystemClock
from sojourn.errors import AccessDenied, SecurityContextError
from sojourn.events import TaskFailed
from sojourn.scopes.context import (
    DEPTH,
    SecurityContext,
    acting_as,
    current_security,
    entered,
    require,
    security,
    stream_as,
)
from sojourn.scopes.deadline import deadline, remaining
from sojourn.scopes.snapshot import Snapshot, inherited, snapshot
from tests.asgi.harness import get, on_both_loops, read_body, serving, settings

ALICE = SecurityContext("alice", roles=frozenset({"editor", "reader"}), tenant="acme", claims={"token": "secret"})
BOB = SecurityContext("bob")
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[Awaitable[Any]], Any]]:
    with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
        yield runner.run


def who() -> str:
    context = current_security()
    return "nobody" if context is None else context.principal


# What a context is


def test_missing_means_deny() -> None:
    with pytest.raises(SecurityContextError, match="nobody acts here"):
        security()
    with pytest.raises(SecurityContextError, match="nobody acts here"):
        require()


def test_expired_means_deny() -> None:
    gone = SecurityContext("alice", expires_at=SystemClock.wall() - 1)
    with acting_as(gone), pytest.raises(SecurityContextError, match="'alice' has expired"):
        security()
    with acting_as(SecurityContext("alice", expires_at=SystemClock.wall() + 60)):
        assert security().principal == "alice"


def test_a_role_that_is_missing_is_named() -> None:
    with acting_as(ALICE):
        assert require("editor", "reader") == ALICE
        with pytest.raises(AccessDenied, match="'alice' may not do this: it lacks admin, owner") as caught:
            require("admin", "editor", "owner")
    assert caught.value.principal == "alice"


def test_nothing_of_a_context_can_be_changed() -> None:
    with pytest.raises(AttributeError):
        ALICE.principal = "mallory"  # type: ignore[misc]
    with pytest.raises(TypeError):
        ALICE.claims["admin"] = True  # type: ignore[index]
    claims = {"a": 1}
    context = SecurityContext("alice", claims=claims)
    claims["a"] = 2
    assert context.claims["a"] == 1


def test_what_is_no_context_is_refused() -> None:
    with pytest.raises(ValueError, match="principal is empty"):
        SecurityContext("")
    with pytest.raises(ValueError, match="not one name"):
        SecurityContext("alice", roles="admin")  # type: ignore[arg-type]
    assert SecurityContext("alice", roles={"a"}).roles == frozenset({"a"})  # type: ignore[arg-type]


def test_neither_claims_nor_parents_are_pickled_or_shown() -> None:
    with acting_as(BOB), acting_as(ALICE) as context:
        data = pickle.dumps(context)
    assert b"secret" not in data
    assert b"bob" not in data
    assert "secret" not in repr(ALICE)
    assert pickle.loads(data) == SecurityContext("alice", ALICE.roles, "acme")


# Entering and leaving


def test_identities_nest_and_the_same_one_may_act_again() -> None:
    with acting_as(ALICE):
        with acting_as(BOB) as inner:
            assert (inner.parent, inner.depth) == (ALICE, 1)
            with acting_as(ALICE) as again:
                assert (who(), again.depth) == ("alice", 2)
            assert who() == "bob"
        assert who() == "alice"
    assert who() == "nobody"


def test_who_acts_for_another_expires_no_later() -> None:
    with acting_as(SecurityContext("alice", expires_at=100.0)):
        assert entered().context.expires_at == 100.0  # type: ignore[union-attr]
        for own, counts in ((None, 100.0), (200.0, 100.0), (50.0, 50.0)):
            with acting_as(SecurityContext("service", expires_at=own)) as inner:
                assert inner.expires_at == counts
                with pytest.raises(SecurityContextError, match="expired"):
                    security()


@given(st.lists(st.none() | st.floats(0, 1000), min_size=1, max_size=DEPTH))
def test_nested_identities_never_lengthen_what_is_around_them(ends: list[float | None]) -> None:
    with contextlib.ExitStack() as stack:
        soonest: float | None = None
        for depth, end in enumerate(ends):
            inner = stack.enter_context(acting_as(SecurityContext("alice", expires_at=end)))
            soonest = min((each for each in (soonest, end) if each is not None), default=None)
            assert (inner.expires_at, inner.depth) == (soonest, depth)


def test_a_loop_that_enters_identities_ends_with_an_error() -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(DEPTH):
            stack.enter_context(acting_as(ALICE))
        with pytest.raises(SecurityContextError, match=f"{DEPTH} identities"):
            stack.enter_context(acting_as(ALICE))
        assert security().depth == DEPTH - 1
    assert who() == "nobody"


def test_each_is_entered_once() -> None:
    scope = acting_as(ALICE)
    with scope, pytest.raises(SecurityContextError, match="entered once"), scope:
        pass
    with pytest.raises(SecurityContextError, match="entered once"), scope:
        pass


def test_leaving_out_of_turn_names_who_was_not_left() -> None:
    outer, inner = acting_as(ALICE), acting_as(BOB)
    outer.__enter__()
    inner.__enter__()
    with pytest.raises(
        SecurityContextError, match=r"left out of turn.*test_context.py:\d+ in test_leaving_out"
    ) as caught:
        outer.__exit__(None, None, None)
    assert "was not left before" in str(caught.value)
    assert who() == "nobody"


def test_what_the_body_raised_goes_on() -> None:
    with pytest.raises(KeyError), acting_as(ALICE):
        raise KeyError("mine")
    assert who() == "nobody"


def test_leaving_in_another_task_is_an_error(run: Any) -> None:
    scope = acting_as(ALICE)

    async def enter() -> None:
        scope.__enter__()

    async def leave() -> None:
        with pytest.raises(SecurityContextError, match="in another task or thread"):
            scope.__exit__(None, None, None)

    async def main() -> None:
        told: list[dict[str, Any]] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(context))
        await loop.create_task(enter())
        await loop.create_task(leave())
        await asyncio.sleep(0)
        assert len(told) == 1  # enter() had ended by then: that was told, too

    run(main())


# Renewal


def test_a_renewal_is_seen_by_all_that_act_as_it_already(run: Any) -> None:
    async def reads(ready: asyncio.Event, renewed: asyncio.Event) -> tuple[float | None, float | None]:
        with acting_as(SecurityContext("service")):
            ready.set()
            before = entered().context.expires_at  # type: ignore[union-attr]
            await renewed.wait()
            return before, security().expires_at

    async def main() -> None:
        now = SystemClock.wall()
        scope = acting_as(SecurityContext("alice", expires_at=now - 1))
        with scope:
            ready, renewed = asyncio.Event(), asyncio.Event()
            task = asyncio.get_running_loop().create_task(reads(ready, renewed))
            await ready.wait()
            scope.renew(SecurityContext("alice", expires_at=now + 60))
            renewed.set()
            assert security().expires_at == now + 60
            assert await task == (now - 1, now + 60)

    run(main())


@pytest.mark.parametrize(
    ("other", "problem"),
    [
        (SecurityContext("bob", tenant="acme"), "somebody else"),
        (SecurityContext("alice", tenant="other"), "somebody else"),
        (SecurityContext("alice", tenant="acme", roles=frozenset({"editor", "admin"})), "more roles: admin"),
    ],
)
def test_a_renewal_neither_changes_who_it_is_nor_widens_it(other: SecurityContext, problem: str) -> None:
    scope = acting_as(ALICE)
    with scope:
        with pytest.raises(SecurityContextError, match=problem):
            scope.renew(other)
        assert security() == ALICE


# Tasks, threads, executors


def test_tasks_made_inside_keep_the_identity_and_give_none_back(run: Any) -> None:
    async def child() -> tuple[str, str]:
        before = who()
        scope = acting_as(BOB)
        with scope:
            await asyncio.sleep(0.01)
            return before, who()

    async def main() -> None:
        with acting_as(ALICE):
            task = asyncio.get_running_loop().create_task(child())
            await asyncio.sleep(0)
            assert who() == "alice"
        assert who() == "nobody"
        assert await task == ("alice", "bob")

    run(main())


def test_a_thread_with_a_snapshot_sees_it_and_one_without_sees_nobody(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with acting_as(ALICE), ThreadPoolExecutor(1) as executor:
            async with deadline(5.0, "all"):
                taken = snapshot()
                assert await asyncio.to_thread(who) == "alice"
                assert await loop.run_in_executor(executor, who) == "nobody"
                assert await loop.run_in_executor(executor, taken.run, who) == "alice"
                left = await loop.run_in_executor(executor, taken.run, remaining)
                assert left is not None
                assert 4.0 < left <= 5.0

    run(main())


def test_a_snapshot_runs_in_many_threads_at_once_and_keeps_nothing_of_them() -> None:
    barrier = threading.Barrier(4, timeout=5)

    def enter(number: int) -> str:
        scope = acting_as(SecurityContext(f"user-{number}"))
        with scope:
            barrier.wait()
            return who()

    with acting_as(ALICE):
        taken = snapshot()
    with ThreadPoolExecutor(4) as executor:
        found = list(executor.map(lambda number: taken.run(enter, number), range(4)))
    assert found == [f"user-{number}" for number in range(4)]
    assert taken.run(who) == "alice"
    assert taken.security == ALICE


def test_a_pickled_snapshot_has_who_acts_and_the_time_that_is_left_and_no_more(run: Any) -> None:
    async def main() -> None:
        with acting_as(ALICE):
            async with deadline(5.0, "save"):
                data = pickle.dumps(snapshot())
        taken: Snapshot = pickle.loads(data)
        assert b"secret" not in data
        assert taken.run(security) == SecurityContext("alice", ALICE.roles, "acme")
        left = taken.run(remaining)
        assert left is not None
        assert 4.0 < left <= 5.0

    run(main())
    bare: Snapshot = pickle.loads(pickle.dumps(snapshot()))
    assert bare.run(remaining) is None
    with pytest.raises(SecurityContextError):
        bare.run(security)


def test_what_is_inherited_is_what_was_asked_for(run: Any) -> None:
    async def main() -> None:
        with acting_as(ALICE):
            async with deadline(5.0):
                found = {}
                for inherit in ("none", "deadline", "security", "all"):
                    for outlives in (False, True):
                        context = inherited(inherit, Context(), outlives=outlives)  # type: ignore[arg-type]
                        found[inherit, outlives] = (context.run(who), context.run(remaining) is not None)
                with pytest.raises(ValueError, match="inherit is one of"):
                    inherited("some", Context(), outlives=False)  # type: ignore[arg-type]
        assert found == {
            ("none", False): ("nobody", False),
            ("none", True): ("nobody", False),
            ("deadline", False): ("nobody", True),
            ("deadline", True): ("nobody", True),
            ("security", False): ("alice", False),
            ("security", True): ("alice", False),
            ("all", False): ("alice", True),
            ("all", True): ("alice", False),
        }

    run(main())


# Generators


async def leaking() -> AsyncIterator[str]:
    with acting_as(ALICE):
        await asyncio.sleep(0)
        yield who()
        yield who()


def test_who_consumes_a_generator_that_yields_inside_is_not_its_identity(run: Any) -> None:
    async def main() -> None:
        stream = leaking()
        assert await anext(stream) == "alice"
        for look in (security, require, snapshot, lambda: inherited("all", Context(), outlives=False)):
            with pytest.raises(SecurityContextError, match=r"yielded inside acting_as.*test_context.py:\d+ in leaking"):
                look()
        with pytest.raises(SecurityContextError, match="leaking"), acting_as(BOB):
            raise AssertionError("entered")
        assert await anext(stream) == "alice"
        with contextlib.suppress(StopAsyncIteration):
            await anext(stream)
        assert who() == "nobody"

    run(main())


def test_a_plain_generator_is_found_as_well() -> None:
    def numbers() -> Generator[int, None, None]:
        with acting_as(ALICE):
            yield 1

    stream = numbers()
    assert next(stream) == 1
    with pytest.raises(SecurityContextError, match="numbers"):
        security()
    stream.close()
    assert who() == "nobody"


def test_what_a_generator_calls_before_it_yields_sees_its_identity(run: Any) -> None:
    async def deep() -> str:
        await asyncio.sleep(0)
        return security().principal

    async def stream() -> AsyncIterator[str]:
        with acting_as(ALICE):
            async with asyncio.TaskGroup() as group:
                task = group.create_task(deep())
            names = f"{await deep()} {task.result()} {await asyncio.to_thread(lambda: security().principal)}"
        yield names

    async def main() -> list[str]:
        return [names async for names in stream()]

    assert run(main()) == ["alice alice alice"]


def test_a_generator_that_is_closed_in_another_task_says_so(run: Any) -> None:
    async def main() -> None:
        stream = leaking()

        async def first() -> None:
            await anext(stream)

        loop = asyncio.get_running_loop()
        told: list[str] = []
        loop.set_exception_handler(lambda _, context: told.append(str(context["exception"])))
        await loop.create_task(first())
        await asyncio.sleep(0)
        assert len(told) == 1
        assert "in leaking was never left" in told[0]
        with pytest.raises(SecurityContextError, match="must not yield inside"):
            await stream.aclose()  # type: ignore[attr-defined]

    run(main())


def test_a_context_manager_made_of_a_generator_is_fine(run: Any) -> None:
    @contextlib.asynccontextmanager
    async def as_alice() -> AsyncIterator[None]:
        await asyncio.sleep(0)
        with acting_as(ALICE):
            yield

    @contextlib.contextmanager
    def as_bob() -> Iterator[None]:
        with acting_as(BOB):
            yield

    async def main() -> None:
        async with as_alice():
            assert security().principal == "alice"
            with as_bob():
                assert security().principal == "bob"
            assert security().principal == "alice"
        assert who() == "nobody"

    run(main())


def test_a_stream_acts_for_each_step_and_its_consumer_never(run: Any) -> None:
    seen: list[str] = []

    async def lines() -> AsyncIterator[str]:
        try:
            yield who()
            await asyncio.sleep(0)
            yield who()
        finally:
            seen.append(f"closed by {who()}")

    async def main() -> None:
        with acting_as(BOB):
            seen.extend([f"{line} for {security().principal}" async for line in stream_as(ALICE, lines())])
        async with contextlib.aclosing(stream_as(ALICE, lines())) as stream:
            assert await anext(stream) == "alice"
            assert who() == "nobody"

    run(main())
    assert sorted(seen) == ["alice for bob", "alice for bob", "closed by alice", "closed by alice"]


# Cancellation and leaks


def test_cancelled_at_any_await_the_identity_is_left(run: Any) -> None:
    async def body(steps: list[str]) -> None:
        with acting_as(ALICE):
            await asyncio.sleep(0)
            with acting_as(BOB):
                await asyncio.sleep(0)
            try:
                await asyncio.sleep(0)
            finally:
                steps.append(who())
        steps.append(who())

    async def main() -> None:
        told: list[Any] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(context))
        for turns in range(6):
            steps: list[str] = []
            task = loop.create_task(body(steps))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            await asyncio.sleep(0)
            assert "bob" not in steps
        assert told == []

    run(main())


def test_nothing_holds_a_context_when_it_was_left(run: Any) -> None:
    async def main() -> None:
        def scopes() -> int:
            return sum(type(each) is acting_as for each in gc.get_objects())

        for _ in range(50):
            with acting_as(ALICE):
                async for _line in stream_as(BOB, leaking_never()):
                    pass
        assert scopes() <= 2

    async def leaking_never() -> AsyncIterator[int]:
        yield 1

    gc.collect()
    gc.disable()
    try:
        run(main())
    finally:
        gc.enable()


@on_both_loops
def test_a_request_that_leaves_its_context_entered_is_named(loop: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/leak":
            acting_as(ALICE).__enter__()
        with acting_as(BOB):
            await answer(send, who())

    with serving(app, settings(), loop) as served:
        with served.connect() as client:
            assert client.send(get("/fine")).answer().body == b"bob"
            assert client.send(get("/leak")).answer().body == b"bob"
            assert client.send(get("/fine")).answer().body == b"bob"
        (event,) = served.of(TaskFailed)
    assert event.owner == "connection 1"
    assert isinstance(event.error, SecurityContextError)
    assert "test_context.py" in str(event.error)
    assert "in test_a_request_that_leaves_its_context_entered_is_named.<locals>.app was never left" in str(event.error)


@on_both_loops
def test_no_identity_is_seen_by_the_next_request_of_a_connection(loop: str) -> None:
    """Also where reading is paused and resumed inside the request that acts (python/cpython#140947)."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        before = who()
        if scope["path"] == "/alice":
            acting_as(ALICE).__enter__()  # the worst that can be done
            await read_body(receive)
        await answer(send, before)

    body = b"x" * 2_000_000
    with serving(app, settings(), loop) as served, served.connect() as client:
        for _ in range(3):
            assert client.send(get("/alice", method="POST", body=body)).answer().body == b"nobody"
            assert client.send(get("/")).answer().body == b"nobody"
        assert len(served.of(TaskFailed)) == 3


async def answer(send: Any, text: str) -> None:
    body = text.encode()
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})


@given(st.text(), st.text(min_size=1), st.text(), st.text(min_size=1))
def test_two_of_different_tenants_are_never_kept_under_one_name(tenant: str, one: str, other: str, two: str) -> None:
    first, second = SecurityContext(one, tenant=tenant), SecurityContext(two, tenant=other or None)
    assert (first.qualified == second.qualified) == ((tenant, one) == (other, two))


@pytest.mark.parametrize(
    ("tenant", "principal", "name"),
    [
        (None, "alice", "alice"),
        ("", "alice", "alice"),
        ("acme", "alice", "@acme/alice"),
        ("a/b%", "c/d", "@a%2Fb%25/c/d"),
        (None, "@acme/alice", "@/acme/alice"),
    ],
)
def test_a_principal_is_kept_under_a_name_that_has_its_tenant(tenant: str | None, principal: str, name: str) -> None:
    assert SecurityContext(principal, tenant=tenant).qualified == name
