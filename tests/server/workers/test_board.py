"""The board: a row for each worker, that all can read and that nobody's death spoils."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from sojourn.errors import StartupError
from sojourn.policy.addresses import AddressTable
from sojourn.server.workers.board import Board, State


@pytest.fixture
def board() -> Iterator[Board]:
    board = Board.create(rows=4, addresses=16384)
    yield board
    board.close()


def test_a_claimed_row_is_zero_and_starting(board: Board) -> None:
    row = board.claim()
    assert (row.index, row.state) == (0, State.STARTING)
    assert (row.pid, row.beat, row.open, row.served, row.untracked) == (0, 0.0, 0, 0, 0)
    assert [other.index for other in board] == [0]


def test_what_is_written_to_a_row_is_in_that_row_only(board: Board) -> None:
    first, second = board.claim(), board.claim()
    first.pid, first.state, first.beat = 2**31, State.READY, 1234.5678901
    first.open, first.served, first.untracked = 10_000, 2**40, 3
    assert (first.pid, first.state, first.beat) == (2**31, State.READY, 1234.5678901)
    assert (first.open, first.served, first.untracked) == (10_000, 2**40, 3)
    assert (second.pid, second.beat, second.open, second.served, second.untracked) == (0, 0.0, 0, 0, 0)
    assert second.state is State.STARTING


def test_a_freed_row_is_empty_with_all_it_counted(board: Board) -> None:
    kept, gone = board.claim(), board.claim()
    kept.open = gone.open = 7
    for row in (kept, gone):
        table = AddressTable(board.addresses(row))
        table.enter(b"somebody", 3)
    board.free(gone)
    assert (gone.state, gone.open) == (State.EMPTY, 0)
    assert bytes(board.addresses(gone)) == bytes(len(board.addresses(gone)))
    assert AddressTable(board.addresses(kept)).count(b"somebody") == 3
    assert [row.index for row in board] == [kept.index]
    assert board.claim().index == gone.index


def test_every_change_of_who_is_there_is_seen_in_the_epoch(board: Board) -> None:
    epochs = [board.epoch]
    rows = []
    for _ in range(3):
        rows.append(board.claim())
        epochs.append(board.epoch)
    for row in rows:
        row.state = State.READY
        board.free(row)
        epochs.append(board.epoch)
    assert len(set(epochs)) == 7


def test_more_workers_than_rows_are_refused(board: Board) -> None:
    for _ in range(4):
        board.claim()
    with pytest.raises(StartupError, match="no more than 4 worker"):
        board.claim()


def test_another_process_sees_and_writes_the_same_rows(board: Board) -> None:
    row = board.claim()
    row.pid, row.beat = 17, 2.5
    script = (
        "import sys; from sojourn.server.workers.board import Board, State\n"
        "board = Board.attach(int(sys.argv[1])); row = board.row(0)\n"
        "assert (row.pid, row.beat, row.state) == (17, 2.5, State.STARTING)\n"
        "row.state = State.READY; row.open = 42\n"
        "sys.stdout.write(board.secret.hex())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(board.fd)],
        pass_fds=(board.fd,),
        stdout=subprocess.PIPE,
        timeout=30,
        check=True,
    )
    assert (row.state, row.open) == (State.READY, 42)
    assert bytes.fromhex(done.stdout.decode()) == board.secret


def test_boards_have_secrets_of_their_own(board: Board) -> None:
    other = Board.create(rows=1, addresses=16384)
    assert other.secret != board.secret
    assert len(board.secret) == 16
    other.close()


def test_an_attached_board_is_not_handed_on_by_accident(board: Board) -> None:
    fd = os.dup(board.fd)
    os.set_inheritable(fd, True)
    attached = Board.attach(fd)
    assert not os.get_inheritable(fd)
    assert len(attached) == len(board)
    attached.close()
    attached.close()


def test_nobody_can_shorten_the_memory_under_the_others(board: Board) -> None:
    with pytest.raises(PermissionError):
        os.ftruncate(board.fd, 0)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is no board"),
        (b"x" * 8192, "is no board"),
        (None, "layout 99, this version of Sojourn reads 1"),
    ],
)
def test_what_is_no_board_of_this_version_is_refused(board: Board, content: bytes | None, says: str) -> None:
    fd = os.memfd_create("other")
    os.write(fd, os.pread(board.fd, 8192, 0) if content is None else content)
    if content is None:  # as a later version may write it
        os.pwrite(fd, (99).to_bytes(8, sys.byteorder), 8)
    with pytest.raises(StartupError, match=says):
        Board.attach(fd)
    os.close(fd)


def test_a_descriptor_that_is_closed_is_refused() -> None:
    with pytest.raises(StartupError, match="can't be read"):
        Board.attach(9999)


@pytest.mark.parametrize(("rows", "addresses"), [(0, 16384), (1, 0), (1, 1000)])
def test_impossible_sizes_are_refused(rows: int, addresses: int) -> None:
    with pytest.raises(ValueError, match="a board can't have"):
        Board.create(rows, addresses)
