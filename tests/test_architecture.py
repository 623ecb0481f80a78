"""The shape of src/sojourn, held by reading source with `ast`; nothing is imported, so broken code can be judged too.

A rule is a function from one parsed module to what is wrong with it. RULES names each rule by its promise, PLANTED
holds violations that each rule must find, ALLOWED code that all must leave alone. The floors: design.md section 1.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "sojourn"
API_REFERENCE = ROOT / "docs" / "reference" / "api.md"

# A unit is a folder or module directly under src/sojourn. Floor 0 counts as one folder.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors", "ending", "events", "config", "clock", "typing"),
    ("wire", "policy", "bus"),
    ("net", "scopes", "stores"),
    ("asgi", "routing"),
    ("hub", "tasks", "sessions", "guards", "clients", "sip", "observe"),
    ("server",),
    ("ops", "dashboard", "cli", "testing", "demo"),
)
FLOOR = {unit: floor for floor, units in enumerate(FLOORS) for unit in units}

# The public face and the entry point may name every unit; only the demo, which is an application, imports the face.
FACE = frozenset({"sojourn", "sojourn.__main__"})
USES_FACE = frozenset({"demo"})

CLOCK_HOMES = frozenset({"sojourn.clock", "sojourn.net.ticker"})
TASK_HOMES = frozenset({"sojourn.scopes.work"})
PRINTING_UNITS = frozenset({"cli", "ops", "demo"})

# What makes a pure floor impure: I/O, loops, threads, clocks, chance. secrets and uuid are random by another name.
IMPURE = frozenset(
    "asyncio concurrent logging multiprocessing os random sched secrets select selectors signal socket ssl subprocess "
    "threading time uuid uvloop".split()
)
CLOCK_READS = frozenset(
    "asyncio.sleep asyncio.tasks.sleep time.monotonic time.monotonic_ns time.perf_counter time.perf_counter_ns "
    "time.sleep time.time time.time_ns datetime.date.today datetime.datetime.now datetime.datetime.today "
    "datetime.datetime.utcnow".split()
)

README_UNITS = frozenset("wire policy net scopes stores asgi server testing".split()) | frozenset(FLOORS[4])
README_LINES = 60
SOURCE_LINES = 600


@dataclass(frozen=True)
class Module:
    """One parsed source file."""

    name: str
    is_package: bool
    tree: ast.Module

    @property
    def unit(self) -> str:
        return self.name.removeprefix("sojourn").removeprefix(".").partition(".")[0]

    @property
    def floor(self) -> int | None:
        return FLOOR.get(self.unit)


@dataclass(frozen=True)
class Wrong:
    module: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.module}:{self.line}: {self.what}"


Rule = Callable[[Module], Iterator[Wrong]]


def parse(name: str, source: str, *, is_package: bool = False) -> Module:
    return Module(name, is_package, ast.parse(source))


def load(folder: Path) -> list[Module]:
    """Parse every module below a package folder; an absent folder holds none."""
    modules = []
    for path in sorted(folder.rglob("*.py")):
        parts = [folder.name, *path.relative_to(folder).with_suffix("").parts]
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        modules.append(parse(name, path.read_text(encoding="utf-8"), is_package=is_package))
    return modules


# --- reading source


def import_base(module: Module, node: ast.ImportFrom) -> str:
    """The absolute module that a from-import names."""
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    package = parts[: len(parts) - node.level + (1 if module.is_package else 0)]
    return ".".join([*package, node.module] if node.module else package)


def imports(module: Module, root: ast.AST | None = None) -> Iterator[tuple[int, str, str]]:
    """Yield (line, module, name) for every import at any depth; name is "" for a whole module.

    Imports in functions and under TYPE_CHECKING count: a floor that knows a name from above depends on it.
    """
    for node in ast.walk(root or module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, ""
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node.lineno, import_base(module, node), alias.name
        elif isinstance(node, ast.Call) and last(node.func) in ("import_module", "__import__") and node.args:
            target = node.args[0]
            if isinstance(target, ast.Constant) and isinstance(target.value, str):
                yield node.lineno, target.value, ""


def dotted(node: ast.AST) -> str:
    """`a.b.c` of a name or attribute chain; a call in the chain reads as `f().c`; anything else is `?`."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    if isinstance(node, ast.Call):
        return f"{dotted(node.func)}()"
    return "?"


def last(node: ast.AST) -> str:
    """The final name of a chain: `c` of `a.b.c`."""
    return dotted(node).rpartition(".")[2]


