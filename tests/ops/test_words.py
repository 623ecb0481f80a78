"""Numbers and places as people read them."""

from __future__ import annotations

import pytest

from sojourn.ops import words
from sojourn.ops.words import duration, number, place, plain, shortened, size, stack


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0, "0 s"),
        (0.00034, "340 us"),
        (0.0006, "1 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (119.4, "119 s"),
        (119.6, "2 min"),
        (7169, "119 min"),
        (7200, "2.0 h"),
        (3 * 86400, "3 d"),
        (-1.5, "-1.5 s"),
    ],
)
def test_a_duration_has_two_or_three_digits(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "-"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (10189, "10 KiB"),
        (1048063, "1023 KiB"),
        (1048064, "1.0 MiB"),
        (1 << 42, "4.0 TiB"),
        (1 << 52, "4096 TiB"),
    ],
)
def test_a_size_changes_its_unit_before_it_gets_a_fifth_digit(count: int | None, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("count", "text"), [(None, "-"), (7, "7"), (12345, "12,345"), (0.25, "0.25"), (3.0, "3"), (1234.56, "1,235")]
)
def test_a_number_has_no_more_digits_than_mean_something(count: float | None, text: str) -> None:
    assert number(count) == text


def test_a_stranger_can_not_drive_the_terminal() -> None:
    assert plain("/a\x1b[2Jb\n\u202e") == "/a\\x1b[2Jb\\n\\u202e"
    assert plain(None) == ""


def test_a_place_is_named_from_the_working_folder_or_from_the_packages() -> None:
    assert place("/srv/app/web.py:3 in f", "/srv/app") == "web.py:3 in f"
    assert place("/v/lib/python3.11/site-packages/redis/client.py:3 in f", "/srv/app") == "redis/client.py:3 in f"
    assert place("/usr/lib/python3/dist-packages/redis/client.py:3 in f", "/srv/app") == "redis/client.py:3 in f"
    assert place("/usr/lib/python3.13t/asyncio/locks.py:3 in f", "/srv/app") == "asyncio/locks.py:3 in f"
    assert place("/other/web.py:3 in f", "/srv/app") == "/other/web.py:3 in f"
    assert place(f"{words.__file__}:3 in f", "/srv/app") == "sojourn/ops/words.py:3 in f"
    assert place("", "/srv/app") == ""


def test_a_frame_is_read_in_each_of_its_forms() -> None:
    frames = [["f", "/x/web.py", 3], {"function": "g", "file": "/x/web.py", "line": 9}]
    assert stack(frames) == ["/x/web.py:3 in f", "/x/web.py:9 in g"]


def test_what_is_cut_is_marked_where_something_is_missing() -> None:
    assert shortened("abcdef", 6) == "abcdef"
    assert shortened("abcdef", 4) == "abc…"
    assert shortened("abcdef", 4, start=True) == "…def"
