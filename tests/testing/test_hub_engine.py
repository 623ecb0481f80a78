"""The contract suite of engines finds what is broken: each of these engines breaks one promise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import pytest

from sojourn.hub.engine import Page, Present, Publish, Published, Wanted
from sojourn.hub.memory import MemoryEngine
from sojourn.testing import hub_recorder
from sojourn.testing.hub_engine import PROMISES, BrokenPromise, EngineContract


class LosesEveryTenth(MemoryEngine):
    async def publish(self, publish: Publish) -> Published:
        receiver = self._receiver
        if receiver is not None and self._log.seq % 10 == 9:
            made = self._log.publish(publish, 0.0)
            return made if isinstance(made, Published) else Published(made.cursor)
        return await super().publish(publish)


class DeliversTwice(MemoryEngine):
    async def publish(self, publish: Publish) -> Published:
        done = await super().publish(publish)
        if self._receiver is not None and publish.channel in self._subscribed:
            page = await self.history([Wanted(publish.channel, None, publish.history)], 1000)
            if page.publications:
                self._receiver.deliver(page.publications[-1])
        return done


class SeesNoGaps(MemoryEngine):
    async def history(self, wanted: Sequence[Wanted], limit: int) -> Page:
        return (await super().history(wanted, limit))._replace(lost={})


class SeesGapsEverywhere(MemoryEngine):
    async def history(self, wanted: Sequence[Wanted], limit: int) -> Page:
        page = await super().history(wanted, limit)
        return page._replace(lost={each.channel: page.position.seq for each in wanted if each.since is not None})


class TakesThePresentForWhatIsLost(MemoryEngine):
    async def history(self, wanted: Sequence[Wanted], limit: int) -> Page:
        page = await super().history(wanted, limit)
        return page._replace(lost=dict.fromkeys(page.lost, self._log.seq))


class ReadsOneAfterAnother(MemoryEngine):
    async def history(self, wanted: Sequence[Wanted], limit: int) -> Page:
        pages = []
        for each in wanted:
            pages.append(await super().history([each], limit))
            await asyncio.sleep(0)
        place = min(page.position for page in pages)
        found = sorted((each for page in pages for each in page.publications), key=lambda each: each.seq)
        upto = [each for each in found if each.seq <= place.seq]
        lost = {channel: last for page in pages for channel, last in page.lost.items()}
        return Page(upto, place, lost, any(page.more for page in pages))


class GivesOneChannelAfterAnother(MemoryEngine):
    async def history(self, wanted: Sequence[Wanted], limit: int) -> Page:
        page = await super().history(wanted, limit)
        return page._replace(publications=sorted(page.publications, key=lambda each: each.channel))


class LimitsEachChannel(MemoryEngine):
    async def history(self, wanted: Sequence[Wanted], limit: int) -> Page:
        return await super().history(wanted, limit * len(wanted))


class HasOnePlaceForAll(MemoryEngine):
    async def history(self, wanted: Sequence[Wanted], limit: int) -> Page:
        return await super().history([each._replace(since=wanted[0].since) for each in wanted], limit)


class ForgetsIds(MemoryEngine):
    async def publish(self, publish: Publish) -> Published:
        return await super().publish(publish._replace(id=""))


class HearsForever(MemoryEngine):
    async def unsubscribe(self, channel: str) -> None:
        pass


class KeepsMembers(MemoryEngine):
    async def leave(self, channel: str, members: Sequence[str]) -> None:
        pass


class LosesMembers(MemoryEngine):
    async def refresh(self, present: Mapping[str, Sequence[str]], ttl: float) -> None:
        pass


class CountsMembersAsUsers(MemoryEngine):
    async def count(self, channel: str) -> tuple[int, int]:
        members, _ = await super().count(channel)
        return members, members


class ShowsTooMany(MemoryEngine):
    async def present(self, channel: str, limit: int) -> Sequence[Present]:
        return await super().present(channel, limit + 100)


class NeverEnds(MemoryEngine):
    async def aclose(self) -> None:
        pass


BROKEN = [
    (LosesEveryTenth, "what_is_published_after_subscribe_is_delivered_in_order_to_all"),
    (LosesEveryTenth, "publications_made_at_the_same_time_have_one_order"),
    (DeliversTwice, "what_is_published_after_subscribe_is_delivered_in_order_to_all"),
    (SeesNoGaps, "a_gap_is_told_exactly_when_something_is_missing"),
    (SeesNoGaps, "another_epoch_or_a_place_ahead_is_a_gap_and_gets_all"),
    (SeesGapsEverywhere, "a_gap_is_told_exactly_when_something_is_missing"),
    (SeesGapsEverywhere, "the_latest_of_each_key_is_kept_and_has_no_gaps"),
    (TakesThePresentForWhatIsLost, "a_gap_says_up_to_where_something_is_missing"),
    (ReadsOneAfterAnother, "channels_that_are_read_together_are_read_at_one_moment"),
    (GivesOneChannelAfterAnother, "channels_are_read_together_in_one_order_each_after_its_place"),
    (LimitsEachChannel, "channels_are_read_together_in_one_order_each_after_its_place"),
    (HasOnePlaceForAll, "channels_are_read_together_in_one_order_each_after_its_place"),
    (ForgetsIds, "what_has_an_id_is_published_once"),
    (HearsForever, "only_what_is_subscribed_is_delivered"),
    (KeepsMembers, "who_is_present_is_seen_from_all_nodes"),
    (LosesMembers, "who_is_refreshed_stays_and_who_is_not_is_gone_after_the_ttl"),
    (CountsMembersAsUsers, "who_is_present_is_seen_from_all_nodes"),
    (ShowsTooMany, "who_is_present_is_seen_from_all_nodes"),
    (NeverEnds, "an_engine_that_has_ended_tells_nothing_and_does_nothing"),
]


@pytest.mark.parametrize(("kind", "promise"), BROKEN)
def test_a_broken_engine_is_found(kind: type[MemoryEngine], promise: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_recorder, "PATIENCE", 0.05)

    @asynccontextmanager
    async def store(nodes: int) -> AsyncIterator[list[MemoryEngine]]:
        made = [kind() for _ in range(nodes)]
        yield made
        for engine in made:
            await MemoryEngine.aclose(engine)

    with pytest.raises(BrokenPromise):
        asyncio.run(EngineContract(store, nodes=1).check(promise))


def test_what_needs_two_nodes_is_not_asked_of_one() -> None:
    assert EngineContract(store_of).promises == list(PROMISES)
    assert set(PROMISES) - set(EngineContract(store_of, nodes=1).promises) == {
        "other_nodes_are_told_who_came_changed_and_left",
        "members_of_a_node_that_is_gone_are_gone_after_the_ttl_and_it_is_told",
        "what_a_node_tells_is_told_to_the_others",
    }


@asynccontextmanager
async def store_of(nodes: int) -> AsyncIterator[list[MemoryEngine]]:
    yield [MemoryEngine() for _ in range(nodes)]
