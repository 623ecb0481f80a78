"""The address of a hub has the client that fits it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from sojourn.hub.hub import Hub
from sojourn.hub.identity import Caller, Identity
from sojourn.routing.router import Router
from tests.examples.serving import serving


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    hub = Hub()

    @hub.authenticate
    async def nobody(_: Caller) -> Identity | None:
        return None

    app = Router()
    app.mount("/hub", hub.app())
    with serving(app) as served:
        yield served


def test_the_client_is_served_below_the_address_of_a_hub_to_everybody(url: str) -> None:
    answer = httpx.get(f"{url}/hub/sojourn.js")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert "export" in answer.text
    again = httpx.get(f"{url}/hub/sojourn.js", headers={"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert httpx.head(f"{url}/hub/sojourn.d.ts").status_code == 200


def test_what_is_no_file_of_the_client_is_asked_of_the_hub(url: str) -> None:
    assert httpx.get(f"{url}/hub/?wait=0").status_code == 401
    assert httpx.post(f"{url}/hub/sojourn.js").status_code == 401
