"""The files of the browser client: built from their source, small, and served as browsers want them."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any

import pytest

from scripts.build_browser_client import mark
from sojourn.hub.browser.files import BrowserFiles
from tests.hub.browser.sites import SOURCE

BUILT = ["sojourn.min.js", "sojourn.classic.min.js"]


@pytest.mark.parametrize("name", BUILT)
def test_what_is_served_was_built_from_the_source(name: str) -> None:
    built = (SOURCE / name).read_bytes()
    assert built.startswith(mark((SOURCE / "sojourn.js").read_bytes())), "run scripts/build_browser_client.py"


@pytest.mark.parametrize("name", BUILT)
def test_it_is_smaller_than_five_kilobytes(name: str) -> None:
    assert len((SOURCE / name).read_bytes()) < 5 * 1024


def ask(path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """The answer to a request for a file."""
    files = BrowserFiles()
    file = files.find(path)
    assert file is not None
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    asyncio.run(files.send(file, {"type": "http", "method": method, "headers": raw}, send))
    start, body = sent
    return start["status"], {name.decode(): value.decode() for name, value in start["headers"]}, body["body"]


@pytest.mark.parametrize(
    ("path", "kind", "name"),
    [
        ("/hub/sojourn.js", "text/javascript", "sojourn.min.js"),
        ("sojourn.classic.js", "text/javascript", "sojourn.classic.min.js"),
        ("/sojourn.d.ts", "text/plain", "sojourn.d.ts"),
    ],
)
def test_each_file_is_found_by_the_end_of_its_path(path: str, kind: str, name: str) -> None:
    status, headers, body = ask(path)
    assert (status, headers["content-type"]) == (200, f"{kind}; charset=utf-8")
    assert body == (SOURCE / name).read_bytes()
    assert headers["content-length"] == str(len(body))


def test_other_paths_are_none_of_them() -> None:
    assert [BrowserFiles().find(path) for path in ("", "/", "/hub", "/files.py", "/sojourn.min.js")] == [None] * 5


def test_it_is_compressed_for_those_who_can_read_that() -> None:
    _, headers, body = ask("/sojourn.js", accept_encoding="br, gzip")
    assert headers["content-encoding"] == "gzip"
    assert gzip.decompress(body) == ask("/sojourn.js")[2]
    assert len(body) < 3000


def test_who_has_it_already_gets_nothing_and_head_has_no_body() -> None:
    etag = ask("/sojourn.js")[1]["etag"]
    status, headers, body = ask("/sojourn.js", if_none_match=f'"other", W/{etag}')
    assert (status, headers["etag"], body) == (304, etag, b"")
    status, headers, body = ask("/sojourn.js", "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) > 4000