def aliases(module: Module) -> dict[str, str]:
    """Local name -> what it was imported as, so that `from time import monotonic as now` hides nothing."""
    known = {}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                known[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                known[alias.asname or alias.name] = f"{import_base(module, node)}.{alias.name}"
    return known


def references(module: Module) -> Iterator[tuple[int, str, bool]]:
    """Yield (line, dotted name with imports resolved, is called) for every name and attribute that is read."""
    known = aliases(module)
    called = {id(node.func) for node in ast.walk(module.tree) if isinstance(node, ast.Call)}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
            first, dot, rest = dotted(node).partition(".")
            yield node.lineno, known.get(first, first) + dot + rest, id(node) in called


# --- rules


def has_a_floor(module: Module) -> Iterator[Wrong]:
    if module.name not in FACE and module.floor is None:
        yield Wrong(module.name, 1, f"{module.unit!r} has no floor: add it to FLOORS and to design.md section 1")


def looks_down(module: Module) -> Iterator[Wrong]:
    if module.name in FACE or module.floor is None:
        return
    for line, base, name in imports(module):
        top, _, below = base.partition(".")
        if top != "sojourn" or (not below and name.startswith("__")):
            continue
        unit = below.partition(".")[0] or name
        floor = FLOOR.get(unit)
        if unit == module.unit or (not below and floor is None and module.unit in USES_FACE):
            continue
        if floor is None:
            what = f"imports {base}.{name}".rstrip(".")
            yield Wrong(module.name, line, f"{what}: take it from the module that defines it, not from the public face")
        elif floor > module.floor:
            yield Wrong(module.name, line, f"floor {module.floor} imports {unit}, which is on floor {floor}")
        elif floor == module.floor and floor > 0 and not is_message_type(module.unit, unit, base, name):
            yield Wrong(module.name, line, f"imports its sibling {unit}: use a value on floor 0, wired in server/")


def is_message_type(importer: str, unit: str, base: str, name: str) -> bool:
    """The one exception among siblings: policy may take message types, so classes by name, from wire's modules."""
    return importer == "policy" and unit == "wire" and base != "sojourn" and name[:1].isupper() and not name.isupper()


def is_pure(module: Module) -> Iterator[Wrong]:
    if module.floor != 1:
        return
    for line, base, _ in imports(module):
        if base.partition(".")[0] in IMPURE:
            yield Wrong(module.name, line, f"imports {base}: floor 1 gets `now`, bytes and chance as arguments")


def uses_one_clock(module: Module) -> Iterator[Wrong]:
    if module.name in CLOCK_HOMES:
        return
    for line, name, _ in references(module):
        owner, _, attribute = name.rpartition(".")
        loop_time = attribute == "time" and owner.removesuffix("()").lower().endswith("loop")
        if name in CLOCK_READS or loop_time:
            yield Wrong(module.name, line, f"{name}: time and sleep come from a Clock (clock.py)")


def never_wait_for(module: Module) -> Iterator[Wrong]:
    for line, name, _ in references(module):
        if name in ("asyncio.wait_for", "asyncio.tasks.wait_for"):
            yield Wrong(module.name, line, "asyncio.wait_for loses cancellation on 3.11: use asyncio.timeout_at")


def owns_tasks(module: Module) -> Iterator[Wrong]:
    if module.name in TASK_HOMES:
        return
    for line, name, is_called in references(module):
        makes_task = name.rpartition(".")[2] in ("create_task", "ensure_future")
        if makes_task or (is_called and name in ("asyncio.Task", "asyncio.tasks.Task")):
            yield Wrong(module.name, line, f"{name}: only scopes/work.py makes tasks, so that every task has an owner")


def never_prints(module: Module) -> Iterator[Wrong]:
    if module.unit in PRINTING_UNITS:
        return
    for line, name, is_called in references(module):
        if name == "print" and is_called:
            yield Wrong(module.name, line, "print: emit an event or return text; only commands write to the terminal")


def names_what_it_catches(module: Module) -> Iterator[Wrong]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ExceptHandler):
            silent = all(isinstance(step, ast.Pass | ast.Continue) or is_constant(step) for step in node.body)
            if node.type is None:
                yield Wrong(module.name, node.lineno, "bare except: name the types")
            elif silent and is_broad(node.type):
                yield Wrong(module.name, node.lineno, "swallows every exception in silence: name the types")
        elif isinstance(node, ast.Call) and last(node.func) == "suppress" and any(map(is_broad, node.args)):
            yield Wrong(module.name, node.lineno, "suppresses every exception: name the types")


