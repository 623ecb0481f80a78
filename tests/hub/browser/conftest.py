"""One server and one browser for all tests of this folder; a fresh page for each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.examples.browser import Page, browse
from tests.hub.browser.sites import Site, site


@pytest.fixture(scope="package")
def _served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, str, Page]]:
    with site() as (app, url), browse(tmp_path_factory.mktemp("profile"), url) as opened:
        yield app, url, opened


@pytest.fixture
def app(_served: tuple[Site, str, Page]) -> Site:
    """What is served."""
    return _served[0]


@pytest.fixture
def page(_served: tuple[Site, str, Page]) -> Iterator[Page]:
    """A page that has loaded the client."""
    app, url, opened = _served
    app.seen.clear()
    opened.open(url)
    opened.until("window.ready")
    yield opened
    opened.open("about:blank")
