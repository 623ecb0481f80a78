"""Whatever is asked in whatever order, the file and a model of it agree."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Coroutine
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sojourn.clock import ManualClock
from sojourn.tasks.journal import Query, Want
from sojourn.tasks.record import ENDED, NewTask, Outcome, Progress, Settlement
from sojourn.tasks.sqlite import SqliteJournal

IDS = st.integers(0, 2).map(lambda number: f"task-{number}")
OUTCOMES = st.sampled_from(["completed", "failed", "cancelled", "retry", "handover", "unbegun"])


class Modelled:
    """What is to be known of one task."""

    def __init__(self, priority: int, due: float) -> None:
        self.priority = priority
        self.due = due
        self.state = "pending"
        self.epoch = self.failures = self.interruptions = self.crashes = self.seq = 0
        self.lease = 0.0
        self.cancelling = False
        self.settled: tuple[int, str] | None = None


class JournalMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.clock = ManualClock()
        self.journal = SqliteJournal(f"{self.folder.name}/tasks.db", clock=self.clock)
        self.do(self.journal.open("n"))
        self.model: dict[str, Modelled] = {}

    def do(self, call: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(call)

    def teardown(self) -> None:
        self.do(self.journal.aclose())
        self.runner.close()
        self.folder.cleanup()

    @property
    def now(self) -> float:
        return self.clock.monotonic()

    @rule(seconds=st.sampled_from([0.5, 5.0, 25.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(id=IDS, priority=st.integers(0, 2), delay=st.sampled_from([0.0, 5.0]))
    def submit(self, id: str, priority: int, delay: float) -> None:
        (done,) = self.do(self.journal.submit([NewTask(id=id, kind="k", priority=priority, delay=delay)]))
        known = self.model.setdefault(id, Modelled(priority, self.now + delay))
        assert (done.id, done.new, done.state) == (id, True, known.state)

    @rule(n=st.integers(1, 4), lease=st.sampled_from([2.0, 20.0]))
    def claim(self, n: int, lease: float) -> None:
        found = self.do(self.journal.claim("n", [Want(("k",), n)], lease)).claims
        ready = [
            (-each.priority, each.due, id)
            for id, each in self.model.items()
            if (each.state == "pending" and each.due <= self.now)
            or (each.state == "running" and each.lease <= self.now)
        ]
        taken = {id for *_, id in sorted(ready)}
        assert {claim.id for claim in found} <= taken
        best = [priority for priority, *_ in sorted(ready)[:n]]
        given = []
        for id, each in self.model.items():
            claim = next((claim for claim in found if claim.id == id), None)
            if claim is not None:
                given.append(-each.priority)
                lost = each.state == "running"
                each.interruptions += lost
                each.crashes += lost
                each.epoch += 1
                each.state, each.lease = "running", self.now + lease
                assert (claim.epoch, claim.crashes, claim.failures) == (each.epoch, each.crashes, each.failures)
            elif id in taken and each.cancelling and self.state_of(id) == "cancelled":
                given.append(-each.priority)
                each.interruptions += 1
                each.crashes += 1
                each.state, each.cancelling = "cancelled", False
        assert sorted(given) == best

    @rule(id=IDS, back=st.sampled_from([0, 0, 0, 1]), outcome=OUTCOMES)
    def settle(self, id: str, back: int, outcome: Outcome) -> None:
        each = self.model.get(id)
        epoch = 1 if each is None else each.epoch - back
        settlement = Settlement(id=id, epoch=epoch, outcome=outcome, delay=4.0)
        (counted,) = self.do(self.journal.settle([settlement]))
        if each is None or not (each.state == "running" and each.epoch == epoch):
            assert counted == (each is not None and each.settled == (epoch, outcome))
            return
        assert counted
        each.settled = (epoch, outcome)
        each.failures += outcome in ("failed", "retry")
        each.interruptions += outcome == "handover"
        each.due = self.now + 4.0 if outcome == "retry" else each.due
        if outcome in ENDED:
            each.state = outcome
        else:
            each.state = "cancelled" if each.cancelling else "pending"
        each.cancelling = False

    @rule(id=IDS, back=st.sampled_from([0, 0, 1]))
    def say(self, id: str, back: int) -> None:
        each = self.model.get(id)
        epoch = 1 if each is None else each.epoch - back
        (seq,) = self.do(self.journal.append([Progress(id, epoch, b"1")]))
        if each is not None and each.state == "running" and each.epoch == epoch:
            each.seq += 1
            assert seq == each.seq
        else:
            assert seq == 0

    @rule(id=IDS)
    def beat(self, id: str) -> None:
        each = self.model.get(id)
        beat = self.do(self.journal.beat("n", [(id, each.epoch if each else 1)], 20.0))
        own = each is not None and each.state == "running"
        assert (id in beat.lost) == (not own)
        if each is not None and own:
            each.lease = self.now + 20.0
            assert (id in beat.cancelled) == each.cancelling

    @rule(id=IDS)
    def cancel(self, id: str) -> None:
        task = self.do(self.journal.cancel(id))
        each = self.model.get(id)
        assert (task is None) == (each is None)
        if each is not None and each.state == "pending":
            each.state = "cancelled"
        elif each is not None and each.state == "running":
            each.cancelling = True

    @rule(id=IDS)
    def retry(self, id: str) -> None:
        task = self.do(self.journal.retry(id))
        each = self.model.get(id)
        assert (task is None) == (each is None)
        if each is not None and each.state in ("failed", "cancelled"):
            each.state, each.due, each.failures, each.crashes = "pending", self.now, 0, 0

    def state_of(self, id: str) -> str:
        return str(self.do(self.journal.get(id)).state)

    @invariant()
    def all_is_as_in_the_model(self) -> None:
        found = {task.id: task for task in self.do(self.journal.list(Query(limit=100)))}
        assert found.keys() == self.model.keys()
        for id, each in self.model.items():
            task = found[id]
            for name in "state epoch failures interruptions crashes seq cancelling".split():
                assert getattr(task, name) == getattr(each, name), (id, name)
            assert (task.ended > 0) == (each.state in ENDED)


JournalMachine.TestCase.settings = settings(max_examples=12, stateful_step_count=40, deadline=None)
TestTheFileAndAModelOfItAgree: Callable[..., Any] = JournalMachine.TestCase