def is_constant(step: ast.stmt) -> bool:
    return isinstance(step, ast.Expr) and isinstance(step.value, ast.Constant)


def is_broad(caught: ast.expr) -> bool:
    types = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    return any(last(kind) in ("Exception", "BaseException") for kind in types)


def stays_in_its_folder(module: Module) -> Iterator[Wrong]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ImportFrom) and node.level > 1:
            yield Wrong(module.name, node.lineno, "relative import above its own folder: write the absolute name")


def is_lazy(module: Module) -> Iterator[Wrong]:
    if module.name != "sojourn":
        return
    if not any(isinstance(node, ast.FunctionDef) and node.name == "__getattr__" for node in module.tree.body):
        yield Wrong(module.name, 1, "has no __getattr__, so every public name is imported at once")
    for statement in module.tree.body:
        type_only = isinstance(statement, ast.If) and dotted(statement.test).endswith("TYPE_CHECKING")
        if type_only or isinstance(statement, ast.FunctionDef | ast.ClassDef):
            continue
        for line, base, name in imports(module, statement):
            top, _, below = base.partition(".")
            vocabulary = top == "sojourn" and FLOOR.get(below.partition(".")[0] or name) == 0
            if not vocabulary and top not in sys.stdlib_module_names:
                yield Wrong(module.name, line, f"imports {base} at once: load it in __getattr__")


RULES: dict[str, Rule] = {
    "every module has a floor": has_a_floor,
    "a module imports its own folder and lower floors only": looks_down,
    "floor 1 is pure": is_pure,
    "time and sleep come from the clock": uses_one_clock,
    "asyncio.wait_for is used nowhere": never_wait_for,
    "only scopes/work.py makes tasks": owns_tasks,
    "only commands print": never_prints,
    "except names its types": names_what_it_catches,
    "relative imports stay in their folder": stays_in_its_folder,
    "importing sojourn loads no heavy part": is_lazy,
}


def public_names(module: Module) -> list[str] | None:
    """`__all__` as written; None when it is absent or computed."""
    for node in module.tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if "__all__" in map(dotted, targets):
                try:
                    return [str(name) for name in ast.literal_eval(node.value)]
                except ValueError:
                    return None
    return None


def documented_names(reference: str) -> list[str]:
    """One `### name` heading per public name; backticks, a `sojourn.` prefix and a signature are decoration."""
    return re.findall(r"^### +`?(?:sojourn\.)?(\w+)", reference, flags=re.MULTILINE)


def folders_with_bad_readme(source: Path) -> list[str]:
    """Folders of protocol or service code whose README.md is missing or longer than a page."""
    wrong = []
    for folder in sorted(path for path in source.rglob("*") if path.is_dir()):
        parts = folder.relative_to(source).parts
        needs_one = parts[0] in README_UNITS and (len(parts) == 1 or (len(parts) == 2 and parts[0] == "wire"))
        if not needs_one or all(path.name == "__init__.py" for path in folder.glob("*.py")):
            continue
        readme = folder / "README.md"
        lines = len(readme.read_text(encoding="utf-8").splitlines()) if readme.exists() else 0
        if not 1 <= lines <= README_LINES:
            problem = f"{lines} lines, at most {README_LINES}" if lines else "missing"
            wrong.append(f"{'/'.join(parts)}/README.md: {problem}")
    return wrong


def long_files(source: Path) -> list[str]:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in sorted(source.rglob("*.py"))}
    return [f"{path.relative_to(source)}: {count} lines" for path, count in lengths.items() if count > SOURCE_LINES]


# --- the promises, held on src/sojourn


@pytest.fixture(scope="module")
def modules() -> list[Module]:
    return load(SOURCE)


@pytest.mark.parametrize("promise", RULES)
def test_in_sojourn(promise: str, modules: list[Module]) -> None:
    wrong = [str(found) for module in modules for found in RULES[promise](module)]
    assert not wrong, f"{promise}:\n" + "\n".join(wrong)


def test_public_names_are_the_documented_ones(modules: list[Module]) -> None:
    for face in (module for module in modules if module.name == "sojourn"):
        names = public_names(face)
        assert names is not None, "sojourn.__all__ must be a literal list of strings"
        assert len(names) == len(set(names)), "sojourn.__all__ names something twice"
        if API_REFERENCE.exists():
            assert sorted(documented_names(API_REFERENCE.read_text(encoding="utf-8"))) == sorted(names)


def test_every_protocol_and_service_folder_has_a_one_page_readme() -> None:
    assert folders_with_bad_readme(SOURCE) == []


