"""The importer: one clear line for each way an application can be missing or be something else."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sojourn.config import App
from sojourn.errors import ConfigError, StartupError
from sojourn.server.importer import load_app, read_env_file

ASGI = "async def app(scope, receive, send): ...\n"


@pytest.fixture(autouse=True)
def process() -> Iterator[None]:
    """Leave import path, modules and environment as they were."""
    path, modules, environ = sys.path[:], set(sys.modules), dict(os.environ)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    os.environ.clear()
    os.environ.update(environ)
    importlib.invalidate_caches()


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., None]:
    """Write modules: ``write(web="source", **{"pkg/__init__": ""})``."""

    def write(**sources: str) -> None:
        for name, source in sources.items():
            file = tmp_path / f"{name}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(source)

    return write


def get(target: str, folder: Path, **more: Any) -> Any:
    return load_app(App(target=target, dir=str(folder), **more))


def line(target: str, folder: Path, **more: Any) -> str:
    """The message of the failure, which must be one line and keep a foreign error as its cause."""
    with pytest.raises(StartupError) as caught:
        get(target, folder, **more)
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.exit_code == 3
    return message.replace(f"{folder}/", "")


# --- what is found


@pytest.mark.parametrize(
    ("target", "source"),
    [
        ("web:app", ASGI),
        ("web:outer.inner.app", "class outer:\n    class inner:\n        async def app(scope, receive, send): ...\n"),
        ("web", ASGI),
        ("web", "async def application(scope, receive, send): ...\napp_name = 1\n"),
        ("web:app", "class App:\n    async def __call__(self, scope, receive, send): ...\napp = App()\n"),
        ("web:app", "def app(scope, receive, send): return 1\n"),
        ("web:app", "async def app(*args): ...\n"),
        ("web:app", "import functools\nasync def f(x, s, r, e): ...\napp = functools.partial(f, 1)\n"),
        ("web:app", "class app:\n    def __init__(self, scope, receive, send): ...\n    def __await__(self): ...\n"),
        ("pkg.sub:app", ""),
    ],
)
def test_an_application_is_found(tmp_path: Path, write: Callable[..., None], target: str, source: str) -> None:
    write(web=source, **{"pkg/__init__": "", "pkg/sub": ASGI})
    assert callable(get(target, tmp_path))


def test_the_folder_comes_first_on_the_import_path_and_only_once(tmp_path: Path, write: Callable[..., None]) -> None:
    write(json_like=ASGI)
    get("json_like:app", tmp_path)
    get("json_like:app", tmp_path)
    assert sys.path[0] == str(tmp_path)
    assert sys.path.count(str(tmp_path)) == 1


def test_a_factory_is_called_for_the_application(tmp_path: Path, write: Callable[..., None]) -> None:
    write(web=f"{ASGI}def make(debug=False): return app\n")
    assert get("web:make", tmp_path, factory=True) is get("web:app", tmp_path)


def test_frameworks_are_recognised(tmp_path: Path, write: Callable[..., None]) -> None:
    write(web="from starlette.applications import Starlette\napp = Starlette()\n")
    assert type(get("web:app", tmp_path)).__name__ == "Starlette"


# --- what is not found


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("", "app.target: no application is named: write sojourn serve module:attribute"),
        ("web.py", "app.target: 'web.py' is a file: write web:app"),
        ("./src/web.py:api", "app.target: './src/web.py:api' is a file: write src.web:api"),
        ("web:", "app.target: 'web:' is not module:attribute"),
        (":app", "app.target: ':app' is not module:attribute"),
        ("web:app:x", "app.target: 'web:app:x' is not module:attribute"),
        ("web app", "app.target: 'web app' is not module:attribute"),
    ],
)
def test_a_target_that_is_no_module_and_attribute_is_refused(tmp_path: Path, target: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        get(target, tmp_path)
    assert str(caught.value) == message


def test_a_wrong_module_is_told_from_an_import_that_fails_inside(tmp_path: Path, write: Callable[..., None]) -> None:
    write(webapp="\nimport absent_library\n", **{"pkg/__init__": "", "pkg/views": ""})
    inside = "can't import webapp: No module named 'absent_library' at webapp.py:2"
    elsewhere = f"in {tmp_path} or elsewhere on the import path"
    assert line("webapp:app", tmp_path) == inside
    assert (
        line("webap:app", tmp_path) == f"can't import webap: there is no module webap {elsewhere}; did you mean webapp?"
    )
    assert line("pkg.x:app", tmp_path) == f"can't import pkg.x: there is no module pkg.x {elsewhere}"
    assert line("pkg.view:app", tmp_path).endswith("; did you mean pkg.views?")
    assert line("zzz.x:app", tmp_path) == f"can't import zzz.x: there is no module zzz {elsewhere}"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("\ndef f(:\n", "can't import web: invalid syntax at web.py:2"),
        ("from os import absent\n", "can't import web: cannot import name 'absent' from 'os'"),
        ("x = 1\n1 / 0\n", "can't import web: ZeroDivisionError: division by zero at web.py:2"),
        ("raise RuntimeError\n", "can't import web: RuntimeError at web.py:1"),
        ("raise RuntimeError('a\\nb')\n", "can't import web: RuntimeError: a at web.py:1"),
        ("import sys\nsys.exit('bye')\n", "can't import web: importing it exits with 'bye' at web.py:2"),
        ("import web\nweb.nothing\n", "can't import web: AttributeError: partially initialized module 'web'"),
        ("import importlib\nimportlib.import_module('web.x')\n", "can't import web: No module named 'web.x'"),
    ],
)
def test_an_error_inside_the_module_is_one_line_with_its_place(
    tmp_path: Path, write: Callable[..., None], source: str, message: str
) -> None:
    write(web=source)
    assert line("web:app", tmp_path).startswith(message)


def test_the_original_error_is_kept_for_the_traceback(tmp_path: Path, write: Callable[..., None]) -> None:
    write(web="1 / 0\n")
    with pytest.raises(StartupError) as caught:
        get("web:app", tmp_path)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize(
    ("target", "source", "message"),
    [
        ("web:ap", ASGI, "module web (web.py) has no attribute ap; did you mean app?"),
        ("web:app.x", ASGI, "web:app has no attribute x"),
        ("web", "x = 1\n", "module web (web.py) has neither app nor application; write web:NAME"),
        (
            "web",
            ASGI.replace("app", "api"),
            "module web (web.py) has neither app nor application; did you mean web:api?",
        ),
        ("web:app", "app = 'x'\n", "web:app is a str, not an application"),
        ("web:json", "import json\n", "web:json is a module, not an application"),
    ],
)
def test_a_wrong_attribute_is_named_with_what_is_near(
    tmp_path: Path, write: Callable[..., None], target: str, source: str, message: str
) -> None:
    write(web=source)
    assert line(target, tmp_path) == message


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def make(): return 1 / 0\n", "the factory web:make failed: ZeroDivisionError: division by zero at web.py:1"),
        ("def make(x): ...\n", "web:make is no factory: it can't be called without arguments"),
        ("make = 3\n", "web:make is no factory: it can't be called without arguments"),
        ("async def make(): ...\n", "the factory web:make is async: it must return the application, not a coroutine"),
        ("def make(): ...\n", "web:make() is a NoneType, not an application"),
    ],
)
def test_a_factory_that_makes_no_application_is_named(
    tmp_path: Path, write: Callable[..., None], source: str, message: str
) -> None:
    write(web=source)
    assert line("web:make", tmp_path, factory=True) == message


# --- what is something else

SINGLE = "asgiref.compatibility.guarantee_single_callable"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def app(environ, start_response): ...\n", "is a WSGI application: wrap it in asgiref.wsgi.WsgiToAsgi"),
        (
            "class App:\n    def __call__(self, environ, start_response): ...\napp = App()\n",
            "is a WSGI application: wrap it in asgiref.wsgi.WsgiToAsgi",
        ),
        (
            "from django.core.handlers.wsgi import WSGIHandler\napp = WSGIHandler.__new__(WSGIHandler)\n",
            "is a WSGI application: wrap it in asgiref.wsgi.WsgiToAsgi",
        ),
        ("def app(scope): ...\n", f"is an ASGI 2 application: wrap it in {SINGLE}"),
        (
            "class app:\n    def __init__(self, scope): ...\n    async def __call__(self, receive, send): ...\n",
            f"is an ASGI 2 class: wrap it in {SINGLE}",
        ),
        ("class app:\n    async def __call__(self, s, r, e): ...\n", "is a class: name an instance, or add --factory"),
        ("def app(): ...\n", "takes no arguments: if it is a factory, add --factory"),
        ("async def app(scope, receive): ...\n", "can't be called with scope, receive and send"),
        ("def app(a, b, c, d): ...\n", "can't be called with scope, receive and send"),
    ],
)
def test_what_is_no_asgi_3_application_is_told_which_wrapper_helps(
    tmp_path: Path, write: Callable[..., None], source: str, message: str
) -> None:
    write(web=source)
    assert line("web:app", tmp_path) == f"web:app {message}"
    if "is a class" not in message:
        assert callable(get("web:app", tmp_path, interface="asgi3"))


# --- the environment file


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A=1", {"A": "1"}),
        ("export A = b c ", {"A": "b c"}),
        ("# nothing\n\n  A=1\nB=", {"A": "1", "B": ""}),
        ("A=x # comment", {"A": "x"}),
        ("A=x#y", {"A": "x#y"}),
        ("A=#", {"A": ""}),
        ("A=' b # c '  # d", {"A": " b # c "}),
        (r'A="a\"b\n$C\\"', {"A": 'a"b\n$C\\'}),
        (r"A='a\n'", {"A": r"a\n"}),
        ("A=b=c", {"A": "b=c"}),
        ("A=1\r\nA=2\r\n", {"A": "2"}),
    ],
)
def test_a_line_of_the_environment_file_is_read(tmp_path: Path, text: str, expected: dict[str, str]) -> None:
    file = tmp_path / ".env"
    file.write_text(text, newline="")
    assert read_env_file(file) == expected


@pytest.mark.parametrize("text", ["A", "1A=b", "A-B=c", 'A="b', "A='b'c", "A: b", "=x"])
def test_a_bad_line_of_the_environment_file_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / ".env"
    file.write_text(f"OK=1\n{text}\n")
    with pytest.raises(ConfigError) as caught:
        read_env_file(file)
    assert str(caught.value) == f"app.env_file: not a line NAME=value (from {file}:2)"


def test_an_absent_environment_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the environment file can't be read: No such file or directory"):
        read_env_file(tmp_path / ".env")


def test_the_environment_file_is_there_before_the_import_and_overrides_nothing(
    tmp_path: Path, write: Callable[..., None]
) -> None:
    write(web=f"import os\nseen = os.environ['T_FILE'], os.environ['T_BOTH']\n{ASGI}")
    file = tmp_path / ".env"
    file.write_text("T_FILE=file\nT_BOTH=file\n")
    os.environ["T_BOTH"] = "real"
    get("web:app", tmp_path, env_file=str(file))
    assert sys.modules["web"].seen == ("file", "real")


def test_a_setting_in_the_environment_file_is_refused_because_it_would_do_nothing(
    tmp_path: Path, write: Callable[..., None]
) -> None:
    write(web=ASGI)
    file = tmp_path / ".env"
    file.write_text("SOJOURN_TIMEOUTS_HEADER=5\n")
    with pytest.raises(ConfigError, match="SOJOURN_TIMEOUTS_HEADER comes too late here"):
        get("web:app", tmp_path, env_file=str(file))
    os.environ["SOJOURN_TIMEOUTS_HEADER"] = "5"
    assert callable(get("web:app", tmp_path, env_file=str(file)))
