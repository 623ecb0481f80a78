"""The roster: who is there is shown once, who is gone is gone at every end, and a standstill takes nobody away."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sojourn.hub.engine import Present
from sojourn.hub.roster import Roster

ADA, BOB, NOBODY = Present("m1", "ada"), Present("m2", "bob"), Present("m3", "")


def ids(roster: Roster, channel: str) -> list[str]:
    return [present.member for present in roster.present(channel, 1000)]


def test_only_who_is_new_or_has_changed_has_come() -> None:
    roster = Roster()
    assert roster.enter("n", "c", [ADA, BOB], 60, 0.0) == [ADA, BOB]
    suspect = BOB._replace(state="suspect")
    assert roster.enter("n", "c", [ADA, suspect], 60, 1.0) == [suspect]
    assert roster.present("c", 10) == [ADA, suspect]
    assert roster.present("c", 1) == [ADA]
    assert roster.present("other", 1) == []


def test_a_user_counts_once_and_who_has_proved_nothing_only_as_a_member() -> None:
    roster = Roster()
    again = Present("m4", "ada")
    roster.enter("n", "c", [ADA, again, BOB, NOBODY], 60, 0.0)
    assert roster.count("c") == (4, 2)
    roster.leave("n", "c", ["m1"])
    assert roster.count("c") == (3, 2)
    roster.enter("n", "c", [again._replace(user="eve")], 60, 0.0)
    assert roster.count("c") == (3, 2)
    roster.leave("n", "c", ["m4", "m2"])
    assert roster.count("c") == (1, 0)
    assert roster.count("other") == (0, 0)


def test_a_node_takes_away_its_own_members_only() -> None:
    roster = Roster()
    roster.enter("one", "c", [ADA], 60, 0.0)
    roster.enter("two", "c", [BOB], 60, 0.0)
    roster.enter("two", "d", [BOB], 60, 0.0)
    assert roster.leave("two", "c", ["m1", "unknown"]) == []
    assert roster.gone("two") == {"c": ["m2"], "d": ["m2"]}
    assert roster.gone("two") == {}
    assert (ids(roster, "c"), len(roster)) == (["m1"], 1)


def test_who_is_not_refreshed_is_gone_after_the_ttl() -> None:
    roster = Roster(step=100)
    roster.enter("n", "c", [ADA, BOB], 10, 0.0)
    assert roster.refresh("n", {"c": ["m1", "lost"], "d": ["m1"]}, 10, 8.0) == {"c": ["lost"], "d": ["m1"]}
    assert roster.expire(9.9) == {}
    assert roster.expire(10.0) == {"n": {"c": ["m2"]}}
    assert roster.expire(17.9) == {}
    assert roster.expire(18.0) == {"n": {"c": ["m1"]}}
    assert len(roster) == 0


def test_a_shorter_ttl_counts_from_when_it_is_said() -> None:
    roster = Roster(step=100)
    roster.enter("n", "c", [ADA], 50, 0.0)
    roster.refresh("n", {"c": ["m1"]}, 5, 0.0)
    roster.refresh("n", {"c": ["m1"]}, 20, 1.0)
    assert roster.expire(20.9) == {}
    assert roster.expire(21.0) == {"n": {"c": ["m1"]}}


def test_time_in_which_the_process_stood_still_does_not_count() -> None:
    roster = Roster(step=2.0)
    roster.enter("n", "c", [ADA], 10, 0.0)
    assert roster.expire(1000.0) == {}
    for second in range(1001, 1008):
        assert roster.expire(float(second)) == {}
    assert roster.expire(1008.0) == {"n": {"c": ["m1"]}}


def test_a_member_that_moves_to_another_node_is_there_once() -> None:
    roster = Roster()
    roster.enter("one", "c", [ADA], 60, 0.0)
    roster.enter("two", "c", [ADA], 60, 0.0)
    assert roster.gone("one") == {}
    assert roster.count("c") == (1, 1)
    assert roster.gone("two") == {"c": ["m1"]}


def test_more_than_the_most_are_not_shown_and_counted() -> None:
    roster = Roster(most=2)
    assert roster.enter("n", "c", [ADA, BOB, NOBODY], 60, 0.0) == [ADA, BOB]
    assert roster.refused == 1
    roster.leave("n", "c", ["m1"])
    assert roster.enter("n", "c", [NOBODY], 60, 0.0) == [NOBODY]


def test_members_that_come_and_go_leave_nothing_behind() -> None:
    roster = Roster()
    for index in range(5000):
        roster.enter("n", "c", [Present(str(index), "ada")], 1000, 0.0)
        roster.leave("n", "c", [str(index)])
    assert (len(roster), roster.count("c")) == (0, (0, 0))
    assert len(roster._due) < 1100


STEP = st.one_of(
    st.tuples(
        st.just("enter"), st.sampled_from("AB"), st.sampled_from("cd"), st.sampled_from("mno"), st.integers(1, 5)
    ),
    st.tuples(st.just("leave"), st.sampled_from("AB"), st.sampled_from("cd"), st.sampled_from("mno"), st.just(0)),
    st.tuples(st.just("refresh"), st.sampled_from("AB"), st.sampled_from("cd"), st.sampled_from("mno"), st.just(5)),
    st.tuples(st.just("gone"), st.sampled_from("AB"), st.just(""), st.just(""), st.just(0)),
    st.tuples(st.just("wait"), st.just(""), st.just(""), st.just(""), st.integers(1, 3)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(STEP, max_size=50))
def test_who_is_there_is_who_came_and_neither_left_nor_was_forgotten(
    steps: list[tuple[str, str, str, str, int]],
) -> None:
    roster, now = Roster(step=1000), 0.0
    there: dict[tuple[str, str], tuple[str, float]] = {}
    for what, node, channel, member, number in steps:
        at = (channel, member)
        owned = at in there and there[at][0] == node
        if what == "enter":
            roster.enter(node, channel, [Present(member + node, node), Present(member, "u" + node)], number, now)
            there[channel, member + node] = there[at] = (node, now + number)
        elif what == "leave":
            assert roster.leave(node, channel, [member]) == ([member] if owned else [])
            if owned:
                del there[at]
        elif what == "refresh":
            assert roster.refresh(node, {channel: [member]}, number, now) == ({} if owned else {channel: [member]})
            if owned:
                there[at] = (node, now + number)
        elif what == "gone":
            roster.gone(node)
            there = {key: value for key, value in there.items() if value[0] != node}
        else:
            now += number
            roster.expire(now)
            there = {key: value for key, value in there.items() if value[1] > now}
        assert len(roster) == len(there)
        for name in "cd":
            mine = {member: node for (where, member), (node, _) in there.items() if where == name}
            assert set(ids(roster, name)) == set(mine)
            assert roster.count(name)[0] == len(mine)
