"""What a hub says in ``sojourn.v1`` (docs/reference/hub-wire.md, "From the server")."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw, Struct

from sojourn.wire.hub import (
    Bye,
    Counted,
    Done,
    Expiring,
    Gap,
    Hello,
    HubWireError,
    Joined,
    Member,
    Members,
    Message,
    Ok,
    Page,
    Ping,
    Polled,
    Pres,
    Publication,
    Published,
    Push,
    Refused,
    Reply,
    Result,
    Snap,
    decode_object,
    decode_result,
    encode_object,
    encode_polled,
)

# Each object of the reference page.
SAID: list[tuple[Reply | Push, str]] = [
    (
        Hello("c1", "k3f9.1040", 25, 8, (500, 8000), 65536, "ada"),
        '{"hello":{"conn":"c1","pos":"k3f9.1040","ping":25,"pong":8,"retry":[500,8000],"max":65536,"user":"ada"}}',
    ),
    (Refused(2, "forbidden", "no", False), '{"id":2,"error":{"code":"forbidden","message":"no","retry":false}}'),
    (Refused(0, "rate", "slow down", True), '{"error":{"code":"rate","message":"slow down","retry":true}}'),
    (Publication("chat:1", 1051, b=b"\0\xff"), '{"ch":"chat:1","p":1051,"b":"AP8="}'),
    (Publication("chat:1", 0, "k", b=b""), '{"ch":"chat:1","k":"k","b":""}'),
    (Message(bin=b"\0"), '{"bin":"AA=="}'),
    (Gap("chat:1", "k3f9.1060"), '{"gap":{"ch":"chat:1","pos":"k3f9.1060"}}'),
    (Snap("chat:1", "k3f9.1060", b=b"x"), '{"snap":{"ch":"chat:1","pos":"k3f9.1060","b":"eA=="}}'),
    (
        Pres("chat:1", [Member("n-1", "ada", "suspect", {"a": 1})], ["n-2"]),
        '{"pres":{"ch":"chat:1","came":[{"member":"n-1","user":"ada","state":"suspect","info":{"a":1}}],"left":["n-2"]}}',
    ),
    (Expiring(60), '{"expiring":{"in":60}}'),
    (Bye(1012, "service restart", (500, 8000)), '{"bye":{"code":1012,"reason":"service restart","retry":[500,8000]}}'),
    (Bye(4503, "", None), '{"bye":{"code":4503,"reason":"","retry":null}}'),
    (Ping(), "{}"),
]


@pytest.mark.parametrize(("said", "line"), SAID)
def test_each_object_is_written_and_read_as_the_page_says(said: Reply | Push, line: str) -> None:
    assert encode_object(said).decode() == line
    assert decode_object(line) == said


@pytest.mark.parametrize("payload", ["null", '"text"', '{"a":1}'])
def test_payloads_are_spliced_in_as_they_are(payload: str) -> None:
    raw = Raw(payload.encode())
    said: list[tuple[Push, str]] = [
        (Publication("chat:1", 1051, d=raw), f'{{"ch":"chat:1","p":1051,"d":{payload}}}'),
        (Message(raw), f'{{"msg":{payload}}}'),
        (Snap("chat:1", "k.1", raw), f'{{"snap":{{"ch":"chat:1","pos":"k.1","d":{payload}}}}}'),
    ]
    for push, line in said:
        assert encode_object(push).decode() == line
        again = decode_object(line)
        found = getattr(again, "msg", None) or getattr(again, "d", None)
        assert isinstance(found, Raw)
        assert bytes(found).decode() == payload


RESULTS: list[tuple[Result, str]] = [
    (Joined("k.1"), '{"pos":"k.1"}'),
    (Joined("k.1", True), '{"pos":"k.1","recovered":true}'),
    (Joined("k.1", False), '{"pos":"k.1","recovered":false}'),
    (Published("k.1", True), '{"pos":"k.1","repeated":true}'),
    (Published("k.1"), '{"pos":"k.1","repeated":false}'),
    (Members([Member("m")]), '{"members":[{"member":"m","user":"","state":"normal","info":null}],"more":false}'),
    (Counted(3, 2), '{"members":3,"users":2}'),
    (
        Page([Publication("a", 1, b=b"")], "k.1", True),
        '{"pubs":[{"ch":"a","p":1,"b":""}],"pos":"k.1","gap":true,"more":false}',
    ),
    (Done(), "{}"),
]


@pytest.mark.parametrize(("result", "json"), RESULTS)
def test_each_result_is_written_and_read_as_the_page_says(result: Result, json: str) -> None:
    assert encode_object(Ok(4, result)).decode() == f'{{"id":4,"ok":{json}}}'
    said = decode_object(f'{{"id":4,"ok":{json}}}')
    assert isinstance(said, Ok)
    assert said.id == 4
    assert isinstance(said.ok, Raw)
    kind: type[Struct] = type(result)
    assert decode_result(said.ok, kind) == result


def test_a_result_of_another_kind_is_an_error() -> None:
    with pytest.raises(HubWireError, match="missing required field `members`"):
        decode_result(Raw(b"{}"), Counted)


def test_a_poll_is_answered_in_one_object() -> None:
    assert encode_polled(Polled("k.2", [Publication("a", 2, d=Raw(b"{}"))], ["b"], (0, 100))) == (
        b'{"pos":"k.2","pubs":[{"ch":"a","p":2,"d":{}}],"gap":["b"],"retry":[0,100]}'
    )


@pytest.mark.parametrize("line", ['{"news":1}', '{"id":3,"maybe":{}}'])
def test_what_a_later_version_says_is_ignored(line: str) -> None:
    assert decode_object(line) is None


@pytest.mark.parametrize("line", ["{ }", "{}\r", "{}"])
def test_a_ping_is_a_ping_with_spaces_too(line: str) -> None:
    assert decode_object(line) == Ping()


@pytest.mark.parametrize(
    "line", ["", "[]", '{"ch":"a"}', '{"ch":"a","d":1,"b":""}', '{"gap":{}}', '{"id":1,"error":{}}']
)
def test_what_is_none_of_it_is_an_error(line: str) -> None:
    with pytest.raises(HubWireError):
        decode_object(line)


@given(st.text() | st.text(alphabet='{}[]":,chpdok01\\ '))
def test_nothing_else_comes_out_of_any_text(text: str) -> None:
    with contextlib.suppress(HubWireError):
        decode_object(text)
