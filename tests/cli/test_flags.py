"""The table of flags is complete, unambiguous and readable; the flags of uvicorn do what they did or say why not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import pytest

from sojourn.cli.flags import FLAGS, SECTIONS, SERVED, TARGET, WORKED
from sojourn.cli.main import main
from sojourn.cli.options import SettingsCommand, load_settings, parameters
from sojourn.cli.uvicorn import ALIASES, HINTS, REFUSED, SAME
from sojourn.config import Config
from sojourn.errors import ConfigError
from sojourn.server.settings import Loaded, group_docs, keys


def parse(*arguments: str) -> Loaded:
    """Load what the arguments of ``sojourn serve`` ask for, and nothing else."""
    command = SettingsCommand("serve", params=parameters(), callback=lambda **values: values)
    values: dict[str, Any] = command.main(list(arguments), standalone_mode=False)
    return load_settings(values.pop("config_file"), values, {}, Path("/nonexistent"))


def setting(loaded: Loaded, path: str) -> object:
    group, _, name = path.partition(".")
    return getattr(getattr(loaded.config, group), name)


# --- the table


def test_every_key_has_exactly_one_flag() -> None:
    assert list(FLAGS) == list(keys())
    assert list(SECTIONS) == list(group_docs())


def test_no_two_flags_share_a_name() -> None:
    switches = [f"--no-{flag[2:]}" for path, flag in FLAGS.items() if keys()[path].kind == "flag"]
    names = [*FLAGS.values(), *switches, *ALIASES, *SAME, *REFUSED, "--config", "--help", "--json", "--markdown"]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("path", [path for path in FLAGS if path != TARGET])
def test_every_flag_sets_its_key_and_is_its_origin(path: str) -> None:
    key = keys()[path]
    samples = {"whole": "17", "number": "17", "list": "https://a.org", "text": "600"}
    samples |= {"proxy.trusted": "10.0.0.0/8", "admin.bind": "unix:/a", "registration.webhook": "https://a.org"}
    samples |= {"deadlines.reject_share": "0.5", "deadlines.budgets": "cache=50ms"}
    flag = FLAGS[path]
    if key.kind == "flag":
        given = [flag.replace("--", "--no-") if key.default else flag]
    elif key.kind == "choice":
        given = [flag, next(choice for choice in key.choices if choice != key.default)]
    else:
        given = [flag, samples.get(path, samples[key.kind])]
    needed = ["--tls-cert", "c", "--tls-ca", "a"] if path.startswith("tls.") and path != "tls.cert" else []
    if path == "registration.token":
        needed = ["--registration-webhook", "https://a.org"]
    loaded = parse(*given, *(needed[:2] if path == "tls.ca" else needed))
    assert setting(loaded, path) != key.default
    assert str(loaded.origins[path]) == given[0]


def test_without_flags_nothing_is_set() -> None:
    assert parse().config == Config()
    assert parse("web:app").config.app.target == "web:app"


def test_a_list_may_be_repeated_or_have_commas() -> None:
    assert parse("--reload-dir", "a", "--reload-dir", "b,c").config.app.reload_dirs == ("a", "b", "c")


# --- uvicorn


@pytest.mark.parametrize(
    ("arguments", "path", "expected"),
    [
        (["--access-log"], "log.access", "auto"),
        (["--access-log", "off"], "log.access", "off"),
        (["--no-access-log"], "log.access", "off"),
        (["--forwarded-allow-ips", "*"], "proxy.trusted", ("*",)),
        (["--limit-concurrency", "5"], "limits.requests", 5),
        (["--timeout-keep-alive", "5"], "timeouts.keep_alive", 5.0),
        (["--timeout-graceful-shutdown", "9"], "drain.total", 9.0),
        (["--ssl-certfile", "c"], "tls.cert", "c"),
        (["--ssl-certfile", "c", "--ssl-keyfile", "k"], "tls.key", "k"),
        (["--ssl-certfile", "c", "--ssl-keyfile-password", "p"], "tls.key_password", "p"),
        (["--ssl-certfile", "c", "--ssl-ca-certs", "a"], "tls.ca", "a"),
        (["--ssl-certfile", "c", "--ssl-ca-certs", "a", "--ssl-cert-reqs", "2"], "tls.client_cert", "required"),
        (["--ssl-ciphers", "HIGH"], "tls.ciphers", "HIGH"),
        (["--ws-max-size", "16777216"], "websocket.message", 16777216),
        (["--ws-max-queue", "32"], "websocket.queue", 32),
        (["--ws-per-message-deflate", "false"], "websocket.compression", False),
        (["--h11-max-incomplete-event-size", "65536"], "limits.header_bytes", 65536),
        (["--ws-ping-interval", "10.5"], "websocket.ping_interval", 10.5),
        (["--no-proxy-headers"], "proxy.headers", False),
        (["--no-date-header"], "log.date_header", False),
        (["--env-file", ".env"], "app.env_file", ".env"),
    ],
)
def test_a_flag_of_uvicorn_means_the_same(arguments: list[str], path: str, expected: object) -> None:
    assert setting(parse(*arguments), path) == expected


def test_a_bare_access_log_does_not_take_the_application_for_its_value() -> None:
    loaded = parse("--access-log", "web:app")
    assert (loaded.config.log.access, loaded.config.app.target) == ("auto", "web:app")


@pytest.mark.parametrize(
    "arguments",
    [["--http", "auto"], ["--http", "httptools"], ["--ws", "auto"], ["--no-use-colors"], ["--reset-contextvars"]],
)
def test_a_flag_of_uvicorn_for_what_is_always_so_changes_nothing(arguments: list[str]) -> None:
    assert parse(*arguments).config == Config()


@pytest.mark.parametrize("flag", list(REFUSED))
def test_a_flag_of_uvicorn_for_what_is_not_done_is_refused_with_the_reason(flag: str) -> None:
    takes_value, why = REFUSED[flag]
    with pytest.raises(ConfigError) as caught:
        parse(*([flag, "1"] if takes_value else [flag]))
    assert str(caught.value) == f"{flag} is not supported: {why}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--http", "h11"], "--http h11 is not supported: Sojourn has only auto or httptools"),
        (["--ws", "none"], "--ws none is not supported: Sojourn has only auto"),
        (["--interface", "wsgi"], f"app.interface: wsgi is not served: {HINTS['app.interface', 'wsgi']}"),
        (["--log-level", "trace"], "log.level: trace is not served: debug is the finest level"),
        (["--loop", "mod:loop"], "app.loop: 'mod:loop' is not one of auto, uvloop, asyncio (from --loop)"),
        (["--timeout-keep-alive", "x"], "timeouts.keep_alive: 'x' is not a duration above 0"),
        (
            ["--keep-alive-timeout", "1", "--timeout-keep-alive", "2"],
            "timeouts.keep_alive: --keep-alive-timeout and --timeout-keep-alive set the same: give one of them",
        ),
        (
            ["--forwarded-allow-ips", "::1", "--trusted-proxies", "::1"],
            "proxy.trusted: --trusted-proxies and --forwarded-allow-ips set the same: give one of them",
        ),
    ],
)
def test_a_value_that_is_not_served_gives_one_clear_line(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(*arguments)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_every_long_flag_of_uvicorn_is_known() -> None:
    """Against the list of uvicorn 0.54."""
    uvicorn = """
        host port uds fd reload reload-dir reload-include reload-exclude reload-delay workers loop http http2 ws
        ws-max-size ws-max-queue ws-ping-interval ws-ping-timeout ws-per-message-deflate lifespan interface env-file
        log-config log-level access-log no-access-log use-colors no-use-colors proxy-headers no-proxy-headers
        server-header no-server-header date-header no-date-header forwarded-allow-ips root-path limit-concurrency
        backlog limit-max-requests limit-max-requests-jitter timeout-keep-alive timeout-graceful-shutdown
        timeout-worker-healthcheck ssl-keyfile ssl-certfile ssl-keyfile-password ssl-version ssl-cert-reqs ssl-ca-certs
        ssl-ciphers header app-dir h11-max-incomplete-event-size reset-contextvars factory
    """
    ours = {name for option in parameters() for name in (*option.opts, *option.secondary_opts)}
    assert {f"--{name}" for name in uvicorn.split()} - ours == set()


# --- help


@pytest.mark.parametrize(("command", "paths"), [("serve", SERVED), ("config", FLAGS)])
def test_the_help_has_every_flag_with_its_default_and_fits_100_columns(
    command: str, paths: Sequence[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 100
    titles = {f"{SECTIONS[path.partition('.')[0]]}:" for path in paths}
    for name in (*(FLAGS[path] for path in paths), *ALIASES, *titles):
        assert f"{name} " in text or f"{name}\n" in text
    assert ("--concurrency" in text) == ("work.concurrency" in paths)
    assert "--header-timeout SECONDS" in text
    assert "[10 s]" in text
    assert "[32 KiB]" in text
    for name in (*SAME, *REFUSED, "--reload-child"):
        assert f"{name} " not in text


def test_the_help_of_work_has_what_concerns_it_and_nothing_of_listening(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["work", "--help"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 100
    for path in WORKED:
        assert ("TASKS" if path == TARGET else FLAGS[path]) in text
    for flag in (FLAGS[path] for path in FLAGS if path not in WORKED and path != "timeouts.lifespan_startup"):
        assert f"{flag} " not in text
    for word in ("request", "connection", "WebSocket", "uvicorn"):
        assert word not in text.partition("Diagnostics:")[0].replace("drain-requests", "")
    assert {"work.kinds", "app.workers", "drain.persist", "admin.bind", "log.level"} <= set(WORKED)
    assert set(WORKED) | set(SERVED) == set(FLAGS)


def test_hidden_options_are_no_settings() -> None:
    hidden = {
        name for option in parameters() if isinstance(option, click.Option) and option.hidden for name in option.opts
    }
    assert hidden == {*ALIASES, *SAME, *REFUSED}


def test_asking_for_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from sojourn.cli.main import main; main(['serve', '--help']); main(['--help']); main(['config']);"
        "heavy = {'asyncio', 'ssl', 'uvloop', 'httptools', 'socket', 'sojourn.net'} & set(sys.modules);"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
