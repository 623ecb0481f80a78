"""Tasks over HTTP: started, asked for, waited for, cancelled, listed; the same under Sojourn and under uvicorn."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest

from sojourn.config import Admission
from sojourn.errors import JournalUnavailable
from sojourn.tasks.record import Task
from tests.hub.stand_ins import in_a_loop, until
from tests.tasks.app.scene import SERVERS, played

JSON = {"content-type": "application/json"}


@pytest.mark.parametrize("server", SERVERS)
@in_a_loop
async def test_a_task_is_accepted_asked_for_and_done(server: str) -> None:
    async with played(server) as scene, scene.client() as client:
        started = await client.post("/_tasks/area", json={"width": 3})
        assert started.status_code == 202
        assert 1 <= int(started.headers["retry-after"]) <= 30
        said = started.json()
        assert started.headers["location"] == said["location"] == f"/_tasks/{said['id']}"
        assert len(said["id"]) >= 22, "at least 128 random bits"
        found = await client.get(said["location"], params={"wait": 5})
        assert found.status_code == 200
        assert "retry-after" not in found.headers
        assert found.json().items() >= {"state": "completed", "result": 6, "attempt": 1, "failures": 0}.items()
        again = await client.get(said["location"], headers={"if-none-match": found.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("server", SERVERS)
@in_a_loop
async def test_the_end_can_be_waited_for_where_it_is_started(server: str) -> None:
    async with played(server) as scene, scene.client() as client:
        done = await client.post("/_tasks/area", json={"width": 3}, headers={"prefer": "respond-async, wait=5"})
        assert (done.status_code, done.json()["result"]) == (200, 6)
        assert done.headers["preference-applied"] == "wait=5"
        failed = await client.post("/_tasks/fail", json={}, headers={"prefer": "wait=5"})
        assert failed.json()["state"] == "failed"
        assert failed.json()["error"] == {"type": "ValueError", "detail": "it can't be done", "attempt": 1}
        slow = await client.post("/_tasks/talk?wait=0.1", json={"words": ["a"]})
        assert slow.status_code == 202
        await scene.spoken(slow.json()["id"], 1)
        held = await client.get(slow.json()["location"], params={"wait": "0.1"})
        assert held.json()["progress"]["data"] == {"word": "a"}
        waiting = asyncio.ensure_future(client.get(slow.json()["location"] + "?wait=8"))
        node = await scene.tasks.begin()
        await until(lambda: node.watchers._waiting)
        scene.gate.set()
        assert (await waiting).json()["result"] == 1


@in_a_loop
async def test_a_key_makes_it_one_task_and_another_body_is_a_conflict() -> None:
    async with played() as scene, scene.client() as client:
        keyed = {"idempotency-key": '"8e03978e"'}
        first = await client.post("/_tasks/area", json={"width": 3}, headers=keyed)
        await scene.ended(first.json()["id"])
        same = await client.post("/_tasks/area", json={"width": 3}, headers={"idempotency-key": "8e03978e"})
        assert (same.status_code, same.json()["id"], same.json()["result"]) == (200, first.json()["id"], 6)
        for path, body in (("area", {"width": 4}), ("talk", {"words": []})):
            other = await client.post(f"/_tasks/{path}", json=body, headers=keyed)
            assert (other.status_code, other.json()["reason"]) == (409, "task_conflict")
            assert first.json()["id"] not in other.text
        async with scene.client("ada") as ada:
            hers = await ada.post("/_tasks/area", json={"width": 4}, headers=keyed)
            assert hers.status_code == 202, "a key is its principal's own"
        both = [client.post("/_tasks/area", json={"width": 5}, headers={"idempotency-key": "k"}) for _ in range(5)]
        assert len({each.json()["id"] for each in await asyncio.gather(*both)}) == 1


PROBLEMS: list[tuple[str, str, bytes, dict[str, str], int, str]] = [
    ("POST", "/area", b'{"width": ', JSON, 400, "invalid_request_body"),
    ("POST", "/area", b"\xff", JSON, 400, "invalid_request_body"),
    ("POST", "/area", b'{"width":1}', JSON | {"idempotency-key": '"'}, 400, "invalid_request_headers"),
    ("POST", "/area?wait=soon", b'{"width":1}', JSON, 400, "invalid_request_headers"),
    ("POST", "/nothing", b"{}", JSON, 404, "task_kind_not_found"),
    ("POST", "/hidden", b"{}", JSON, 404, "task_kind_not_found"),
    ("POST", "/sojourn.webhook", b"{}", JSON, 404, "task_kind_not_found"),
    ("POST", "/area/b/c", b"{}", JSON, 404, "not_found"),
    ("POST", "/area/b", b"{}", JSON, 404, "not_found"),
    ("POST", "/", b"{}", JSON, 405, "method_not_allowed"),
    ("PUT", "/area", b"{}", JSON, 405, "method_not_allowed"),
    ("GET", "/x/retry", b"", {}, 405, "method_not_allowed"),
    ("POST", "/area", b" " * (1 << 20) + b"{}", JSON, 413, "body_too_large"),
    ("POST", "/area", b'{"width":1}', {"content-type": "text/plain"}, 415, "unsupported_media_type"),
    ("POST", "/area", b"width=1", {"content-type": "application/x-www-form-urlencoded"}, 415, "unsupported_media_type"),
    ("POST", "/area", b"", {}, 415, "unsupported_media_type"),
    ("POST", "/area", b"[1]", JSON, 422, "task_arguments"),
    ("POST", "/area", b"{}", JSON, 422, "task_arguments"),
    ("POST", "/area", b'{"width":"a"}', JSON, 422, "task_arguments"),
    ("POST", "/area", b'{"width":1,"depth":2}', JSON, 422, "task_arguments"),
    ("GET", "/nothing", b"", {}, 404, "task_not_found"),
    ("GET", "/nothing", b"", {"accept": "text/event-stream"}, 404, "task_not_found"),
    ("DELETE", "/nothing", b"", {}, 404, "task_not_found"),
    ("POST", "/nothing/retry", b"", {}, 404, "task_not_found"),
    ("GET", "/", b"", {}, 401, "unauthenticated"),
]


@pytest.mark.parametrize("server", SERVERS)
@in_a_loop
async def test_what_is_refused_is_a_problem_document(server: str) -> None:
    async with played(server) as scene, scene.client() as client:
        for method, path, body, headers, status, reason in PROBLEMS:
            answer = await client.request(method, f"/_tasks{path}", content=body, headers=headers)
            what = (method, path, body[:20], answer.text)
            assert answer.status_code == status, what
            assert answer.headers["content-type"] == "application/problem+json", what
            assert answer.json()["reason"] == reason, what
            assert answer.json()["detail"], what
            assert ("allow" in answer.headers) == (status == 405), what


@in_a_loop
async def test_a_wrong_argument_is_named() -> None:
    bodies: list[tuple[dict[str, Any], str]] = [
        ({}, "width"),
        ({"width": "a"}, "width"),
        ({"width": 1, "height": None}, "height"),
        ({"width": 1, "depth": 1}, "depth"),
    ]
    async with played() as scene, scene.client() as client:
        for body, argument in bodies:
            answer = await client.post("/_tasks/area", json=body)
            assert answer.json()["argument"] == argument
            assert argument in answer.json()["detail"]


@in_a_loop
async def test_what_waits_is_cancelled_at_once_and_what_runs_soon() -> None:
    async with played() as scene, scene.client() as client:
        waits = await scene.tasks.start("area", 1, delay=60)
        gone = await client.delete(waits.location)
        assert (gone.status_code, gone.json()["state"]) == (200, "cancelled")
        assert (await client.delete(waits.location)).status_code == 200, "what is so stays so"
        runs = (await client.post("/_tasks/talk?wait=0.1", json={"words": ["a"]})).json()
        await scene.spoken(runs["id"], 1)
        asked = await client.delete(runs["location"])
        assert (asked.status_code, asked.json()["cancelling"]) == (202, True)
        assert "retry-after" in asked.headers
        assert (await scene.ended(runs["id"])).state == "cancelled"
        done = (await client.post("/_tasks/area?wait=5", json={"width": 1})).json()
        late = await client.delete(done["location"])
        assert (late.status_code, late.json()["reason"], late.json()["state"]) == (409, "task_ended", "completed")


@in_a_loop
async def test_a_task_is_its_owners_and_nobody_else_is_told_of_it() -> None:
    async with played() as scene, scene.client("ada") as ada, scene.client("bob") as bob, scene.client() as nobody:
        hers = (await ada.post("/_tasks/area?wait=5", json={"width": 1})).json()["location"]
        assert (await ada.get(hers)).status_code == 200
        for other in (bob, nobody):
            for method, path in (("GET", hers), ("DELETE", hers), ("POST", f"{hers}/retry")):
                answer = await other.request(method, path)
                assert (answer.status_code, answer.json()["reason"]) == (404, "task_not_found")
        free = (await nobody.post("/_tasks/area?wait=5", json={"width": 1})).json()["location"]
        for whoever in (ada, bob, nobody):
            assert (await whoever.get(free)).status_code == 200


@in_a_loop
async def test_who_has_the_same_name_in_another_tenant_is_somebody_else() -> None:
    async with (
        played() as scene,
        scene.client("ada of acme") as ours,
        scene.client("ada of rival") as theirs,
        scene.client("ada") as nobodys,
    ):
        keyed = {"json": {"width": 1}, "headers": {"idempotency-key": "k"}}
        found = [(await client.post("/_tasks/area?wait=5", **keyed)).json() for client in (ours, theirs, nobodys)]
        assert len({each["id"] for each in found}) == 3, "a key is one person's"
        assert (await ours.get(found[0]["location"])).status_code == 200
        for other in (theirs, nobodys):
            assert (await other.get(found[0]["location"])).status_code == 404
            assert (await other.delete(found[0]["location"])).status_code == 404
            assert found[0]["id"] not in (await other.get("/_tasks/")).text
        assert found[0]["id"] in (await ours.get("/_tasks/")).text


@in_a_loop
async def test_an_authorizer_says_who_may_do_what() -> None:
    asked: list[tuple[str, str, str]] = []
    async with played() as scene, scene.client("ada") as ada, scene.client("bob") as bob:

        @scene.tasks.authorize
        async def rule(action: str, task: Task, principal: str) -> bool:
            asked.append((action, task.kind, principal))
            if action == "start":
                return json.loads(task.payload) != {"width": 13}
            return principal == "ada" or action == "read"

        assert (await bob.post("/_tasks/area", json={"width": 13})).status_code == 403
        failed = (await bob.post("/_tasks/fail?wait=5", json={})).json()
        assert failed["state"] == "failed"
        waits = await scene.tasks.start("area", 1, delay=60)
        assert (await bob.get(waits.location)).status_code == 200
        assert (await bob.delete(waits.location)).status_code == 403
        assert (await ada.delete(waits.location)).status_code == 200
        assert (await bob.post(f"{failed['location']}/retry")).status_code == 404
        again = await ada.post(f"{failed['location']}/retry")
        assert again.status_code == 202
        assert (await scene.ended(failed["id"])).state == "failed"
        assert ("start", "fail", "bob") in asked


@in_a_loop
async def test_a_principal_lists_its_own_tasks_page_by_page() -> None:
    async with played() as scene, scene.client("ada") as ada, scene.client("bob") as bob:
        for width in range(5):
            await ada.post("/_tasks/area?wait=5", json={"width": width})
        await ada.post("/_tasks/fail?wait=5", json={})
        await bob.post("/_tasks/area", json={"width": 9})
        seen: list[str] = []
        path = "/_tasks/?limit=4"
        while path:
            page = await ada.get(path)
            seen += [each["id"] for each in page.json()["tasks"]]
            path = page.json().get("next", "")
            assert (path in page.headers.get("link", "")) if path else ("link" not in page.headers)
            assert all("result" not in each for each in page.json()["tasks"])
        assert len(seen) == len(set(seen)) == 6
        failed = (await ada.get("/_tasks/?state=failed&kind=fail")).json()["tasks"]
        assert [each["kind"] for each in failed] == ["fail"]
        assert (await ada.get("/_tasks/?state=gone")).status_code == 400
        assert (await ada.get("/_tasks/?limit=0")).status_code == 400
        assert (await ada.get("/_tasks/?kind=%00")).status_code == 400, "PostgreSQL can't be asked for it"


@in_a_loop
async def test_while_the_journal_is_away_clients_are_told_to_try_again() -> None:
    async with played() as scene, scene.client() as client:
        started = (await client.post("/_tasks/area?wait=5", json={"width": 1})).json()

        async def away(*_: Any, **__: Any) -> Any:
            raise JournalUnavailable("a secret address", 7.0)

        journal: Any = scene.tasks.journal
        with pytest.MonkeyPatch.context() as patch:
            for name in ("get", "read", "cancel", "list"):
                patch.setattr(type(journal), name, away)
            for method, accept in (("GET", "*/*"), ("GET", "text/event-stream"), ("DELETE", "*/*")):
                answer = await client.request(method, started["location"], headers={"accept": accept})
                assert answer.status_code == 503
                assert answer.headers["retry-after"] == "7"
                assert answer.json()["reason"] == "tasks_unavailable"
                assert "secret" not in answer.text
            # What is written down is acknowledged, whatever can be read of it.
            assert (await client.post("/_tasks/area?wait=5", json={"width": 1})).status_code == 202


@pytest.mark.parametrize("server", SERVERS)
@in_a_loop
async def test_a_client_that_leaves_while_it_waits_is_forgotten(server: str) -> None:
    async with played(server) as scene, scene.client() as client:
        slow = (await client.post("/_tasks/talk?wait=0.1", json={"words": ["a"]})).json()
        node = await scene.tasks.begin()
        for headers in ({"accept": "*/*"}, {"accept": "text/event-stream"}):
            reading, writing = await asyncio.open_connection(*scene.base.split(":"))
            lines = [f"GET {slow['location']}?wait=50 HTTP/1.1", "host: test", f"accept: {headers['accept']}", "", ""]
            writing.write("\r\n".join(lines).encode())
            await until(lambda: node.watchers._waiting)
            writing.close()
            await writing.wait_closed()
            await until(lambda: not node.watchers._waiting)
            del reading


@in_a_loop
async def test_who_waits_takes_no_place_of_those_who_work() -> None:
    async with played(admission=Admission(mode="adaptive")) as scene, scene.client() as client:
        slow = await scene.tasks.start("talk", ["a"])
        node = await scene.tasks.begin()
        waiting = [asyncio.ensure_future(client.get(f"{slow.location}?wait=8")) for _ in range(3)]
        await until(lambda: sum(map(len, node.watchers._waiting.values())) == 3)
        assert scene.server.site.admission.slots.running == 0
        scene.gate.set()
        assert {(await each).json()["state"] for each in waiting} == {"completed"}


@in_a_loop
async def test_no_request_whatever_is_an_error_of_ours() -> None:
    chance = random.Random(7)
    pieces = [
        "area",
        "talk",
        "x",
        "retry",
        "",
        "..",
        "%00",
        "%2f",
        "\u00e9",
        "?wait=0.001",
        "?after=2",
        "?limit=9&state=x",
    ]
    bodies = [
        b"",
        b"{}",
        b"[]",
        b'{"width":1}',
        b'{"width":1e999}',
        b'{"words":[1]}',
        b"\xff",
        b"null",
        b'{"a":' * 3000,
    ]
    names = ["accept", "content-type", "prefer", "idempotency-key", "last-event-id", "if-none-match", "x-user"]
    values = ["text/event-stream", "application/json", "wait=0", "k", "1.1", "*", '"', "\xe9", "application/x+json"]
    async with played() as scene, scene.client() as client:
        for _ in range(150):
            path = "/_tasks/" + "/".join(chance.choices(pieces, k=chance.randint(1, 2)))
            headers = [(chance.choice(names), chance.choice(values).encode("latin-1")) for _ in range(3)]
            method = chance.choice(["GET", "POST", "DELETE", "HEAD", "PUT", "OPTIONS"])
            answer = await client.request(method, path, content=chance.choice(bodies), headers=headers)
            assert answer.status_code < 500, (method, path, headers, answer.text)
