"""What a client may say in ``sojourn.v1`` (docs/reference/hub-wire.md, "From the client")."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from sojourn.wire.hub import (
    Auth,
    Command,
    Count,
    Hist,
    HubWireError,
    Join,
    Leave,
    Pub,
    Refresh,
    Who,
    decode_command,
    encode_command,
)

# Each line of the reference page, and what it means.
COMMANDS: list[tuple[str, Command]] = [
    ('{"id":1,"auth":{"token":"t"}}', Command(1, "auth", Auth("t"))),
    ('{"id":2,"join":{"ch":"chat:1"}}', Command(2, "join", Join("chat:1"))),
    ('{"id":2,"join":{"ch":"chat:1","since":""}}', Command(2, "join", Join("chat:1", ""))),
    (
        '{"id":2,"join":{"ch":"chat:1","since":"k3f9.1041","info":{"name":"Ada"}}}',
        Command(2, "join", Join("chat:1", "k3f9.1041", {"name": "Ada"})),
    ),
    ('{"id":3,"leave":{"ch":"chat:1"}}', Command(3, "leave", Leave("chat:1"))),
    (
        '{"id":4,"pub":{"ch":"chat:1","b":"AP8=","key":"k","uid":"u"}}',
        Command(4, "pub", Pub("chat:1", UNSET, b"\0\xff", "k", "u")),
    ),
    ('{"id":5,"who":{"ch":"chat:1"}}', Command(5, "who", Who("chat:1"))),
    ('{"id":6,"count":{"ch":"chat:1"}}', Command(6, "count", Count("chat:1"))),
    ('{"id":7,"hist":{"ch":"chat:1"}}', Command(7, "hist", Hist("chat:1"))),
    ('{"id":7,"hist":{"ch":"chat:1","since":"k.1","limit":50}}', Command(7, "hist", Hist("chat:1", "k.1", 50))),
    ('{"id":8,"refresh":{"token":"t"}}', Command(8, "refresh", Refresh("t"))),
    ("{}", Command(0, "pong", None)),
]


@pytest.mark.parametrize(("line", "command"), COMMANDS)
def test_each_command_is_read_and_written_as_the_page_says(line: str, command: Command) -> None:
    assert decode_command(line) == command
    assert encode_command(command).decode() == line


@pytest.mark.parametrize("payload", ["null", "7", '"text"', '{"a":[1,2,{}]}', '"\\n"', "[ 1 ]", "18446744073709551616"])
def test_payloads_are_passed_on_as_they_came(payload: str) -> None:
    for name, line in (("msg", f'{{"id":9,"msg":{payload}}}'), ("pub", f'{{"pub":{{"ch":"c","d":{payload}}}}}')):
        command = decode_command(line)
        body = command.body.d if isinstance(command.body, Pub) else command.body
        assert command.name == name
        assert isinstance(body, Raw)
        assert bytes(body).decode() == payload
        assert encode_command(command).decode() == line


@pytest.mark.parametrize("line", ["{ }", " {}", "{}\r", "{\t}"])
def test_a_pong_with_spaces_is_a_pong(line: str) -> None:
    assert decode_command(line) == Command(0, "pong", None)


def test_what_a_later_version_adds_to_a_command_is_ignored() -> None:
    assert decode_command('{"id":3,"leave":{"ch":"a","why":1},"trace":{}}') == Command(3, "leave", Leave("a"))


# The line, what its sender is told, and the number that is answered.
WRONG: list[tuple[str, str, int]] = [
    ("", "truncated", 0),
    ("nonsense", "malformed", 0),
    ("[]", "Expected `object`", 0),
    ('"x"', "Expected `object`", 0),
    ('{"id":5}', "no command", 5),
    ('{"id":5,"jion":{"ch":"a"}}', "no such command: 'jion'", 5),
    ('{"jion":{"ch":"a"}}', "no such command: 'jion'", 0),
    ('{"id":5,"who":{"ch":"a"},"count":{"ch":"a"}}', "one command a line, not who and count", 5),
    ('{"id":5,"join":{}}', "missing required field `ch`", 5),
    ('{"id":5,"join":null}', "Expected `object`, got `null`", 5),
    ('{"id":5,"join":{"ch":7}}', "Expected `str`, got `int` - at `$.join.ch`", 5),
    ('{"id":5,"pub":{"ch":"a"}}', "pub has d, or b in place of it", 5),
    ('{"id":5,"pub":{"ch":"a","d":1,"b":""}}', "and not both", 5),
    ('{"id":5,"pub":{"ch":"a","b":"?"}}', "base64", 5),
    ('{"id":5,"hist":{"ch":"a","limit":0}}', ">= 1", 5),
    ('{"id":5,"pub":{"ch":"a","d":[1e999]}}', "pub has a number that is out of range", 5),
    ('{"msg":1e999}', "msg has a number that is out of range", 0),
    ('{"id":0,"who":{"ch":"a"}}', ">= 1", 0),
    ('{"id":-1,"who":{"ch":"a"}}', ">= 1", 0),
    ('{"id":9007199254740992,"who":{"ch":"a"}}', "<= 9007199254740991", 0),
    ('{"id":"5","who":{"ch":"a"}}', "Expected `int`", 0),
    ('{"id":5,"msg":' + "[" * 100 + "]" * 100 + "}", "nested more than 64 deep", 5),
    ('{"id":5,"msg":{}}{}', "trailing", 0),
]


@pytest.mark.parametrize(("line", "message", "number"), WRONG)
def test_what_is_wrong_is_said_with_the_number_of_the_command(line: str, message: str, number: int) -> None:
    with pytest.raises(HubWireError) as caught:
        decode_command(line)
    assert message in str(caught.value)
    assert (caught.value.code, caught.value.id) == ("bad_request", number)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = ["id", "auth", "join", "leave", "pub", "who", "count", "hist", "refresh", "msg", "other"]


def outcome(line: str) -> Command | HubWireError:
    try:
        return decode_command(line)
    except HubWireError as error:
        return error


@given(st.dictionaries(st.sampled_from(NAMES), VALUES | st.fixed_dictionaries({"ch": VALUES, "d": VALUES}), max_size=3))
def test_any_object_is_a_command_or_an_error_with_its_number(said: dict[str, Any]) -> None:
    found = outcome(json.dumps(said))
    number = said.get("id")
    assert found.id == (number if type(number) is int and 1 <= number < 2**53 else 0)
    if isinstance(found, Command):
        assert outcome(encode_command(found).decode())[:2] == found[:2]


@given(st.text() | st.text(alphabet='{}[]":,idwhoc01\\ '))
def test_nothing_else_comes_out_of_any_text(text: str) -> None:
    assert isinstance(outcome(text), Command | HubWireError)
