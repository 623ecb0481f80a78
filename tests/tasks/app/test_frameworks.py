"""The same in FastAPI, Starlette, Sojourn's own router, and served alone; and what uncaught errors become."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.routing import Mount, Route

from sojourn.errors import JournalUnavailable, TaskConflict, TaskNotFound
from sojourn.routing.router import Router
from sojourn.scopes.deadline import deadline
from sojourn.tasks.app import TasksApp
from sojourn.tasks.started import Accepted
from sojourn.tasks.tasks import Tasks
from tests.hub.stand_ins import in_a_loop, until
from tests.tasks.app.scene import played


def fastapi(tasks: Tasks) -> Any:
    app = FastAPI()

    @app.post("/areas")
    async def areas(width: int) -> JSONResponse:
        return (await tasks.start("area", width)).response(JSONResponse)

    app.mount("/_tasks", tasks.app())
    return app


def starlette(tasks: Tasks) -> Any:
    async def areas(request: StarletteRequest) -> Accepted:
        return (await tasks.start("area", int(request.query_params["width"]))).response()

    routes = [Route("/areas", areas, methods=["POST"]), Mount("/_tasks", tasks.app())]
    return Starlette(routes=routes)


def own(tasks: Tasks) -> Any:
    router = Router()

    @router.post("/areas")
    async def areas(request: Any) -> Any:
        return (await tasks.start("area", int(request.query["width"]))).response()

    router.mount("/_tasks", tasks.app())
    return router


def by_hand(tasks: Tasks) -> Any:
    inner = tasks.app()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == "/areas":
            started = await tasks.start("area", int(scope["query_string"].partition(b"=")[2]))
            await started.response()(scope, receive, send)
        else:  # as a framework routes that knows no root_path
            await inner(scope, receive, send)

    return app


@pytest.mark.parametrize(
    ("server", "build"),
    [("sojourn", fastapi), ("uvicorn", fastapi), ("sojourn", starlette), ("sojourn", own), ("uvicorn", by_hand)],
)
@in_a_loop
async def test_a_handler_answers_with_what_it_has_started(server: str, build: Any) -> None:
    async with played(server, build) as scene, scene.client() as client:
        answer = await client.post("/areas?width=4")
        assert answer.status_code == 202
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["retry-after"] == "1"
        location = answer.headers["location"]
        assert location == answer.json()["location"] == f"/_tasks/{answer.json()['id']}"
        assert (await client.get(f"{location}?wait=5")).json()["result"] == 8


@in_a_loop
async def test_locations_are_below_where_it_is_mounted() -> None:
    async with played() as scene, scene.client() as client:
        answer = await client.post("/inner/tasks/area", json={"width": 1})
        assert answer.headers["location"] == f"/inner/tasks/{answer.json()['id']}"
        found = await client.get(f"{answer.headers['location']}?wait=5")
        assert found.json()["location"] == answer.headers["location"]


@in_a_loop
async def test_locations_are_those_of_the_client_behind_a_proxy_that_takes_a_prefix_away() -> None:
    def behind(tasks: Tasks) -> Any:
        app = Starlette(routes=[Mount("/_tasks", tasks.app()), Mount("/jobs", tasks.app())])
        return lambda scope, receive, send: app({**scope, "root_path": "/shop"}, receive, send)

    async with played(build=behind) as scene, scene.client() as client:
        for taken in ("", "/shop"):
            for path in ("/_tasks", "/jobs"):
                answer = await client.post(f"{taken}{path}/area?wait=5", json={"width": 1})
                assert answer.headers["location"] == f"/shop{path}/{answer.json()['id']}"
                found = await client.get(f"{taken}{answer.headers['location'].removeprefix('/shop')}")
                assert found.json()["result"] == 2


@pytest.mark.parametrize("path", ["", "/_tasks"])
@in_a_loop
async def test_served_alone_it_begins_and_ends_the_service(path: str) -> None:
    async with played(build=lambda tasks: tasks.app()) as scene, scene.client() as client:
        answer = await client.post(f"{path}/area?wait=5", json={"width": 1})
        assert answer.json()["result"] == 2
        assert answer.headers["location"] == f"{path}/{answer.json()['id']}"
        assert (await client.get(answer.headers["location"])).status_code == 200


@in_a_loop
async def test_its_lifespan_is_that_of_the_service() -> None:
    told: list[str] = []

    class Service:
        async def begin(self) -> None:
            told.append("begin")

        async def aclose(self) -> None:
            told.append("end")

    messages = iter(({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}))

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        told.append(message["type"])

    await TasksApp(Service())({"type": "lifespan"}, receive, send)  # type: ignore[arg-type]
    assert told == ["begin", "lifespan.startup.complete", "end", "lifespan.shutdown.complete"]


@in_a_loop
async def test_a_long_poll_is_answered_before_the_deadline_of_its_request() -> None:
    def build(tasks: Tasks) -> Any:
        inner = tasks.app()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            async with deadline(0.5, "short"):
                await inner(scope, receive, send)

        return app

    async with played(build=build) as scene, scene.client() as client:
        answer = await client.post("/talk?wait=5", json={"words": []})
        assert answer.status_code == 202


ERRORS = {
    "/away": (JournalUnavailable("the disk is full", 9.0), 503, "tasks_unavailable"),
    "/used": (TaskConflict("k", "t"), 409, "task_conflict"),
    "/gone": (TaskNotFound("t"), 404, "task_not_found"),
}


@pytest.mark.parametrize("framework", [FastAPI, Starlette])
@in_a_loop
async def test_what_a_handler_does_not_catch_has_a_status_of_its_own(framework: Any) -> None:
    def build(_: Tasks) -> Any:
        async def handler(request: StarletteRequest) -> Any:
            raise ERRORS[request.url.path][0]

        return framework(routes=[Route(path, handler) for path in ERRORS])

    async with played(build=build) as scene, scene.client() as client:
        for path, (_, status, reason) in ERRORS.items():
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["reason"]) == (status, reason)
            assert answer.headers.get("retry-after") == ("9" if status == 503 else None)


@in_a_loop
async def test_a_request_that_is_cancelled_anywhere_leaves_nothing() -> None:
    async with played() as scene:
        app = scene.tasks.app()
        node = await scene.tasks.begin()
        transport = httpx.ASGITransport(app)
        started = await scene.tasks.start("talk", ["a"])
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            for turns in range(0, 60, 4):
                requests = [
                    client.get(f"/{started.id}?wait=5"),
                    client.post("/area?wait=5", json={"width": 1}),
                    client.get(f"/{started.id}", headers={"accept": "text/event-stream"}),
                ]
                running = [asyncio.ensure_future(each) for each in requests]
                for _ in range(turns):
                    await asyncio.sleep(0)
                for each in running:
                    each.cancel()
                await asyncio.gather(*running, return_exceptions=True)
        await until(lambda: not node.watchers._waiting)