def test_no_source_file_is_longer_than_600_lines() -> None:
    assert long_files(SOURCE) == []


# --- the rules can fail: each finds what is planted and leaves allowed code alone

FLOOR_RULE = "a module imports its own folder and lower floors only"
TYPE_ONLY = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    "
IN_FUNCTION = "import importlib\ndef f():\n    return importlib.import_module('sojourn.hub')\n"

PLANTED = {
    "every module has a floor": [("sojourn.helpers", "")],
    FLOOR_RULE: [
        ("sojourn.errors", "from sojourn.wire import http1"),
        ("sojourn.wire.http1", "import sojourn.net.connection"),
        ("sojourn.wire.http1", "from sojourn import net"),
        ("sojourn.wire.http1", "from sojourn.policy import wheel"),
        ("sojourn.policy.drain", "from sojourn.wire import http1"),
        ("sojourn.policy.drain", "import sojourn.wire.http1"),
        ("sojourn.policy.drain", "from sojourn.wire.sse import encode"),
        ("sojourn.wire.http1", "from sojourn.bus import Bus"),
        ("sojourn.net.outbox", "from ..scopes import work"),
        ("sojourn.net.outbox", "import sojourn"),
        ("sojourn.net.outbox", "from sojourn import Hub"),
        ("sojourn.net.outbox", TYPE_ONLY + "from sojourn.server.server import Server"),
        ("sojourn.net.outbox", IN_FUNCTION),
        ("sojourn.hub.hub", "from sojourn.tasks.store import Store"),
        ("sojourn.server.workers.worker", "from sojourn.cli import main"),
    ],
    "floor 1 is pure": [
        ("sojourn.wire.http1", "import asyncio"),
        ("sojourn.wire.sip.message", "from os import urandom"),
        ("sojourn.policy.retry", "def f():\n    import random"),
    ],
    "time and sleep come from the clock": [
        ("sojourn.net.outbox", "import time\nnow = time.monotonic()"),
        ("sojourn.observe.log", "from time import time as stamp\nstamp()"),
        ("sojourn.hub.hub", "import asyncio as aio\nasync def f(): await aio.sleep(1)"),
        ("sojourn.net.outbox", "def f(self): return self._loop.time()"),
        ("sojourn.net.outbox", "import asyncio\nnow = asyncio.get_running_loop().time()"),
        ("sojourn.net.outbox", "def f(loop): return loop.time"),
        ("sojourn.ops.top", "from datetime import datetime\nnow = datetime.now()"),
    ],
    "asyncio.wait_for is used nowhere": [
        ("sojourn.scopes.deadline", "import asyncio\nf = asyncio.wait_for"),
        ("sojourn.testing.clients", "from asyncio import wait_for\nwait_for(1, 2)"),
    ],
    "only scopes/work.py makes tasks": [
        ("sojourn.hub.hub", "import asyncio\nasyncio.create_task(f())"),
        ("sojourn.hub.hub", "def f(loop, g): loop.create_task(g())"),
        ("sojourn.hub.hub", "import asyncio\nasyncio.get_running_loop().create_task(f())"),
        ("sojourn.hub.hub", "from asyncio import ensure_future as go\ngo(f())"),
        ("sojourn.scopes.deadline", "import asyncio\nasyncio.Task(f())"),
    ],
    "only commands print": [("sojourn.server.workers.worker", "print('started')")],
    "except names its types": [
        ("sojourn.net.outbox", "try:\n    f()\nexcept:\n    raise"),
        ("sojourn.net.outbox", "try:\n    f()\nexcept Exception:\n    pass"),
        ("sojourn.net.outbox", "try:\n    f()\nexcept (OSError, BaseException) as error:\n    ..."),
        ("sojourn.net.outbox", "import contextlib\nwith contextlib.suppress(Exception): f()"),
    ],
    "relative imports stay in their folder": [("sojourn.wire.sip.message", "from ..http1 import Request")],
    "importing sojourn loads no heavy part": [
        ("sojourn", "__all__ = []"),
        ("sojourn", "from .hub import Hub\ndef __getattr__(name): ..."),
        ("sojourn", "import uvloop\ndef __getattr__(name): ..."),
    ],
}

