"""Members that get the same bytes are written to as one, and each is counted for what it got."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.hub.group import Group
from tests.hub.memory_clients import serving
from tests.hub.stand_ins import in_a_loop, turn


class Stub:
    """What a group asks of a member."""

    def __init__(self, group: Group, behind: bool = False) -> None:
        self.group = group
        self.behind = behind
        self.got_messages = self.got_bytes = 0
        self.at = 0.0
        self.received: list[bytes] = []
        self.blocks: Callable[[], bool] = lambda: False

    def write(self, data: bytes) -> None:
        self.received.append(data)
        if not self.behind and self.blocks():
            self.falls()

    def falls(self) -> None:
        self.behind = True
        self.group.fell_behind(self)  # type: ignore[arg-type]

    def rises(self) -> None:
        self.behind = False
        self.group.caught_up(self)  # type: ignore[arg-type]

    def got(self, messages: int, size: int, at: float) -> None:
        self.got_messages += messages
        self.got_bytes += size
        self.at = at


def group_of(count: int) -> tuple[Group, list[Stub]]:
    group = Group()
    members = [Stub(group) for _ in range(count)]
    for member in members:
        group.add(member)  # type: ignore[arg-type]
    return group, members


def test_what_all_got_is_counted_for_each_when_it_is_settled() -> None:
    group, members = group_of(3)
    assert group.write(b"abc", 2, 5.0) == []
    assert [each.got_messages for each in members] == [0, 0, 0]
    group.settle_all()
    assert [(each.got_messages, each.got_bytes, each.at) for each in members] == [(2, 3, 5.0)] * 3
    group.settle_all()
    assert members[0].got_messages == 2


def test_who_falls_behind_in_the_middle_of_a_write_has_got_it_and_the_others_too() -> None:
    group, members = group_of(3)
    members[1].blocks = lambda: True
    assert group.write(b"abc", 1, 5.0) == []
    assert [each.received for each in members] == [[b"abc"]] * 3
    assert members[1].got_messages == 1
    assert group.write(b"def", 1, 6.0) == [members[1]]  # type: ignore[comparison-overlap]
    assert members[1].received == [b"abc"]
    group.settle_all()
    assert [each.got_messages for each in members] == [2, 1, 2]
    members[1].blocks = lambda: False
    members[1].rises()
    group.write(b"ghi", 1, 7.0)
    group.settle_all()
    assert [each.got_messages for each in members] == [3, 2, 3]


def test_who_comes_has_none_of_what_was_written_before_and_who_goes_none_of_what_comes_after() -> None:
    group, members = group_of(1)
    group.write(b"abc", 1, 1.0)
    late, blocked = Stub(group), Stub(group, behind=True)
    group.add(late)  # type: ignore[arg-type]
    group.add(blocked)  # type: ignore[arg-type]
    group.remove(members[0])  # type: ignore[arg-type]
    assert members[0].got_messages == 1
    assert group.write(b"def", 1, 2.0) == [blocked]  # type: ignore[comparison-overlap]
    group.settle_all()
    assert (members[0].got_messages, late.got_messages, blocked.got_messages) == (1, 1, 0)
    assert (len(members[0].received), len(late.received), len(blocked.received)) == (1, 1, 0)


_STEPS = st.lists(st.tuples(st.sampled_from(["write", "add", "remove", "fall", "rise", "settle"]), st.integers(0, 7)))


@given(_STEPS)
def test_whatever_happens_each_is_counted_for_exactly_what_was_written_to_it(steps: list[tuple[str, int]]) -> None:
    group, members = group_of(2)
    everybody = list(members)
    for step, number in steps:
        member: Any = members[number % len(members)] if members else None
        if step == "write":
            group.write(b"x" * number, 1, 1.0)
        elif step == "add":
            fresh = Stub(group, behind=number % 2 == 0)
            fresh.blocks = lambda number=number, fresh=fresh: len(fresh.received) % 3 == number  # type: ignore[misc]
            group.add(fresh)  # type: ignore[arg-type]
            members.append(fresh)
            everybody.append(fresh)
        elif member is None:
            continue
        elif step == "remove":
            group.remove(member)
            members.remove(member)
        elif step == "fall" and not member.behind:
            member.falls()
        elif step == "rise" and member.behind:
            member.rises()
        elif step == "settle":
            group.settle(member)
    group.settle_all()
    for each in everybody:
        assert each.got_messages == len(each.received)
        assert each.got_bytes == sum(map(len, each.received))


@in_a_loop
async def test_a_member_that_falls_behind_in_the_middle_of_a_write_gets_what_follows_in_its_place() -> None:
    async with serving(room=1000) as site:
        clients = [await site.client("/?ch=a") for _ in range(5)]
        clients[2].peer.stop_taking()
        for number in range(8):
            await site.hub.publish("a", f"{number}:" + "z" * 300)
            await turn()
        topic = site.hub.node.topics.get("a")
        assert topic is not None
        (group,) = topic.groups.values()
        assert len(group) == 5
        assert clients[2].member.waiting is not None
        clients[2].peer.take_all()
        await site.settle()
        texts = [each.read() for each in clients]
        assert all(each == texts[0] for each in texts)
        assert len(texts[0]) == 8
        assert {each.member.sent for each in clients if each is clients[2]} == {8}


@pytest.mark.parametrize("form", ["/?ch=a", "/?ch=a&since="])
@in_a_loop
async def test_members_come_and_go_between_writes_while_others_are_behind(form: str) -> None:
    async with serving(room=1000) as site:
        stay, slow = await site.client(form), await site.client(form)
        slow.peer.stop_taking()
        expected: dict[int, list[int]] = {}
        guests = []
        for number in range(24):
            if number % 4 == 0:
                guests.append((number, await site.client(form)))
            if number % 6 == 5:
                begin, guest = guests.pop(0)
                guest.close()
                await site.settle()
                expected[begin] = list(range(begin, number))
                guest.read()
                assert [int(each.partition("#")[2][:2]) for each in guest.texts if "#" in each] == expected[begin]
            await site.hub.publish("a", f"#{number:02}" + "z" * 200)
            await turn()
            if number == 12:
                slow.peer.take(700)
        slow.peer.take_all()
        await site.settle()
        for client in (stay, slow):
            client.read()
            assert [int(each.partition("#")[2][:2]) for each in client.texts if "#" in each] == list(range(24))
