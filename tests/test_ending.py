"""Endings: stable words, each with one meaning."""

from __future__ import annotations

import re
from http import HTTPStatus
from pathlib import Path

import pytest

from sojourn.ending import REASONS, Ending, Fault, How, Phase, Reason, Who

SOURCE = Path(__file__).parents[1] / "src" / "sojourn"

rows = pytest.mark.parametrize("row", REASONS.values(), ids=REASONS.keys())


@rows
def test_a_reason_is_a_word_that_metrics_can_carry(row: Reason) -> None:
    assert REASONS[row.word] is row
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", row.word)
    assert row.advice
    assert not row.advice.endswith(".")


@rows
def test_a_reason_has_a_status_or_a_close_code_that_exists(row: Reason) -> None:
    assert row.status in (None, 499) or HTTPStatus(row.status) >= 400
    assert row.ws_code is None or 1000 <= row.ws_code <= 1014 or 4000 <= row.ws_code <= 4999


@rows
def test_below_4500_a_client_comes_back_and_from_there_on_it_does_not(row: Reason) -> None:
    if row.ws_code is not None and row.ws_code >= 4000:
        assert row.reconnect is not (row.ws_code >= 4500)


@rows
def test_who_ended_it_and_whom_an_slo_charges_agree(row: Reason) -> None:
    clients, servers = {Who.CLIENT, Who.CLIENT_SILENT}, {Who.APP, Who.APP_SLOW}
    if row.who in servers:
        assert row.fault is Fault.APP
    elif row.who in clients:
        assert row.fault in (Fault.CLIENT, Fault.NONE, Fault.OVERLOAD)
    elif row.who is Who.DRAIN:
        assert row.fault in (Fault.NONE, Fault.SHUTDOWN)
    elif row.who is Who.INTERNAL:
        assert row.fault is Fault.SERVER


def test_letters_and_words_are_not_used_twice() -> None:
    for kind in (Who, Phase, How, Fault):
        values = [member.value for member in kind]
        assert len(set(values)) == len(values)
    assert all(len(member.value) == 1 for kind in (Who, Phase) for member in kind)


def test_a_code_says_who_and_in_which_phase() -> None:
    assert Ending("completed", Phase.RESPONSE).code == "--"
    assert Ending("handler_deadline", Phase.HANDLER, How.TIMEOUT).code == "aH"
    assert Ending("request_body_timeout", Phase.BODY, How.TIMEOUT).code == "cB"
    assert Ending("client_reset", Phase.RESPONSE, How.RST).code == "CD"


def test_an_ending_knows_its_row() -> None:
    ending = Ending("send_timeout", Phase.RESPONSE, How.TIMEOUT, "write_idle")
    assert ending.row is REASONS["send_timeout"]
    assert ending.who is Who.CLIENT_SILENT


def test_a_word_that_is_no_reason_is_found_when_it_is_used() -> None:
    with pytest.raises(KeyError):
        _ = Ending("no_such_reason", Phase.IDLE).row


def test_every_reason_that_the_source_names_is_in_the_table() -> None:
    for path in SOURCE.rglob("*.py"):
        for word in re.findall(r"\bEnding\(\s*\"(\w+)\"", path.read_text(encoding="utf-8")):
            assert word in REASONS, f"{path.name} ends something for {word!r}"
