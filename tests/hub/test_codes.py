"""The table of close codes: a contract with clients, in code and on the page."""

from __future__ import annotations

import re
from pathlib import Path

from sojourn.ending import REASONS
from sojourn.hub.codes import TERMINAL, comes_back, reason_of

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "hub-wire.md"
TABLE = {
    int(code): answer
    for codes, answer in re.findall(r"^\| ([\d, ]+) \| [^|]* \| ([^|]*) \|$", PAGE.read_text(), re.MULTILINE)
    for code in codes.split(", ")
    if code != "1000"
}


def test_the_page_says_which_codes_a_client_comes_back_after() -> None:
    said = {code: text.removeprefix("no, ").startswith("yes") for code, text in TABLE.items()}
    assert said == {code: comes_back(code) for code in TABLE}


def test_the_page_has_all_codes_of_the_hub() -> None:
    assert {4008, 4011, 4012, 4029, 4401, 4408, 4501, 4502, 4503, 4504, 1012, 1013} <= set(TABLE)


def test_codes_of_the_application_follow_the_same_line() -> None:
    assert comes_back(4499)
    assert not comes_back(TERMINAL)
    assert not comes_back(4999)
    assert not comes_back(1000)
    assert comes_back(1001)
    assert comes_back(1011)


def test_each_code_has_a_word_in_the_table_of_endings() -> None:
    for code in TABLE:
        assert reason_of(code) in REASONS
    assert reason_of(4600) == "ws_closed_by_app"
