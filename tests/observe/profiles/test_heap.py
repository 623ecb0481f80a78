"""What is alive, and who holds it."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from sojourn.errors import ErrandError
from sojourn.observe.profiles import heap, holders
from sojourn.observe.profiles.holders import Walk, in_words, type_name
from sojourn.observe.profiles.model import Profile, Sample
from sojourn.observe.profiles.render import render
from tests.observe.profiles.serving import looking
from tests.server.serving import Run, both_loops, hello


class Kept:
    """Something that a test keeps."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.words = [f"word {number}"]


class Slotted:
    __slots__ = ("inside",)

    def __init__(self, inside: object) -> None:
        self.inside = inside


class Shelf:
    def __init__(self) -> None:
        self.rows: dict[object, object] = {}


SHELF = Shelf()


@pytest.fixture(autouse=True)
def _empty() -> Any:
    yield
    SHELF.rows.clear()


def sample_of(profile: Profile, kind: type) -> Sample:
    return next(sample for sample in profile.samples if sample.stack[0].function == type_name(kind))


@both_loops
def test_a_leaked_type_is_counted_and_the_way_to_it_is_named(run: Run) -> None:
    async def main() -> None:
        async with looking(hello) as looked:
            SHELF.rows.update((number, Kept(number)) for number in range(30_000))
            profile = await looked.profilers.profile({"name": "heap"})
            assert [tuple(kind) for kind in profile.kinds] == [("inuse_objects", "count"), ("inuse_space", "bytes")]
            kept = sample_of(profile, Kept)
            assert kept.values[0] == 30_000
            assert kept.values[1] >= 30_000 * 40
            (held,) = (value for name, value in kept.labels if name == "held")
            assert str(held).startswith(f"{__name__}.SHELF > {__name__}.Shelf.rows > dict[")
            assert str(held).endswith(f" > {__name__}.Kept")
            assert sample_of(profile, str).values[0] > 30_000  # the collector does not know strings
            assert "forked child" in profile.comments[0]
            assert b"Kept" in render(profile, "text")[1]

    run(main())


def test_what_the_server_has_frozen_is_counted_too() -> None:
    async def main() -> None:
        async with looking(hello) as looked:
            SHELF.rows["frozen"] = [Kept(number) for number in range(5_000)]
            gc.freeze()
            try:
                profile = await looked.profilers.profile({"name": "heap"})
            finally:
                gc.unfreeze()
            assert sample_of(profile, Kept).values[0] == 5_000

    asyncio.run(main())


def test_one_census_at_a_time() -> None:
    async def main() -> None:
        async with looking(hello) as looked:
            first = asyncio.get_running_loop().create_task(looked.profilers.profile({"name": "heap"}))
            await asyncio.sleep(0)
            with pytest.raises(ErrandError, match="counted") as caught:
                await looked.profilers.profile({"name": "heap"})
            assert caught.value.status == 409
            assert (await first).name == "heap"

    asyncio.run(main())


def test_a_census_is_bounded_and_says_so() -> None:
    found = heap.census(most=5_000)
    assert not found.complete
    assert sum(row.known for row in found.rows) <= 5_000


def test_garbage_and_what_only_the_loop_holds_are_counted_apart() -> None:
    gc.collect()
    gc.disable()
    try:
        for number in range(500):
            cycle = Kept(number)
            cycle.words.append(cycle)  # type: ignore[arg-type]
        del cycle
        found = heap.census()
        assert found.complete
        assert found.unreached >= 500
    finally:
        gc.enable()
        gc.collect()


def way_to(target: object) -> str:
    walk = Walk()
    for _ in walk.objects():
        pass
    assert target in walk
    return walk.way(target)


def test_a_way_names_attributes_slots_keys_and_places() -> None:
    target = Kept(1)
    SHELF.rows["front"] = [None, Slotted((0, target))]
    assert way_to(target) == (
        f"{__name__}.SHELF > {__name__}.Shelf.rows > dict['front'] > list[1] > {__name__}.Slotted.inside"
        f" > tuple[1] > {__name__}.Kept"
    )


def test_keys_that_may_be_secrets_are_not_shown() -> None:
    target = Kept(1)
    SHELF.rows["Bearer 5f-very-secret"] = target
    assert "secret" not in way_to(target)
    assert "dict[...]" in way_to(target)


def test_a_shortest_way_is_found_where_there_are_several() -> None:
    target = Kept(1)
    SHELF.rows["long"] = [[[[target]]]]
    SHELF.rows["short"] = target
    assert "['short']" in way_to(target)


def test_a_long_way_is_cut_in_its_middle() -> None:
    chain: list[Any] = [[]]
    for _ in range(40):
        chain.append([chain[-1]])
    words = in_words(chain[::-1]).split(" > ")
    assert len(words) == holders.STEPS
    assert "..." in words


@pytest.mark.parametrize(("kind", "name"), [(dict, "dict"), (Kept, f"{__name__}.Kept"), (type, "type")])
def test_types_have_their_qualified_names(kind: type, name: str) -> None:
    assert type_name(kind) == name


def test_types_that_lie_about_themselves_do_no_harm() -> None:
    class Meta(type):
        @property
        def __module__(cls) -> str:  # type: ignore[override]
            raise RuntimeError("no module")

    class Liar(metaclass=Meta):
        def __sizeof__(self) -> int:
            raise RuntimeError("no size")

    SHELF.rows["liar"] = [Liar() for _ in range(100)]
    assert heap.census().complete
    assert type_name(Liar).endswith("Liar")
    assert "Liar" in way_to(SHELF.rows["liar"][0])  # type: ignore[index]
