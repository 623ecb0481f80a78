"""Whom a quota counts, and what for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sojourn.guards.rates.quota import Quota
from sojourn.policy.rate import Rate


def scope(client: str | None = "192.0.2.1", path: str = "/", **more: Any) -> dict[str, Any]:
    return {
        "type": "http",
        "method": "GET",
        "path": path,
        "client": None if client is None else (client, 1),
        **more,
    }


def key(quota: Quota, **more: Any) -> str | None:
    demand = quota.demand(scope(**more))
    return None if demand is None else demand.key


def test_a_rate_gives_a_burst_of_its_own_number() -> None:
    assert Quota("100/minute").demand(scope()) == ("default|192.0.2.1", 100 / 60, 100.0, 1.0)
    assert Quota("100/minute", burst=10, cost=2.5).demand(scope(), 2) == ("default|192.0.2.1", 100 / 60, 10.0, 5.0)
    assert Quota(Rate(3, 2)).demand(scope()) == ("default|192.0.2.1", 1.5, 3.0, 1.0)


CLIENTS = {
    "192.0.2.1": "192.0.2.1",
    "2001:db8:1:2::1": "20010db800010002",
    "2001:db8:1:2:ffff::9%eth0": "20010db800010002",
    "::ffff:192.0.2.1": "192.0.2.1",
}


@pytest.mark.parametrize("client", CLIENTS)
def test_clients_are_counted_by_address_and_by_network(client: str) -> None:
    quota = Quota("1/s")
    for _ in range(2):  # worked out, then remembered
        found = key(quota, client=client)
        assert found is not None
        assert found.removeprefix("default|").zfill(9) == CLIENTS[client].lstrip("0").zfill(9)


def test_the_peer_of_a_unix_socket_has_no_address_and_no_limit() -> None:
    assert key(Quota("1/s"), client=None) is None
    assert key(Quota("1/s", per="all"), client=None) == "default|"


def test_a_user_is_found_in_the_scope_or_by_a_function() -> None:
    user = Quota("1/s", per="user")
    assert key(user, user="alice") == "default|u:alice"
    assert key(user, user=7) == "default|u:7"
    assert key(user, user=SimpleNamespace(is_authenticated=True, username="alice")) == "default|u:alice"
    assert key(user, user=SimpleNamespace(pk=12, username="alice")) == "default|u:12"
    by_tenant = Quota("1/s", per=lambda scope: scope["state"].get("tenant"))
    assert key(by_tenant, state={"tenant": "acme"}) == "default|u:acme"
    assert key(by_tenant, state={"tenant": 12}) == "default|u:12"


@pytest.mark.parametrize("user", [None, SimpleNamespace(is_authenticated=False, username="")])
def test_who_is_nobody_is_counted_by_address(user: Any) -> None:
    assert key(Quota("1/s", per="user"), user=user) == "default|192.0.2.1"
    assert key(Quota("1/s", per="user")) == "default|192.0.2.1"


def test_a_user_without_a_name_is_the_programmers_mistake() -> None:
    with pytest.raises(TypeError, match="give a function"):
        key(Quota("1/s", per="user"), user=object())


def test_several_parts_count_each_combination() -> None:
    quota = Quota("1/s", per=("user", "method", "route"))
    route = SimpleNamespace(path_format="/items/{id}", path="/items/{id}")
    assert key(quota, user="a|b%", route=route) == "default|u:a%7Cb%25|m:GET|r:/items/{id}"
    # What no router knows is one route: a client could make up any number of paths.
    assert key(quota, user="a", path="/x") == key(quota, user="a", path="/y") == "default|u:a|m:GET|r:"


def test_a_long_name_is_a_short_key() -> None:
    keys = {key(Quota("1/s", per="token"), token="x" * 8000 + end) for end in "ab"}
    assert len(keys) == 2
    assert all(each is not None and len(each) < 60 for each in keys)


PATHS = [
    (None, "/a", True),
    ("/a", "/a", True),
    ("/a", "/ab", False),
    ("/a/*", "/a/b", True),
    ("/a/*", "/a", False),
    ("/*", "/", True),
]


@pytest.mark.parametrize(("path", "asked", "counted"), PATHS)
def test_a_quota_is_for_its_path(path: str | None, asked: str, counted: bool) -> None:
    assert (key(Quota("1/s", path=path), path=asked) is not None) is counted


def test_a_quota_is_for_its_methods_and_a_websocket_is_a_get() -> None:
    quota = Quota("1/s", methods=("post", "GET"))
    assert key(quota, method="POST") is not None
    assert key(quota, method="PUT") is None
    websocket = scope()
    del websocket["method"]
    assert quota.demand(websocket) is not None


def test_a_cost_may_depend_on_the_request() -> None:
    quota = Quota("100/s", cost=lambda scope: 10.0 if scope["path"] == "/export" else 1.0)
    assert [quota.demand(scope(path=path)).cost for path in ("/export", "/")] == [10.0, 1.0]  # type: ignore[union-attr]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"rate": "many"}, "is no rate"),
    ({"rate": "1/s", "burst": 0.5}, "one request at least"),
    ({"rate": "1/s", "cost": 2.0}, "one request at least"),
    ({"rate": "0.5/s"}, "one request at least"),
    ({"rate": "1/s", "cost": -1.0}, "no cost"),
    ({"rate": "1/s", "name": ""}, "no name"),
    ({"rate": "1/s", "name": 'a"b'}, "no name"),
    ({"rate": "1/s", "name": "a|b"}, "no name"),
    ({"rate": "1/s", "name": "é"}, "no name"),
    ({"rate": "1/s", "name": "a\r\nb"}, "no name"),
]


@pytest.mark.parametrize(("settings", "problem"), WRONG)
def test_a_quota_that_can_not_work_is_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Quota(**settings)
