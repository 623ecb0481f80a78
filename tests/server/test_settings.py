"""Settings: what the layers promise, key by key and problem by problem."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.config import Bind, Config, Route
from sojourn.errors import ConfigError
from sojourn.server.settings import Given, Loaded, Problems, describe, keys, load, waits_without_deadline
from sojourn.server.settings.routes import overridable
from sojourn.server.settings.values import display, read

NOWHERE = Path("/nonexistent")
ASGI = Path(__file__).resolve().parents[2] / "src" / "sojourn" / "asgi"


def loaded(
    text: str | None = None,
    *,
    folder: Path = NOWHERE,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
) -> Loaded:
    """Load with ``text`` as sojourn.toml of ``folder``."""
    if text is not None:
        (folder / "sojourn.toml").write_text(text)
    return load(file=None, environ=environ or {}, flags=flags or {}, cwd=folder)


def value(result: Loaded, path: str) -> object:
    group, _, name = path.partition(".")
    return getattr(getattr(result.config, group), name)


def problem(text: str | None = None, **more: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(text, **more)
    assert caught.value.exit_code == 2
    return str(caught.value)


# --- the table of keys


def test_every_field_of_every_group_is_a_key_with_a_text() -> None:
    groups = [field for field in msgspec.structs.fields(Config) if field.name not in ("routes", "rate_limits")]
    fields = [f"{group.name}.{field.name}" for group in groups for field in msgspec.structs.fields(group.type)]
    assert list(keys()) == fields
    assert [path for path, key in keys().items() if not key.doc.endswith(".")] == []
    assert {key.unit for key in keys().values()} == {"", "s", "B", "B/s"}


def test_without_any_setting_the_defaults_are_the_configuration() -> None:
    result = loaded()
    assert result.config == Config()
    assert {origin.layer for origin in result.origins.values()} == {"default"}
    assert result.warnings == ()
    assert result.files == ()


def test_every_default_is_a_value_its_own_key_accepts() -> None:
    for key in keys().values():
        assert read(key, key.default) == key.default


# --- layers


def test_a_later_layer_wins_and_each_key_knows_its_origin(tmp_path: Path) -> None:
    text = "[timeouts]\nheader = 1\nbody_idle = 1\nkeep_alive = 1\n"
    environ = {"SOJOURN_TIMEOUTS_BODY_IDLE": "2", "SOJOURN_TIMEOUTS_KEEP_ALIVE": "2"}
    flags = {"timeouts.keep_alive": Given("--keep-alive-timeout", "3")}
    result = loaded(text, folder=tmp_path, environ=environ, flags=flags)
    names = ("tls", "header", "body_idle", "keep_alive")
    assert [value(result, f"timeouts.{name}") for name in names] == [10.0, 1.0, 2.0, 3.0]
    origins = [(result.origins[f"timeouts.{name}"].layer, str(result.origins[f"timeouts.{name}"])) for name in names]
    assert origins == [
        ("default", "default"),
        ("file", "sojourn.toml:2"),
        ("environment", "SOJOURN_TIMEOUTS_BODY_IDLE"),
        ("flag", "--keep-alive-timeout"),
    ]
    assert result.files == (tmp_path / "sojourn.toml",)


@pytest.mark.parametrize("path", list(keys()))
def test_every_key_can_be_set_in_the_environment(path: str) -> None:
    key = keys()[path]
    needs = {"tls.key": "tls.cert", "tls.key_password": "tls.cert", "tls.ca": "tls.cert"}
    samples = {
        "bind.uds_mode": "600",
        "websocket.origins": "https://a.example",
        "proxy.trusted": "10.0.0.0/8",
        "admin.bind": "unix:/run/a.sock",
        "registration.webhook": "https://a.example",
        "deadlines.reject_share": "0.5",
        "deadlines.budgets": "cache=50ms",
        "flag": "no" if key.default is True else "yes",
        "whole": "17",
        "number": "17",
        "choice": next((choice for choice in key.choices if choice != key.default), ""),
        "list": "a, b",
        "text": "some",
    }
    environ = {key.environment: samples.get(path, samples[key.kind])}
    if key.name == "client_cert":
        environ |= {"SOJOURN_TLS_CERT": "c", "SOJOURN_TLS_CA": "a"}
    if path == "registration.token":
        environ["SOJOURN_REGISTRATION_WEBHOOK"] = "https://a.example"
    if path in needs:
        environ[keys()[needs[path]].environment] = "c"
    result = loaded(environ=environ)
    assert value(result, path) != key.default
    assert str(result.origins[path]) == key.environment


def test_the_table_of_a_project_is_read_and_its_lines_are_those_of_the_file(tmp_path: Path) -> None:
    text = '[project]\nname = "x"\n\n[tool.other]\nheader = 3\n\n[tool.sojourn.timeouts]\nheader = 5\n'
    (tmp_path / "pyproject.toml").write_text(text)
    result = loaded(folder=tmp_path)
    assert value(result, "timeouts.header") == 5.0
    assert str(result.origins["timeouts.header"]) == "pyproject.toml:8"


def test_a_project_without_our_table_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\ndependencies = ["sojourn"]\n')
    assert loaded(folder=tmp_path) == loaded()


def test_of_two_files_our_own_wins_and_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.sojourn.timeouts]\nheader = 1\n")
    result = loaded("[timeouts]\nbody = 9\n", folder=tmp_path)
    assert value(result, "timeouts.header") == 10.0
    assert result.warnings == ("[tool.sojourn] in pyproject.toml is not read because sojourn.toml is there too",)


def test_the_named_file_is_the_only_one_read(tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text("[timeouts]\nbody = 9\n")
    (tmp_path / "sojourn.toml").write_text("[timeouts]\nheader = 1\n")
    result = load(file=Path("other.toml"), environ={}, flags={}, cwd=tmp_path)
    assert (value(result, "timeouts.header"), value(result, "timeouts.body")) == (10.0, 9.0)
    assert str(result.origins["timeouts.body"]) == "other.toml:2"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.toml", None, "the configuration file can't be read: No such file or directory (from gone.toml)"),
        ("latin.toml", b"# \xff", "the configuration file can't be read: it is not UTF-8 (from latin.toml)"),
        ("pyproject.toml", b"[project]\n", "there is no [tool.sojourn] in it (from pyproject.toml)"),
        ("pyproject.toml", b"[tool]\nsojourn = 3\n", "tool.sojourn: is a table: write [tool.sojourn]"),
        ("bad.toml", b"[timeouts]\nheader = = 3\n", "not TOML: Invalid value (at line 2, column 10) (from bad.toml:2)"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(file=Path(name), environ={}, flags={}, cwd=tmp_path)
    assert str(caught.value).startswith(message)


TRICKY = '''\
# [timeouts]
title_is_not_ours = 1 # line 2

[app]
target = """
[limits]
body = 1
"""
reload_dirs = [  # line 9
  "a",
  "[bind]",
]
[timeouts]

header = 1  # line 15
bind.x = 1
[ limits ]   # a comment
"body" = 2  # line 18
[[routes]]
path = "/a"  # line 20
timeouts.body = 3
[routes.limits]
body = 4  # line 23
[[routes]]
path = "/b"  # line 25
limits = { body = 5, queue = 6 }
'''


def test_each_key_is_found_in_its_line(tmp_path: Path) -> None:
    from sojourn.server.settings.files import find

    (tmp_path / "sojourn.toml").write_text(TRICKY)
    source, _ = find(None, tmp_path)
    assert source is not None
    expected = {
        "title_is_not_ours": 2,
        "app": 4,
        "app.target": 5,
        "app.reload_dirs": 9,
        "timeouts.header": 15,
        "timeouts.bind.x": 16,
        "limits": 17,
        "limits.body": 18,
        "routes[0].path": 20,
        "routes[0].timeouts.body": 21,
        "routes[0].limits.body": 23,
        "routes[1].path": 25,
        "routes[1].limits.body": 26,
        "routes[1].limits.queue": 26,
    }
    assert {path: source.lines[path] for path in expected} == expected
    assert source.where("routes[1].unset") == "sojourn.toml"


# --- values


@pytest.mark.parametrize(
    ("path", "raw", "expected"),
    [
        ("timeouts.header", 5, 5.0),
        ("timeouts.header", 0.5, 0.5),
        ("timeouts.header", "5", 5.0),
        ("timeouts.header", "300ms", 0.3),
        ("timeouts.header", "10s", 10.0),
        ("timeouts.header", "1.5 m", 90.0),
        ("timeouts.header", "5min", 300.0),
        ("timeouts.header", "1h", 3600.0),
        ("timeouts.header", "1d", 86400.0),
        ("timeouts.header", " none ", None),
        ("timeouts.header", "None", None),
        ("limits.retry_after", "2m", 120),
        ("limits.body", 100, 100),
        ("limits.body", 1e6, 1_000_000),
        ("limits.body", "64KiB", 65536),
        ("limits.body", "1MB", 1_000_000),
        ("limits.body", "8 MiB", 8 * 1024**2),
        ("limits.body", "0.5GiB", 512 * 1024**2),
        ("limits.body", "10_000b", 10_000),
        ("limits.body", "none", None),
        ("limits.body_min_rate", "1KiB/s", 1024),
        ("limits.body_min_rate", "1KiB", 1024),
        ("limits.connections", "20_000", 20_000),
        ("app.factory", "YES", True),
        ("app.factory", "off", False),
        ("app.factory", True, True),
        ("app.loop", " asyncio ", "asyncio"),
        ("app.lifespan", True, "on"),
        ("proxy.protocol", False, "off"),
        ("tls.min_version", 1.3, "1.3"),
        ("app.spec", "2.3", "2.3"),
        ("tls.client_cert", "none", "none"),
        ("app.reload_dirs", "a, b,", ("a", "b")),
        ("app.reload_dirs", ["a,b"], ("a,b",)),
        ("app.reload_dirs", "", ()),
        ("websocket.origins", "none", None),
        ("app.target", "", ""),
        ("app.dir", "none", "none"),
        ("tls.cert", "none", None),
    ],
)
def test_a_value_is_read_as_people_write_it(path: str, raw: object, expected: object) -> None:
    found = read(keys()[path], raw)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("path", "raw", "right"),
    [
        ("timeouts.header", 0, "a duration above 0 (seconds, or a text such as 500ms, 10s, 5m, 1h), or none"),
        ("timeouts.header", "5 parsecs", "a duration above 0"),
        ("timeouts.header", "5M", "a duration above 0"),
        ("timeouts.header", "1__0", "a duration above 0"),
        ("timeouts.header", "", "a duration above 0"),
        ("timeouts.header", True, "a duration above 0"),
        ("timeouts.header", float("inf"), "a duration above 0"),
        ("timeouts.header", float("nan"), "a duration above 0"),
        ("timeouts.header", "inf", "a duration above 0"),
        ("timeouts.header", 10**400, "a duration above 0"),
        ("timeouts.header", [1], "a duration above 0"),
        ("limits.retry_after", "500ms", "a duration in whole seconds of at least 1"),
        ("limits.body", -1, "a size of at least 0 (bytes, or a text such as 64KiB, 1MB), or none"),
        ("limits.body", "64K", "a size of at least 0"),
        ("limits.body", "0.3B", "a size of at least 0"),
        ("limits.body_min_rate", "1KiB/m", "a rate of at least 1"),
        ("limits.headers", 1.5, "a whole number of at least 1"),
        ("limits.headers", "10k", "a whole number of at least 1"),
        ("app.factory", "maybe", "true or false"),
        ("app.factory", 1, "true or false"),
        ("app.loop", "trio", "one of auto, uvloop, asyncio"),
        ("tls.min_version", 1, "one of 1.2, 1.3"),
        ("app.reload_dirs", [1], "a list of texts"),
        ("bind.uds_mode", 660, "a text"),
        ("tls.cert", "", "a text, or none"),
    ],
)
def test_a_bad_value_is_refused_with_what_would_be_right(path: str, raw: object, right: str) -> None:
    with pytest.raises(ValueError, match="is not") as caught:
        read(keys()[path], raw)
    assert f"is not {right}" in str(caught.value)


def test_none_is_refused_where_a_limit_is_needed() -> None:
    with pytest.raises(ValueError, match="none is not allowed here: write a duration above 0"):
        read(keys()["timeouts.close"], "none")
    with pytest.raises(ValueError, match="none is not allowed here: write a list"):
        read(keys()["proxy.trusted"], "none")


NUMBERS = [key for key in keys().values() if key.kind in ("whole", "number")]


@given(st.sampled_from(NUMBERS), st.integers(1, 2**52))
def test_what_is_shown_can_be_written_back(key: Any, number: int) -> None:
    shown = display(key, float(number) / 1000 if key.kind == "number" else number)
    found = read(key, shown)
    assert found == pytest.approx(number / 1000 if key.kind == "number" else number, rel=1e-11)


# --- problems


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[timeouts]\nhedaer = 3", "timeouts.hedaer: no such key; did you mean timeouts.header? (from sojourn.toml:2)"),
        ("[limits]\nkeep_alive = 3", "limits.keep_alive: no such key; did you mean timeouts.keep_alive?"),
        ("[timeout]\nheader = 3", "timeout: no such key; did you mean timeouts? (from sojourn.toml:1)"),
        ("backlog = 3", "backlog: no such key; did you mean bind.backlog? (from sojourn.toml:1)"),
        ("zzz = 3", "zzz: no such key; `sojourn config` lists all keys"),
        ("timeouts = 3", "timeouts: is a group of keys: write [timeouts] (from sojourn.toml:1)"),
        ("\n[bind]\nport = 'x'", "bind.port: 'x' is not a whole number of at least 0 (from sojourn.toml:3)"),
        ("[timeouts]\nclose = 'none'", "timeouts.close: none is not allowed here: write a duration above 0"),
    ],
)
def test_a_wrong_key_of_a_file_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    assert problem(text, folder=tmp_path).startswith(message)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("SOJOURN_TIMEOUTS_HEDAER", "did you mean SOJOURN_TIMEOUTS_HEADER?"),
        ("SOJOURN_TIMEOUT_HEADER", "did you mean SOJOURN_TIMEOUTS_HEADER?"),
        ("SOJOURN_BACKLOG", "did you mean SOJOURN_BIND_BACKLOG?"),
        ("SOJOURN_PORT", "did you mean SOJOURN_BIND_PORT?"),
        ("SOJOURN_QQQQQ", "`sojourn config` lists all keys"),
    ],
)
def test_an_unknown_name_in_the_environment_is_refused(name: str, advice: str) -> None:
    assert problem(environ={name: "5"}) == f"{name} is no setting; {advice}"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("SOJOURN_SERVICE_HOST", "10.0.0.1"),
        ("SOJOURN_SERVICE_PORT", "80"),
        ("SOJOURN_SERVICE_PORT_HTTP", "80"),
        ("SOJOURN_PORT", "tcp://10.0.0.1:80"),
        ("SOJOURN_PORT_80_TCP", "tcp://10.0.0.1:80"),
        ("SOJOURN_PORT_80_TCP_PROTO", "tcp"),
        ("SOJOURN_WEB_SERVICE_HOST", "10.0.0.1"),
        ("SOJOURN_WEB_PORT_80_TCP_ADDR", "10.0.0.1"),
        ("OTHER_TIMEOUTS_HEADER", "x"),
    ],
)
def test_what_kubernetes_says_of_a_service_of_our_name_is_left_alone(name: str, text: str) -> None:
    assert loaded(environ={name: text}).config == Config()


def test_a_bad_flag_names_itself() -> None:
    message = problem(flags={"timeouts.header": Given("--header-timeout", "x")})
    assert message.endswith("(from --header-timeout)")
    assert problem(flags={"timeouts.hedaer": 3}) == "timeouts.hedaer: no such key; did you mean timeouts.header?"


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    text = "[timeouts]\nheader = -1\nbogus = 3\n[[routes]]\npath = 3\n"
    (tmp_path / "sojourn.toml").write_text(text)
    with pytest.raises(Problems) as caught:
        loaded(folder=tmp_path, environ={"SOJOURN_APP_LOOP": "trio"}, flags={"app.workers": -1})
    assert sorted(str(each.key) for each in caught.value.problems) == [
        "app.loop",
        "app.workers",
        "routes[0].path",
        "timeouts.bogus",
        "timeouts.header",
    ]
    lines = str(caught.value).splitlines()
    assert lines[0] == "5 settings can't be used:"
    assert len(lines) == 6


def test_a_bad_value_is_told_even_when_a_later_layer_hides_it() -> None:
    flags = {"timeouts.header": "3"}
    assert problem(environ={"SOJOURN_TIMEOUTS_HEADER": "x"}, flags=flags).startswith("timeouts.header: 'x' is not")


def test_a_secret_is_in_no_message_and_in_no_row() -> None:
    environ = {"SOJOURN_TLS_CERT": "c", "SOJOURN_TLS_KEY_PASSWORD": "hunter2"}
    rows = describe(loaded(environ=environ))
    assert next(row for row in rows if row.key == "tls.key_password")[1:3] == ("***", "***")
    assert "hunter2" not in str(rows)
    with pytest.raises(ValueError, match="this is not a text") as caught:
        read(keys()["tls.key_password"], ["hunter2"])
    assert "hunter2" not in str(caught.value)


# --- routes

ROUTES = """
[[routes]]
path = "/uploads/*"
methods = ["put", "POST"]
[routes.timeouts]
body_idle = "2m"
handler = "none"
[routes.limits]
body = "1GiB"

