"""The router as an application: methods, slashes, mounts, what is refused, and what the scope says afterwards."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route as StarletteRoute

from sojourn.errors import RouteError
from sojourn.routing.router import Router
from tests.routing.calls import ask, talk


async def show(request: Any) -> Any:
    return {"params": request.path_params, "root": request.scope["root_path"], "path": request.path}


async def other(request: Any) -> str:
    return "other"


async def raw(scope: Any, receive: Any, send: Any) -> None:
    body = f"{scope['method']} {scope['root_path']} {scope['path']} {scope['path_params']}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def router_of(*patterns: str, **options: Any) -> Router:
    router = Router(**options)
    for pattern in patterns:
        router.add(pattern, show, name=f"at {pattern}".replace(":", "="))
    return router


# -- methods


def test_each_method_has_its_handler() -> None:
    router = Router()
    for define in (router.get, router.post, router.put, router.patch, router.delete):

        @define("/x", name="x")
        async def handler(request: Any) -> str:
            return f"{request.method} it is"

    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        assert ask(router, method, "/x").body == f"{method} it is".encode()


def test_head_is_answered_by_get_without_a_body() -> None:
    answer = ask(router_of("/x"), "HEAD", "/x")
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["content-length"]) > 10


def test_options_and_another_method_say_what_is_allowed() -> None:
    router = router_of("/users/{id:int}")
    router.add("/users/{name}", other, methods=["delete"])
    for path, allow in (("/users/7", "DELETE, GET, HEAD, OPTIONS"), ("/users/bob", "DELETE, OPTIONS")):
        answer = ask(router, "OPTIONS", path)
        assert (answer.status, answer.headers["allow"]) == (204, allow)
        answer = ask(router, "PUT", path)
        assert (answer.status, answer.headers["allow"]) == (405, allow)
        assert answer.headers["content-type"] == "application/problem+json"
    answer = ask(router, "OPTIONS", "*")
    assert (answer.status, answer.headers["allow"]) == (204, "DELETE, GET, HEAD, OPTIONS")


def test_options_of_ones_own_counts() -> None:
    router = router_of("/x")
    router.add("/x", other, methods=["OPTIONS"])
    assert ask(router, "OPTIONS", "/x").body == b"other"


def test_an_asgi_endpoint_takes_the_methods_nobody_else_has() -> None:
    router = Router()
    router.asgi("/x/{y}", raw)
    router.add("/x/{z}", other, methods=["POST"])
    assert ask(router, "PURGE", "/x/1").body == b"PURGE  /x/1 {'y': '1'}"
    assert ask(router, "POST", "/x/1").body == b"other"


# -- slashes


@pytest.mark.parametrize(("slashes", "status"), [("redirect", 307), ("permanent", 308)])
def test_a_slash_too_many_or_too_few_redirects(slashes: Any, status: int) -> None:
    router = router_of("/a/{x}", "/b/", "/c/{rest:path}", slashes=slashes)
    for path, location in (("/a/1/", "/a/1"), ("/b", "/b/"), ("/c", "/c/"), ("/a/ä b?/", "/a/%C3%A4%20b%3F")):
        answer = ask(router, "POST", path)
        assert (answer.status, answer.headers["location"], answer.body) == (status, location, b"")
    assert ask(router, "GET", "/b", query_string=b"q=1&r=a%20b").headers["location"] == "/b/?q=1&r=a%20b"
    assert ask(router, "GET", "/a/1//").status == 404
    assert ask(router, "GET", "/nowhere/").status == 404


def test_a_redirect_leads_to_no_other_host() -> None:
    router = router_of("/x")
    router.mount("/{host}", router_of("/evil.example"))
    for path in ("//evil.example/", "//evil.example", "/\\evil.example/"):
        assert not ask(router, "GET", path).headers.get("location", "/").startswith(("//", "/\\"))


def test_slashes_can_make_no_difference() -> None:
    router = router_of("/a/{x}", "/b/", slashes="ignore")
    assert ask(router, "GET", "/a/1/").json["params"] == {"x": "1"}
    assert ask(router, "GET", "/b").status == 200
    assert ask(router, "PUT", "/b").headers["allow"] == "GET, HEAD, OPTIONS"
    with pytest.raises(RouteError, match="two routes answer the same"):
        router.add("/b", other)


def test_slashes_can_be_strict() -> None:
    router = router_of("/a/{x}", "/b/", slashes="strict")
    assert ask(router, "GET", "/a/1/").status == 404
    assert ask(router, "GET", "/b").status == 404
    router.add("/b", other)
    assert ask(router, "GET", "/b").body == b"other"


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(RouteError, match="slashes is one of redirect, permanent, ignore, strict, not 'append'"):
        Router(slashes="append")  # type: ignore[arg-type]


# -- encoded paths


def test_the_decoded_path_decides_and_an_encoded_slash_is_one() -> None:
    router = router_of("/a/{x}", "/a/{x}/{y}")
    assert ask(router, "GET", "/a/ä%b", raw_path=b"/a/%C3%A4%25b").json["params"] == {"x": "ä%b"}
    assert ask(router, "GET", "/a/1/2", raw_path=b"/a/1%2F2").json["params"] == {"x": "1", "y": "2"}
    assert ask(router, "GET", "/a/1\n").json["params"] == {"x": "1\n"}


# -- definition


@pytest.mark.parametrize(
    ("first", "second"),
    [("/a", "/a"), ("/{x}", "/{y}"), ("/{x:int}/b", "/{y:int}/b"), ("/f/{p:path}", "/f/{q:path}")],
)
def test_two_routes_for_the_same_are_refused_with_both_named(first: str, second: str) -> None:
    router = Router()
    router.add(first, show)
    with pytest.raises(RouteError) as failed:
        router.add(second, other, methods=["POST", "GET"])
    assert f"<GET {first} named 'show'" in str(failed.value)
    assert f"<GET POST {second} named 'other'" in str(failed.value)
    assert "test_router.py:" in str(failed.value)
    router.add(second, other, methods=["POST"])
    assert len(router.routes) == 2


def test_a_mount_shares_its_place_with_nobody() -> None:
    router = Router()
    router.mount("/f", raw)
    with pytest.raises(RouteError, match="two routes answer the same"):
        router.add("/f/{p:path}", show)
    router = router_of("/f/{p:path}")
    with pytest.raises(RouteError, match="two routes answer the same"):
        router.mount("/f/", raw)


def test_a_handler_that_is_no_async_function_is_refused() -> None:
    def blocking(request: Any) -> str:
        return ""

    with pytest.raises(RouteError, match=r"async def handler\(request\).*blocking.*test_router\.py"):
        Router().add("/x", blocking)  # type: ignore[arg-type]
    with pytest.raises(RouteError, match=r"async def handler\(socket\)"):
        Router().websocket("/x")(blocking)


def test_methods_and_bound_handlers_can_be_handlers() -> None:
    class Users:
        async def get(self, request: Any) -> str:
            return "a method"

        async def __call__(self, request: Any) -> str:
            return "a call"

    router = Router()
    router.add("/method", Users().get)
    router.add("/call", Users())
    assert ask(router, "GET", "/method").body == b"a method"
    assert ask(router, "GET", "/call").body == b"a call"


@pytest.mark.parametrize("methods", [[], ["GE T"], "GET", [""]])
def test_methods_are_tokens(methods: Any) -> None:
    with pytest.raises(RouteError, match="methods"):
        Router().add("/x", show, methods=methods)


def test_routes_defined_after_the_first_request_count() -> None:
    router = router_of("/a")
    assert ask(router, "GET", "/b").status == 404
    router.add("/b", other)
    assert ask(router, "GET", "/b").body == b"other"


def test_a_type_of_ones_own_is_a_parameter() -> None:
    class Even:
        rank = 5

        def parse(self, text: str) -> int:
            if not text.isdigit() or int(text) % 2:
                raise ValueError(text)
            return int(text)

        def format(self, value: Any) -> str:
            return str(value)

    router = Router(converters={"even": Even()})
    router.add("/{n:even}", show)
    router.add("/{n:int}", other)
    assert ask(router, "GET", "/2").json["params"] == {"n": 2}
    assert ask(router, "GET", "/3").body == b"other"
    assert router.url_for("show", n=4) == "/4"


# -- including


def test_routes_of_an_included_router_get_its_prefix_and_name() -> None:
    users = Router()
    users.add("/", show, name="list")
    users.add("/{id:int}", show, name="one")
    users.mount("/files", raw, name="files")
    router = router_of("/x")
    router.include(users, "/users", name="users")
    assert ask(router, "GET", "/users/7").json["params"] == {"id": 7}
    assert ask(router, "GET", "/users/files/a/b").body == b"GET /users/files /users/files/a/b {}"
    assert router.url_for("users:one", id=3) == "/users/3"
    assert router.url_for("users:files", path="a b") == "/users/files/a%20b"
    with pytest.raises(RouteError, match="part of another one: define <GET /late"):
        users.add("/late", show, name="late")
    with pytest.raises(RouteError, match="part of one other router"):
        Router().include(users)


def test_an_include_that_does_not_go_together_changes_nothing() -> None:
    users = router_of("/a", "/b")
    router = Router()
    router.add("/u/b", other)
    with pytest.raises(RouteError, match=r"two routes answer the same: .*/u/b.* and .*/u/b"):
        router.include(users, "/u")
    assert len(router.routes) == 1
    users.add("/c", other)  # it is still open
    with pytest.raises(RouteError, match="itself"):
        router.include(router)
    with pytest.raises(RouteError, match="has x more than once"):
        router.include(router_of("/{x}"), "/{x}")
    with pytest.raises(RouteError, match="can be mounted, not included"):
        router.include(Router(not_found=raw))


def test_types_of_included_routers_go_together_when_they_are_the_same() -> None:
    class Kind:
        rank = 5

        def parse(self, text: str) -> str:
            return text.upper()

        def format(self, value: Any) -> str:
            return str(value)

    one, two = Kind(), Kind()
    outer, inner = Router(), Router(converters={"k": one})
    inner.add("/{x:k}", show)
    outer.include(inner, "/in")
    assert ask(outer, "GET", "/in/a").json["params"] == {"x": "A"}
    with pytest.raises(RouteError, match="both routers have a type called 'k'"):
        outer.include(Router(converters={"k": two}))


# -- mounts


def test_a_mount_gets_the_whole_path_and_a_longer_root_path() -> None:
    router = Router()
    router.mount("/static", raw)
    assert ask(router, "PURGE", "/static/a/b").body == b"PURGE /static /static/a/b {}"
    assert ask(router, "GET", "/static/").body == b"GET /static /static/ {}"
    assert ask(router, "GET", "/static").headers["location"] == "/static/"
    assert ask(router, "GET", "/staticx").status == 404
    assert ask(router, "GET", "/p/static/a", root_path="/p").body == b"GET /p/static /p/static/a {}"


def test_routers_in_routers_see_their_part_of_the_path() -> None:
    tenant = router_of("/users/{id:int}")
    router = Router()
    router.mount("/tenants/{tenant}", tenant, name="tenant")
    answer = ask(router, "GET", "/tenants/t1/users/7")
    assert answer.json == {
        "params": {"tenant": "t1", "id": 7},
        "root": "/tenants/t1",
        "path": "/tenants/t1/users/7",
    }
    assert answer.scope["route"].path_format == "/tenants/{tenant}/users/{id}"
    assert ask(router, "GET", "/tenants/t1/users/7/").headers["location"] == "/tenants/t1/users/7"


def test_starlette_below_a_router_works_as_ever() -> None:
    async def page(request: Any) -> PlainTextResponse:
        return PlainTextResponse(f"{request.url_for('page', x='z')} {request.path_params}")

    router = router_of("/x")
    router.mount("/app/{y}", Starlette(routes=[StarletteRoute("/page/{x}", page, name="page")]), name="app")
    answer = ask(router, "GET", "/app/1/page/2")
    assert answer.body == b"http://a.example/app/1/page/z {'y': '1', 'x': '2'}"
    assert router.url_for("app:page", y=1, x="ä") == "/app/1/page/%C3%A4"
    with pytest.raises(RouteError, match="has no path for 'nothing'"):
        router.url_for("app:nothing", y=1)
    assert ask(router, "GET", "/app/1").headers["location"] == "/app/1/"


def test_a_router_below_starlette_works_as_ever() -> None:
    inner = Router()

    @inner.get("/users/{id:int}", name="user")
    async def user(request: Any) -> str:
        return str(request.url_for("user", id=8))

    app = Starlette()
    app.mount("/in", inner)
    assert ask(app, "GET", "/in/users/7").body == b"/in/users/8"


# -- names


def test_a_path_is_made_of_a_name_and_values() -> None:
    router = router_of("/users/{id:int}/files/{rest:path}")
    assert router.url_for("at /users/{id=int}/files/{rest=path}", id=7, rest="a b/ü?#%") == (
        "/users/7/files/a%20b/%C3%BC%3F%23%25"
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [("nothing", "no route has the name 'nothing'"), ("show", "give them names, for 'show' could be")],
)
def test_a_name_that_is_none_or_several_is_refused(name: str, message: str) -> None:
    router = Router()
    router.add("/a", show)
    router.add("/b", show)
    with pytest.raises(RouteError, match=message):
        router.url_for(name)


def test_a_name_is_given_once_and_goes_before_names_of_functions() -> None:
    router = Router()
    router.add("/a", show)
    router.add("/b", other, name="show")
    router.add("/b", other, name="show", methods=["POST"])
    assert router.url_for("show") == "/b"
    with pytest.raises(RouteError, match="two routes have the name 'show'"):
        router.add("/c", other, name="show")
    with pytest.raises(RouteError, match="no colon"):
        router.add("/c", other, name="a:b")


@given(
    st.lists(st.sampled_from(["a", "b-c", "{%s}", "{%s:int}", "{%s:uuid}", "x{%s:int}.y"]), min_size=1, max_size=5).map(
        lambda parts: "".join("/" + part.replace("%s", f"p{at}") for at, part in enumerate(parts))
    ),
    st.data(),
)
def test_the_path_of_a_match_is_the_path_that_matched(pattern: str, data: Any) -> None:
    router = router_of(pattern)
    kinds = {"int": st.integers(0, 10**20), "uuid": st.uuids(), "str": st.sampled_from(["a b", "ä", "+", "x=1", "%2F"])}
    segments = router.routes[0].pattern.segments
    values = {part.name: data.draw(kinds[part.kind]) for part in segments if not isinstance(part, str)}
    name = router.routes[0].name
    path = router.url_for(name, **values)
    found = router.find("GET", unquote(path))
    assert found is not None
    assert found.params == values
    assert router.url_for(name, **found.params) == path


# -- what is not found


def test_what_matches_nothing_is_a_problem_document_or_ones_own_answer() -> None:
    assert ask(router_of("/x"), "GET", "/y").json["status"] == 404
    own = router_of("/x", not_found=Starlette())
    assert ask(own, "GET", "/y").headers["content-type"] == "text/plain; charset=utf-8"
    assert ask(own, "PUT", "/x").status == 405


def test_a_scope_of_another_kind_is_refused() -> None:
    with pytest.raises(NotImplementedError, match="telepathy"):
        ask(router_of("/x"), "GET", "/x", type="telepathy")


# -- the scope


def test_the_scope_says_which_route_it_was() -> None:
    scope = ask(router_of("/users/{id:int}"), "GET", "/users/7").scope
    assert scope["route"].path == "/users/{id:int}"
    assert scope["route"].path_format == "/users/{id}"
    assert scope["endpoint"] is show
    assert scope["path_params"] == {"id": 7}


# -- WebSockets


def test_a_websocket_has_routes_of_its_own() -> None:
    router = router_of("/ws/{room}")

    @router.websocket("/ws/{room}")
    async def echo(socket: Any) -> None:
        await socket.accept()
        async for message in socket:
            await socket.send(f"{socket.path_params['room']}: {message}")

    sent = talk(router, "/ws/blue", "one", "two")
    assert [message.get("text") for message in sent[1:3]] == ["blue: one", "blue: two"]
    assert ask(router, "GET", "/ws/blue").json["params"] == {"room": "blue"}
    assert ask(router, "PUT", "/ws/blue").headers["allow"] == "GET, HEAD, OPTIONS"


def test_a_websocket_without_a_route_is_denied() -> None:
    router = router_of("/x")
    assert talk(router, "/x") == [{"type": "websocket.close", "code": 1000, "reason": ""}]
    sent = talk(router, "/x", extensions={"websocket.http.response": {}})
    assert [message.get("status") for message in sent] == [404, None]


def test_a_websocket_goes_through_mounts() -> None:
    inner, router = Router(), Router()

    @inner.websocket("/ws")
    async def close(socket: Any) -> None:
        await socket.close(4000, socket.scope["root_path"])

    router.mount("/in", inner)
    assert talk(router, "/in/ws") == [{"type": "websocket.close", "code": 4000, "reason": "/in"}]
