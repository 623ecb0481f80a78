"""One server and one browser for the tests of a file; a page that is as new for each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.examples.browser import Page, browse
from tests.hub.browser.sites import Site, site


@pytest.fixture(scope="module")
def _served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, str, Page]]:
    with site() as (app, url), browse(tmp_path_factory.mktemp("profile"), url) as opened:
        opened.until("window.ready")
        yield app, url, opened


@pytest.fixture
def app(_served: tuple[Site, str, Page]) -> Site:
    """What is served."""
    return _served[0]


@pytest.fixture
def page(_served: tuple[Site, str, Page]) -> Iterator[Page]:
    """A page that has loaded the client, and holds nothing of another test."""
    app, _, opened = _served
    app.seen.clear()
    yield opened
    opened.value("window.reset(), 0")
    opened.complaints.clear()


@pytest.fixture
def loaded(_served: tuple[Site, str, Page]) -> Iterator[Page]:
    """A page that was loaded for this test alone, for one whose clients are not made by ``dial``."""
    _, url, opened = _served
    opened.open(url)
    opened.until("window.ready")
    yield opened
    opened.open(url)
    opened.until("window.ready")
    opened.complaints.clear()
