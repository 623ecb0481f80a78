"""The table of addresses: it says what was written, whatever came and went before, and it never grows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.policy.addresses import BUCKET, AddressTable


def memory(buckets: int) -> memoryview:
    return memoryview(bytearray(buckets * BUCKET * 12))


def hashed(number: int) -> bytes:
    return number.to_bytes(8, "little")


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 5))))
def test_what_was_written_is_read_and_nothing_else(writes: list[tuple[int, int]]) -> None:
    shared = memory(2)
    writer, reader = AddressTable(shared), AddressTable(shared)
    cells: dict[int, int] = {}
    counts: dict[int, int] = {}
    for address, count in writes:
        if address in cells:
            writer.change(cells[address], count)
            if count == 0:
                del cells[address]
        elif count:
            cell = writer.enter(hashed(address), count)
            assert cell is not None
            cells[address] = cell
        counts[address] = count
        assert len(set(cells.values())) == len(cells)
        assert all(reader.count(hashed(known)) == counts[known] for known in counts)
        assert reader.count(hashed(41)) == 0


def test_a_full_bucket_takes_nobody_and_the_next_place_is_given_again() -> None:
    table = AddressTable(memory(2))
    cells = [table.enter(hashed(2 * number), 1) for number in range(1, BUCKET + 1)]
    assert None not in cells
    late, other = hashed(2 * BUCKET + 2), hashed(1)
    assert table.enter(late, 1) is None
    assert table.count(late) == 0
    assert table.enter(other, 1) is not None
    assert cells[7] is not None
    table.change(cells[7], 0)
    assert table.enter(late, 3) == cells[7]
    assert table.count(late) == 3
    assert table.count(hashed(2)) == 1


def test_any_number_of_addresses_that_came_and_went_leave_the_table_as_it_was() -> None:
    shared = memory(1)
    table = AddressTable(shared)
    stays = table.enter(hashed(10**9), 1)
    for number in range(1, 20 * BUCKET):
        cell = table.enter(hashed(number), 1)
        assert cell is not None
        assert cell != stays
        table.change(cell, 0)
    assert table.count(hashed(10**9)) == 1
    assert stays is not None
    table.change(stays, 0)
    assert shared == bytes(len(shared))


def test_bytes_of_neighbours_are_no_address() -> None:
    """Half of one hash and half of the next one look like a third."""
    table = AddressTable(memory(1))
    one, two = bytes(range(1, 9)), bytes(range(11, 19))
    table.enter(one, 1)
    table.enter(two, 1)
    assert table.count(one[4:] + two[:4]) == 0
    table.enter(one[4:] + two[:4], 2)
    assert table.count(one[4:] + two[:4]) == 2


@pytest.mark.parametrize("size", [0, 12, BUCKET * 12 + 1, BUCKET * 12 + 12])
def test_memory_of_a_wrong_size_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="no table"):
        AddressTable(memoryview(bytearray(size)))
