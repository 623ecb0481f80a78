"""W3C Trace Context: what is valid is taken whole, what is not is taken not at all."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.wire.traceparent import TraceContext, is_unsampled, parse, parse_headers, parse_state, trace_id_of

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01".encode()

hex_ids = st.integers(1, 2**128 - 1).map(lambda n: f"{n:032x}")
span_ids = st.integers(1, 2**64 - 1).map(lambda n: f"{n:016x}")
contexts = st.builds(TraceContext, hex_ids, span_ids, st.integers(0, 3), st.just(""))
keys = st.from_regex(r"[a-z][a-z0-9_*/-]{0,20}", fullmatch=True)
values = st.from_regex(r"[!-+\--<>-~]{1,40}", fullmatch=True)


@given(contexts)
def test_what_is_written_is_read_back(context: TraceContext) -> None:
    assert parse(context.traceparent) == context


@given(st.binary() | st.text(st.sampled_from("0123456789abcdefA-")).map(str.encode))
def test_any_bytes_give_a_valid_context_or_none(data: bytes) -> None:
    context = parse(data, [data])
    if context is not None:
        assert re.fullmatch(r"[0-9a-f]{32}", context.trace_id)
        assert context.trace_id.strip("0")
        assert context.span_id.strip("0")


@pytest.mark.parametrize(
    "header",
    [
        b"",
        PARENT[:-1],
        PARENT + b"-",
        PARENT + b"-what-the-future-will-be-like",
        PARENT.upper(),
        PARENT.replace(b"00-", b"ff-", 1),
        PARENT.replace(TRACE.encode(), b"0" * 32),
        PARENT.replace(SPAN.encode(), b"0" * 16),
        b" " + PARENT,
        PARENT + b"\n",
        b"cc-" + PARENT[3:] + b".what",
    ],
)
def test_an_invalid_traceparent_is_no_context(header: bytes) -> None:
    assert parse(header) is None
    assert trace_id_of(header) == ""


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    assert parse(b"cc-" + PARENT[3:] + b"-what-the-future-will-be-like") == TraceContext(TRACE, SPAN, 1)
    assert parse(b"01-" + PARENT[3:-2] + b"ff") == TraceContext(TRACE, SPAN, 255)
    assert TraceContext(TRACE, SPAN, 255).traceparent == f"00-{TRACE}-{SPAN}-03".encode()


def test_sampled_is_the_lowest_bit() -> None:
    assert TraceContext(TRACE, SPAN, 1).sampled
    assert not TraceContext(TRACE, SPAN, 2).sampled


@given(contexts)
def test_a_quick_look_finds_out_what_the_parser_does(context: TraceContext) -> None:
    assert is_unsampled(context.traceparent) is not context.sampled


@given(st.binary() | st.text(st.sampled_from("0123456789abcdef-")).map(str.encode))
def test_a_quick_look_calls_nothing_unsampled_that_is_not_valid(data: bytes) -> None:
    context = parse(data)
    assert not is_unsampled(data) or (context is not None and not context.sampled)


@pytest.mark.parametrize("spoilt", [(TRACE, "0" * 32), (SPAN, "0" * 16), ("00-", "ff-"), ("-01", "-00-")])
def test_a_quick_look_is_as_strict(spoilt: tuple[str, str]) -> None:
    good = PARENT.replace(b"-01", b"-00")
    assert is_unsampled(good)
    before, after = (part.encode() for part in spoilt)
    assert not is_unsampled(good.replace(before.replace(b"-01", b"-00"), after, 1))


def test_two_traceparents_are_none() -> None:
    assert parse_headers([(b"traceparent", PARENT)]) == TraceContext(TRACE, SPAN, 1)
    assert parse_headers([(b"traceparent", PARENT), (b"traceparent", PARENT)]) is None
    assert parse_headers([(b"host", b"a")]) is None


def test_tracestate_of_several_headers_is_one_list() -> None:
    headers = [(b"tracestate", b"a=1,, b=2"), (b"traceparent", PARENT), (b"tracestate", b"t1@sys=x y ,a=9")]
    context = parse_headers(headers)
    assert context is not None
    assert context.state == "a=1,b=2,t1@sys=x y"


@pytest.mark.parametrize("state", [b"=1", b"A=1", b"a", b"a=", b"a=1=2", b"a=b\x00", b"a@=1", b"a=1;b", b"a=\xff"])
def test_one_bad_entry_spoils_the_tracestate_and_not_the_parent(state: bytes) -> None:
    valid = state == b"a=1;b"
    context = parse(PARENT, [b"x=1," + state])
    assert context is not None
    assert context.state == ("x=1,a=1;b" if valid else "")


@given(st.dictionaries(keys, values, max_size=32))
def test_what_is_passed_on_is_bounded_valid_and_in_order(entries: dict[str, str]) -> None:
    sent = ",".join(f"{key}={value}" for key, value in entries.items())
    state = parse_state([sent.encode()])
    assert len(state) <= 512
    assert parse_state([state.encode()]) == state
    assert sent.startswith(state)


def test_the_longest_entries_go_first_and_then_the_last() -> None:
    long, short = f"long={'x' * 200}", [f"k{n:02d}={'v' * 20}" for n in range(24)]
    assert parse_state([",".join([long, *short]).encode()]) == ",".join(short[:20])
    assert parse_state([",".join(f"k{n}=v" for n in range(33)).encode()]) == ""
    assert parse_state([b"a=" + b"x," * 5000]) == ""
