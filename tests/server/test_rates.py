"""Rate limits of the configuration: in front of any application, without a word of code."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sojourn.config import Admin, App, Config, RateRule, Rates
from sojourn.errors import ConfigError
from sojourn.guards.rates.redis import RedisRates
from sojourn.guards.registry import GUARDS
from sojourn.server.rates import ConfiguredRates
from sojourn.server.reconfigure import apply, plan
from sojourn.server.settings import describe, load
from sojourn.server.settings.portable import from_plain, to_plain
from sojourn.server.settings.rates import quotas
from tests.asgi.harness import Served, get, serving, settings, text_app
from tests.asgi.harness import settings as base

FILE = """
[rates]
headers = false

[[rate_limits]]
rate = "100/minute"
burst = 20

[[rate_limits]]
rate = "5/s"
name = "login"
path = "/login*"
methods = ["post"]
per = "all"
"""


def loaded(text: str, folder: Path) -> Any:
    file = folder / "sojourn.toml"
    file.write_text(text)
    return load(file=file, environ={}, flags={}, cwd=folder)


def limited(*rules: RateRule, **groups: Any) -> Config:
    return msgspec.structs.replace(base(), rate_limits=rules, **groups)


def test_rules_are_read_from_the_file(tmp_path: Path) -> None:
    result = loaded(FILE, tmp_path)
    assert result.config.rate_limits == (
        RateRule(rate="100/minute", burst=20),
        RateRule(rate="5/s", name="login", path="/login*", methods=("POST",), per="all"),
    )
    assert result.config.rates == Rates(headers=False)
    rows = {row.key: (row.text, row.origin.where) for row in describe(result) if row.key.startswith("rate")}
    assert rows["rate_limits[0].rate"] == ("100/minute", f"{tmp_path}/sojourn.toml:6")
    assert rows["rate_limits[1].methods"][0] == "POST"
    assert "rate_limits[0].per" not in rows  # nobody set it


WRONG = {
    "rate_limits = 3": "rate_limits: is a list of tables",
    "[[rate_limits]]": 'rate_limits[0]: has no rate: write rate = "100/minute"',
    "[[rate_limits]]\nrate = 'often'": "rate_limits[0].rate: 'often' is no rate",
    "[[rate_limits]]\nrate = 5": "rate_limits[0].rate: expected `str`, got `int`",
    "[[rate_limits]]\nrate = '0.5/s'": "rate_limits[0].rate: quota 'default' has room for 0.5",
    "[[rate_limits]]\nrate = '1/s'\nburst = 0": "rate_limits[0].rate: quota 'default' has room for 0",
    "[[rate_limits]]\nrate = '1/s'\nrat = 1": "rate_limits[0].rat: no such key; did you mean rate?",
    "[[rate_limits]]\nrate = '1/s'\npath = 'a'": "rate_limits[0].path: 'a' is not a path",
    "[[rate_limits]]\nrate = '1/s'\nmethods = 'GET'": "rate_limits[0].methods: 'GET' is not a list of methods",
    "[[rate_limits]]\nrate = '1/s'\nper = 'user'": "rate_limits[0].per: invalid enum value 'user'",
    "[[rate_limits]]\nrate = '1/s'\n[[rate_limits]]\nrate = '2/s'": "rate_limits[1]: 'default' is the name of",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_rule_that_can_not_be_used_is_named(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(text, tmp_path)
    assert str(caught.value).startswith(WRONG[text])
    assert "sojourn.toml:" in str(caught.value)


def test_rules_made_in_code_are_judged_when_they_are_used() -> None:
    with pytest.raises(ConfigError, match="is no rate"):
        quotas([RateRule(rate="often")])
    with pytest.raises(ConfigError, match="name of another"):
        quotas([RateRule(rate="1/s"), RateRule(rate="2/s")])


def test_workers_that_count_for_themselves_are_warned_of(tmp_path: Path) -> None:
    text = '[app]\nworkers = 4\n[[rate_limits]]\nrate = "1/s"\n'
    assert any("counted by each of 4 workers" in warning for warning in loaded(text, tmp_path).warnings)
    text += '[rates]\nredis = "redis://localhost"\n'
    assert loaded(text, tmp_path).warnings == ()
    assert loaded("[rates]\nheaders = false\n", tmp_path).warnings == (
        "rates.headers has no effect: there are no rate_limits",
    )


def test_rules_reach_other_processes() -> None:
    config = limited(RateRule(rate="1/s", methods=("GET",)))
    assert from_plain(msgspec.json.decode(msgspec.json.encode(to_plain(config)))).rate_limits == config.rate_limits


def statuses(served: Served, *paths: str) -> list[int]:
    wire = served.connect()
    return [wire.send(get(path)).answer().status for path in paths]


def test_any_application_is_limited_without_code() -> None:
    config = limited(RateRule(rate="2/minute", path="/api/*"))
    with serving(text_app(b"hello"), config) as served:
        assert statuses(served, "/api/a", "/api/b", "/api/c", "/") == [200, 200, 429, 200]


def test_what_was_refused_is_counted_for_the_metrics() -> None:
    with serving(text_app(b"hello"), limited(RateRule(rate="2/minute"))) as served:
        assert statuses(served, "/", "/", "/") == [200, 200, 429]
        guards = served.server.runtime.context[GUARDS]
        assert guards is not None
        (guard,) = guards
        assert (guard.kind, guard.name) == ("rate_limit", "server")
        assert guard.figures().counts == {"allowed": 2, "refused": 1}


def test_a_server_without_rules_has_nothing_in_front_of_its_application() -> None:
    app = text_app(b"hello")
    with serving(app, settings()) as served:
        assert served.server.site.app is app


def test_probes_are_never_limited() -> None:
    config = limited(RateRule(rate="1/minute"), admin=Admin(probes=True))
    with serving(text_app(b"hello"), config) as served:
        assert statuses(served, "/livez", "/", "/", "/livez", "/readyz") == [200, 200, 429, 200, 200]


def test_rules_change_while_serving_and_what_was_counted_stays() -> None:
    with serving(text_app(b"hello"), limited(RateRule(rate="2/minute"))) as served:
        assert statuses(served, "/", "/", "/") == [200, 200, 429]
        change = plan(served.server.config, {"rate_limits": [{"rate": "3/minute"}]})
        assert (change.live, change.refused) == (("rate_limits",), ())
        served.call(lambda: apply(served.server, change.config))
        assert statuses(served, "/", "/") == [200, 429]
        none = plan(served.server.config, {"rate_limits": []})
        served.call(lambda: apply(served.server, none.config))
        assert statuses(served, "/", "/") == [200, 200]


def test_the_first_rule_needs_a_restart_and_a_wrong_one_is_refused() -> None:
    (refused,) = plan(Config(), {"rate_limits": [{"rate": "1/s"}]}).refused
    assert (refused.key, refused.reason) == ("rate_limits", "needs_restart")
    (refused,) = plan(limited(RateRule(rate="1/s")), {"rate_limits": [{"rate": "often"}]}).refused
    assert (refused.key, refused.reason) == ("rate_limits[0].rate", "bad_setting")


def test_redis_is_asked_when_it_is_named_and_left_when_the_server_stops() -> None:
    closed = []
    config = limited(RateRule(rate="1/s"), rates=Rates(redis="redis://127.0.0.1:1/0", on_failure="closed"))
    with serving(text_app(b"hello"), config) as served:
        assert statuses(served, "/") == [503]
        front = served.server.site.app
        assert isinstance(front, ConfiguredRates)
        engine = front.engine
        assert isinstance(engine, RedisRates)
        close = engine._client.aclose

        async def closing() -> None:
            closed.append(True)
            await close()

        engine._client.aclose = closing  # type: ignore[method-assign]
    assert closed == [True]


def test_a_redis_that_is_none_stops_the_start() -> None:
    from sojourn.server.server import Server

    config = limited(RateRule(rate="1/s"), rates=Rates(redis="http://localhost"), app=App(lifespan="off"))
    with pytest.raises(ConfigError, match="no URL of a Redis"):
        asyncio.run(Server(text_app(b"hello"), config).start())
