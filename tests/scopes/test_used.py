"""Which things of one sort are used."""

from __future__ import annotations

import gc

from sojourn.bus import Bus
from sojourn.events import StoreBack, TaskBegan
from sojourn.scopes.used import Used


class Thing:
    """Something that is used."""


def test_each_is_known_once_from_when_it_is_used_until_it_leaves() -> None:
    used, things = Used[Thing](Bus()), [Thing(), Thing()]
    for thing in things * 2:
        used.join(thing)
    assert set(used) == set(things)
    assert len(used) == 2
    used.leave(things[0])
    used.leave(things[0])
    assert list(used) == [things[1]]


def test_what_nobody_keeps_is_not_kept_by_being_known() -> None:
    used = Used[Thing](Bus())
    used.join(Thing())
    gc.collect()
    assert list(used) == []


def test_one_may_join_while_somebody_goes_through_them() -> None:
    used, things = Used[Thing](Bus()), [Thing(), Thing()]
    used.join(things[0])
    for _ in used:
        used.join(things[1])
    assert len(used) == 2


def test_what_happens_is_told_to_who_observes_the_server() -> None:
    bus, heard = Bus(), []
    used = Used[Thing](bus)
    assert not used.wants(StoreBack)
    bus.observe(StoreBack, heard.append)
    assert used.wants(StoreBack)
    assert not used.wants(TaskBegan)
    used.tell(StoreBack("tasks", "tasks", "sqlite", 2.0))
    assert heard == [StoreBack("tasks", "tasks", "sqlite", 2.0)]