ALLOWED = [
    ("sojourn.ending", "from sojourn.errors import SojournError"),
    ("sojourn.wire.http1", "import httptools\nfrom sojourn.errors import SojournError\nfrom . import deflate"),
    ("sojourn.policy.drain", "from sojourn.wire.http1 import Request\nfrom sojourn.policy.wheel import Wheel"),
    ("sojourn.policy.rate", "def allow(time: float, loop: str) -> float:\n    return time"),
    ("sojourn.net.connection", "import asyncio, socket\nfrom sojourn.wire import http1\nfrom sojourn import errors"),
    ("sojourn.net.ticker", "def f(loop): return loop.time()"),
    ("sojourn.clock", "import asyncio, time\nx = time.monotonic()\nasync def f(): await asyncio.sleep(x)"),
    ("sojourn.scopes.work", "import asyncio\ndef f(loop, g): return asyncio.Task(g(), loop=loop)"),
    ("sojourn.scopes.deadline", "import asyncio\ndef f(task: asyncio.Task[None], clock): return clock.time()"),
    ("sojourn.hub.hub", "import asyncio\nasync def f(c): await c.wait_for(lambda: True)"),
    ("sojourn.net.outbox", "try:\n    f()\nexcept OSError:\n    pass\nexcept Exception as error:\n    end(error)"),
    ("sojourn.cli.main", "from sojourn import __version__\nprint(__version__)"),
    ("sojourn.demo.app", "from sojourn import Hub\nimport sojourn.server.server"),
    ("sojourn.__main__", "from sojourn.cli.main import main\nmain()"),
    ("sojourn", "from sojourn.errors import SojournError\ndef __getattr__(name):\n    from sojourn.hub import Hub"),
    ("sojourn", "def __getattr__(name): ...\n" + TYPE_ONLY + "from sojourn.hub import Hub"),
]


def planted_module(name: str, source: str) -> Module:
    return parse(name, source, is_package=name == "sojourn")


@pytest.mark.parametrize(
    ("promise", "name", "source"), [(promise, *case) for promise, cases in PLANTED.items() for case in cases]
)
def test_a_planted_violation_is_found(promise: str, name: str, source: str) -> None:
    found = list(RULES[promise](planted_module(name, source)))
    assert found
    assert found[0].module == name


@pytest.mark.parametrize(("name", "source"), ALLOWED)
def test_allowed_code_breaks_no_rule(name: str, source: str) -> None:
    assert [str(found) for rule in RULES.values() for found in rule(planted_module(name, source))] == []


def test_every_rule_has_a_planted_violation() -> None:
    assert set(PLANTED) == set(RULES)


def test_every_module_of_a_tree_is_read(tmp_path: Path) -> None:
    package = tmp_path / "sojourn"
    (package / "wire" / "sip").mkdir(parents=True)
    for path in ("__init__.py", "clock.py", "wire/__init__.py", "wire/sip/uri.py"):
        (package / path).write_text("from . import x")
    read = {module.name: list(imports(module)) for module in load(package)}
    assert read == {
        "sojourn": [(1, "sojourn", "x")],
        "sojourn.clock": [(1, "sojourn", "x")],
        "sojourn.wire": [(1, "sojourn.wire", "x")],
        "sojourn.wire.sip.uri": [(1, "sojourn.wire.sip", "x")],
    }
    assert load(tmp_path / "absent") == []


def test_public_and_documented_names_are_read_as_written() -> None:
    assert public_names(parse("sojourn", "__all__: list[str] = ['Hub', 'Server']")) == ["Hub", "Server"]
    assert public_names(parse("sojourn", "__all__ = sorted(_LAZY)")) is None
    assert documented_names("# API\n## Hub\n### `Hub`\ntext\n### sojourn.Server(app)\n#### no\n") == ["Hub", "Server"]


def test_a_missing_or_long_readme_is_found(tmp_path: Path) -> None:
    for folder in ("wire/sip", "net", "hub", "cli", "asgi"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "__init__.py").touch()
        if folder != "asgi":  # a folder that holds no code yet needs no README
            (tmp_path / folder / "code.py").touch()
    (tmp_path / "net" / "README.md").write_text("line\n" * (README_LINES + 1))
    (tmp_path / "hub" / "README.md").write_text("line\n" * README_LINES)
    assert folders_with_bad_readme(tmp_path) == [
        f"net/README.md: {README_LINES + 1} lines, at most {README_LINES}",
        "wire/sip/README.md: missing",
    ]


def test_a_long_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "long.py").write_text("x = 1\n" * (SOURCE_LINES + 1))
    (tmp_path / "fits.py").write_text("x = 1\n" * SOURCE_LINES)
    assert long_files(tmp_path) == [f"long.py: {SOURCE_LINES + 1} lines"]
