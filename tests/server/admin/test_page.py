"""The reference page of the admin listener: every path is there, and every line for curl is answered."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from sojourn.clock import SystemClock
from sojourn.config import Admin
from sojourn.observe.profiles.model import Kind, Profile
from sojourn.server.admin.app import routes
from sojourn.server.admin.audit import Audit
from tests.server.admin.fleet import FakeFleet, ask

DOCS = Path(__file__).parents[3] / "docs"
PAGES = [DOCS / "reference" / "admin.md", DOCS / "how-to" / "change-settings.md"]
KNOWN = routes(Audit(None, SystemClock()))


def test_every_path_is_on_the_page_with_its_arguments_and_no_other_is() -> None:
    text = PAGES[0].read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `/")]
    named = {path for row in rows for path in re.findall(r"`(/[^`]*)`", row.split("|")[1])}
    assert named == {route.path.replace("{n}-{n}", "{worker}-{id}") for route in KNOWN}
    for route in KNOWN:
        path = route.path.replace("{n}-{n}", "{worker}-{id}")
        if not path.startswith("/debug/pprof/"):
            of_it = " ".join(row for row in rows if f"`{path}`" in row)
            assert [name for name in route.taken if f"`{name}" not in of_it] == [], path


def commands() -> list[str]:
    return [line for page in PAGES for line in page.read_text().splitlines() if line.startswith("curl ")]


@pytest.mark.parametrize("line", commands())
def test_every_line_for_curl_is_answered(line: str) -> None:
    words = shlex.split(line)
    url = urlsplit(next(word for word in words if word.startswith("http")))
    method = words[words.index("-X") + 1] if "-X" in words else "GET"
    body = words[words.index("-d") + 1] if "-d" in words else ""
    headers = [words[words.index("-H") + 1]] if "-H" in words else []
    remote = Admin(bind="0.0.0.0:9000", token="TOKEN")
    settings = remote if headers else Admin(actions=True)
    answers: Any = {
        "connections": lambda *_: [],
        "tasks": lambda *_: [],
        "close": lambda *_: {},
        "hub_disconnect": lambda *_: {"ended": 2},
        "journal_change_all": lambda *_: {"changed": 2, "before": ""},
        "profile": lambda *_: Profile(name="profile", kinds=(Kind("cpu", "nanoseconds"),), samples=[]),
    }
    answer = ask(
        FakeFleet(answers),
        f"{url.path}?{url.query}",
        *headers,
        method=method,
        host=url.netloc,
        body=body.encode(),
        settings=settings,
    )
    assert answer.status in (200, 202), answer.body