[[routes]]
path = "/*"
websocket = { message = "2MiB", compression = false, idle = 60 }
"""


def test_routes_keep_their_order_and_their_values_are_read_like_keys(tmp_path: Path) -> None:
    result = loaded(ROUTES, folder=tmp_path)
    assert result.config.routes == (
        Route(
            path="/uploads/*",
            methods=("PUT", "POST"),
            timeouts={"body_idle": 120.0, "handler": "none"},
            limits={"body": 1024**3},
        ),
        Route(path="/*", websocket={"message": 2 * 1024**2, "compression": False, "idle": 60.0}),
    )
    assert str(result.origins["routes[0].timeouts.body_idle"]) == "sojourn.toml:6"
    assert str(result.origins["routes[1].websocket.idle"]) == "sojourn.toml:13"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("routes = 3", "routes: is a list of tables: write [[routes]] (from sojourn.toml:1)"),
        ("[routes]\npath = '/'", "routes: is a list of tables: write [[routes]] (from sojourn.toml:1)"),
        ("[[routes]]", 'routes[0]: has no path: write path = "/..."'),
        ("[[routes]]\npath = 'a'", "routes[0].path: 'a' is not a path: it begins with / and may end with *"),
        ("[[routes]]\npath = '/*/a'", "routes[0].path: '/*/a' is not a path"),
        ("[[routes]]\npath = '/'\nmethods = 'GET'", "routes[0].methods: 'GET' is not a list of methods"),
        ("[[routes]]\npath = '/'\nmethods = ['a b']", "routes[0].methods: ['a b'] is not a list of methods"),
        ("[[routes]]\npath = '/'\ntimeout = {}", "routes[0].timeout: no such key; did you mean timeouts?"),
        ("[[routes]]\npath = '/'\nx = 1", "routes[0].x: write path, methods, priority, timeouts, limits, websocket"),
        ("[[routes]]\npath = '/'\nlimits = 1", "routes[0].limits: is a group of keys: write limits = { ... }"),
        ("[[routes]]\npath = '/'\nlimits.bdy = 1", "routes[0].limits.bdy: no such key; did you mean body?"),
        (
            "[[routes]]\npath = '/'\nlimits.queue = 1",
            "routes[0].limits.queue: can't differ per route: set limits.queue",
        ),
        ("[[routes]]\npath = '/'\nlimits.zzzz = 1", "routes[0].limits.zzzz: no such key (from sojourn.toml:3)"),
        ("[[routes]]\npath = '/'\nlimits.body = -1", "routes[0].limits.body: -1 is not a size of at least 0"),
        (
            "[[routes]]\npath = '/'\ntimeouts.tls = 1",
            "routes[0].timeouts.tls: can't differ per route: set timeouts.tls",
        ),
        ("[[routes]]\npath = '/'\nwebsocket.origins = ['*']", "routes[0].websocket.origins: can't differ per route"),
    ],
)
def test_a_wrong_route_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    assert problem(text, folder=tmp_path).startswith(message)


def test_a_route_may_set_what_is_looked_up_for_each_request_and_nothing_else() -> None:
    groups = {"timeout": "timeouts", "limit": "limits", "_setting": "websocket"}
    source = "".join(file.read_text(encoding="utf-8") for file in ASGI.glob("*.py"))
    looked_up = {f"{groups[how]}.{name}" for how, name in re.findall(r'\b(timeout|limit|_setting)\("(\w+)"', source)}
    numbers = {path for path in looked_up if keys()[path].kind in ("whole", "number", "flag")}
    assert {path for path in keys() if overridable(path)} == numbers


# --- settings that contradict each other


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"bind.uds": "/s", "bind.fd": "3"}, "bind.fd: excludes bind.uds: give one of them"),
        ({"bind.port": "65536"}, "bind.port: 65536 is not a TCP port: write 0 to 65535"),
        ({"bind.host": "::1,"}, "bind.host: '::1,' has an empty address: write 0.0.0.0 or :: for all"),
        ({"bind.uds_mode": "999"}, "bind.uds_mode: '999' is not an octal mode, such as 660"),
        ({"app.reload": "on", "app.workers": "2"}, "app.reload: serves with one worker: app.workers is 2"),
        ({"tls.key": "k"}, "tls.key: means nothing without tls.cert"),
        ({"tls.ca": "k"}, "tls.ca: means nothing without tls.cert"),
        ({"tls.client_cert": "required"}, "tls.client_cert: means nothing without tls.cert"),
        ({"tls.cert": "c", "tls.client_cert": "required"}, "tls.client_cert: required needs tls.ca"),
        ({"websocket.origins": "example.org"}, "websocket.origins: 'example.org' is no origin: write https://host"),
        ({"websocket.origins": "https://*.a.org"}, "websocket.origins: 'https://*.a.org' is no origin"),
        ({"websocket.origins": "https://a.org/"}, "websocket.origins: 'https://a.org/' is no origin"),
        ({"proxy.trusted": "proxy.local"}, "proxy.trusted: 'proxy.local' is neither an address, a network"),
        ({"admin.bind": "0.0.0.0:9000"}, "admin.bind: '0.0.0.0' is no loopback address"),
        ({"registration.webhook": "ftp://a"}, "registration.webhook: is no URL of http or https"),
        ({"registration.token": "t"}, "registration.token: means nothing without registration.webhook"),
    ],
)
def test_contradictions_are_refused(flags: dict[str, str], message: str) -> None:
    assert problem(flags=flags).startswith(message)


@pytest.mark.parametrize(
    "flags",
    [
        {"bind.uds": "/s", "bind.uds_mode": "0600"},
        {"bind.port": "0", "bind.host": "::1, 127.0.0.1"},
        {"tls.cert": "c", "tls.key": "k", "tls.ca": "a", "tls.client_cert": "optional"},
        {"websocket.origins": "https://a.org:8443,same-origin,null,*,chrome-extension://abc"},
        {"proxy.trusted": "10.0.0.0/8,::1,unix,192.168.1.7"},
        {"timeouts.handler": "5s"},
        {"admin.bind": "unix:/run/a.sock", "registration.webhook": "https://a/b", "registration.token": "t"},
    ],
)
def test_settings_that_fit_together_pass_without_a_word(flags: dict[str, str]) -> None:
    assert loaded(flags=flags).warnings == ()


PING_TOO_LONG = "is longer than websocket.ping_interval (20 s): a ping is due before the last one is missed"


@pytest.mark.parametrize(
    ("flags", "warning"),
    [
        ({"bind.uds": "/s", "bind.port": "1"}, "bind.port has no effect: bind.uds says where to listen"),
        ({"bind.fd": "3", "bind.host": "::"}, "bind.host has no effect: bind.fd says where to listen"),
        (
            {"websocket.ping_interval": "none", "websocket.ping_timeout": "3"},
            "websocket.ping_timeout has no effect: websocket.ping_interval is none",
        ),
        ({"tls.cert": "c", "tls.ca": "a"}, "tls.ca has no effect: tls.client_cert is none"),
        ({"limits.queue": "5"}, "limits.queue has no effect: limits.requests is none"),
        (
            {"timeouts.handler": "5", "timeouts.response_start": "6"},
            "timeouts.response_start (6 s) never passes: timeouts.handler (5 s) comes first",
        ),
        (
            {"websocket.ping_timeout": "30"},
            f"websocket.ping_timeout (30 s) {PING_TOO_LONG}",
        ),
        ({"drain.requests": "2m"}, "drain.requests (120 s) is cut short: drain.total is 90 s"),
        (
            {"registration.webhook": "https://a", "app.workers": "0"},
            "registration.webhook has no effect: it is the supervisor's, and there is none when app.workers is 0",
        ),
        (
            {"registration.webhook": "https://a", "app.reload": "on"},
            "registration.webhook has no effect: it is the supervisor's, and there is none when app.reload is on",
        ),
        (
            {"registration.webhook": "http://a", "registration.token": "t"},
            "registration.token is sent unencrypted: registration.webhook is http, not https",
        ),
        ({"proxy.trusted": "*"}, "proxy.trusted is *: every client can claim any address"),
    ],
)
def test_what_is_probably_not_meant_is_said(flags: dict[str, str], warning: str) -> None:
    assert loaded(flags=flags).warnings == (warning,)


# --- waits without a deadline, and the description


def test_a_wait_is_without_deadline_when_a_default_was_taken_away_by_hand(tmp_path: Path) -> None:
    text = "[[routes]]\npath = '/r/*'\ntimeouts = { stream_idle = 'none', handler = 'none' }\n"
    flags = {"timeouts.header": "none", "timeouts.handler": "none", "websocket.write": "none", "limits.body": "none"}
    assert waits_without_deadline(Config()) == []
    assert waits_without_deadline(loaded(text, folder=tmp_path, flags=flags).config) == [
        "timeouts.header",
        "websocket.write",
        "timeouts.stream_idle of /r/*",
    ]


def test_the_description_has_every_key_once_and_then_the_routes(tmp_path: Path) -> None:
    rows = describe(loaded(ROUTES, folder=tmp_path))
    plain = [row for row in rows if not row.key.startswith("routes")]
    assert [row.key for row in plain] == list(keys())
    assert [(row.key, row.text, str(row.origin)) for row in rows[len(plain) :]] == [
        ("routes[0].path", "/uploads/*", "sojourn.toml:3"),
        ("routes[0].methods", "PUT,POST", "sojourn.toml:4"),
        ("routes[0].timeouts.body_idle", "120 s", "sojourn.toml:6"),
        ("routes[0].timeouts.handler", "none", "sojourn.toml:7"),
        ("routes[0].limits.body", "1 GiB", "sojourn.toml:9"),
        ("routes[1].path", "/*", "sojourn.toml:12"),
        ("routes[1].websocket.message", "2 MiB", "sojourn.toml:13"),
        ("routes[1].websocket.compression", "false", "sojourn.toml:13"),
        ("routes[1].websocket.idle", "60 s", "sojourn.toml:13"),
    ]


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("timeouts.header", "10 s"),
        ("limits.header_bytes", "32 KiB"),
        ("limits.body", "8 MiB"),
        ("limits.body_min_rate", "240 B/s"),
        ("limits.connections", "10000"),
        ("bind.uds", "none"),
        ("app.reload_dirs", "(empty)"),
        ("proxy.trusted", "127.0.0.1,::1,unix"),
        ("proxy.headers", "true"),
        ("bind.host", Bind().host),
    ],
)
def test_values_are_shown_as_people_read_them(path: str, shown: str) -> None:
    assert display(keys()[path], keys()[path].default) == shown
