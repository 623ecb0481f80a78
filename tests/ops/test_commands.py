"""The commands that ask a running server, against a stand-in for its admin listener."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sojourn.cli.main import COMMANDS
from tests.ops.fake import Fake, Run, connection, leak, leaks, problem, setting, status, task, worker


def listed(name: str, *rows: dict[str, Any], **workers: str) -> dict[str, Any]:
    return {name: list(rows), "workers": {"1": "ok"} | {key[1:]: text for key, text in workers.items()}}


# -- What all have in common


def test_nobody_there_is_one_line_and_exit_code_1(run: Run, tmp_path: Path) -> None:
    code, out, err = run("ps", "--admin", f"unix:{tmp_path}/gone")
    assert (code, out) == (1, [])
    assert err == f"error: nobody answers at unix:{tmp_path}/gone: No such file or directory\n"


def test_a_refusal_is_one_line_and_exit_code_1(run: Run, fake: Fake) -> None:
    fake.says("/drain", problem(401, "unauthorized", "send the token"), method="POST", status=401)
    assert run("drain") == (1, [], f"error: {fake.place} refused: send the token\n")


@pytest.mark.parametrize(
    ("arguments", "document"),
    [
        (["status"], status()),
        (["ps"], listed("connections", connection())),
        (["tasks"], listed("tasks", task())),
        (["stacks"], listed("stacks", {"worker": 1, "text": "Thread 1"})),
        (["leaks"], leaks(leak())),
        (["config", "--running"], {"version": 3, "settings": [setting("log.level", "info")]}),
    ],
)
def test_json_is_what_the_server_said(run: Run, fake: Fake, arguments: list[str], document: dict[str, Any]) -> None:
    path = {"ps": "/connections", "config": "/config"}.get(arguments[0], f"/{arguments[0]}")
    fake.says(path, document)
    code, out, err = run(*arguments, "--json")
    assert (code, err) == (0, "")
    assert json.loads("\n".join(out)) == document


def test_a_worker_that_did_not_answer_is_named(run: Run, fake: Fake) -> None:
    fake.says("/connections", listed("connections", connection(), w2="there was no answer within 5 s"))
    code, out, err = run("ps")
    assert (code, len(out)) == (0, 2)
    assert err == "warning: worker 2: there was no answer within 5 s\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(run: Run, name: str) -> None:
    code, out, _ = run(*name.split(), "--help")
    assert code == 0
    assert out[0].startswith(f"Usage: sojourn {name}")


# -- status


def test_the_status_tells_of_workers_and_of_a_drain(run: Run, fake: Fake) -> None:
    assert run("status")[0] == 0
    drain = {"instance": "w", "phase": "finish", "left": 71.4, "requests": 1, "streams": 12, "sockets": 0, "idle": 0}
    hung = worker(2, beat_age=8.0)
    fake.says("/status", status(state="draining", ready=False, workers=[worker(1), hung], countdown=drain))
    code, out, _ = run("status")
    assert code == 1
    assert out[0] == "web-1:8000  draining, not ready  (sojourn 0.1.0, pid 4000)"
    assert out[1] == "drain: finish, 71 s left; 1 request, 12 streams open"
    assert [line.split()[:5] for line in out[4:]] == [
        ["1", "4001", "ready", "60", "min"],
        ["2", "4002", "ready", "60", "min"],
    ]
    assert "8.0 s ago" in out[5]


def test_what_went_wrong_with_the_last_upgrade_is_said(run: Run, fake: Fake) -> None:
    fake.says("/status", status(problem="the new code\ndoes not start", changing=True))
    assert run("status")[1][1:3] == [
        "a rolling restart or an upgrade is under way",
        "problem: the new code\\ndoes not start",
    ]


# -- ps


def test_a_connection_is_shown_with_what_would_end_it(run: Run, fake: Fake) -> None:
    fake.says("/connections", listed("connections", connection(suspicious="takes nothing of what waits for it")))
    _, out, _ = run("ps")
    assert out[1].split("  ")[0] == "1-17"
    for part in ("192.0.2.7:50123", "GET /items/17", "75 s", "1.2 MiB", "response_start in 58 s", "takes nothing"):
        assert part in out[1], part


def test_filters_are_the_servers_and_the_limit_is_of_the_order_that_was_asked_for(run: Run, fake: Fake) -> None:
    rows = [connection(1, idle=5.0), connection(2, idle=9.0), connection(3, idle=7.0)]
    fake.says("/connections", listed("connections", *rows))
    filters = [
        "--older",
        "60",
        "--idle",
        "2.5",
        "--slow",
        "--suspicious",
        "--route",
        "/a",
        "--peer",
        "::1",
        "--worker",
        "2",
    ]
    _, out, err = run("ps", *filters, "--sort", "idle", "--limit", "2")
    assert [line.split()[0] for line in out] == ["ID", "1-2", "1-3"]
    assert err == "1 more\n"
    assert fake.asked[0].query == {
        "older": "60.0",
        "idle": "2.5",
        "slow": "1",
        "suspicious": "1",
        "route": "/a",
        "peer": "::1",
        "worker": "2",
    }


def test_no_connection_is_said_on_standard_error(run: Run, fake: Fake) -> None:
    fake.says("/connections", listed("connections"))
    assert run("ps") == (0, [], "no connection\n")
    assert run("ps", "--slow") == (0, [], "no such connection\n")


def test_a_path_of_a_stranger_can_not_drive_the_terminal(run: Run, fake: Fake) -> None:
    fake.says("/connections", listed("connections", connection(path="/\x1b[31m")))
    assert "GET /\\x1b[31m" in run("ps")[1][1]


# -- tasks


def test_tasks_are_listed_oldest_first_with_their_stacks(run: Run, fake: Fake) -> None:
    fake.says("/tasks", listed("tasks", task(5, age=1.0), task(6, age=9.0)))
    _, out, _ = run("tasks", "--stacks", "--owner", "application", "--older", "0.5")
    assert [line.split()[0] for line in out] == ["TASK", "1-6", "/srv/web.py:20", "1-5", "/srv/web.py:20"]
    assert "waits for sleep" in out[1]
    assert fake.asked[0].query == {"stacks": "1", "owner": "application", "older": "0.5"}


def test_the_tree_shows_who_awaits_whom(run: Run, fake: Fake) -> None:
    rows = [
        task(1, coroutine="main", owner="request", waits_for="gather", age=9.0),
        task(2, parent=1, age=8.0),
        task(3, parent=1, name="loader", age=7.0),
        task(4, parent=2, age=6.0),
        task(9, worker=2, owner="server", parent=77, waits_for="", waiting="", state="ready"),
    ]
    fake.says("/tasks", listed("tasks", *rows))
    _, out, _ = run("tasks", "--tree")
    assert [line.partition(",")[0] for line in out] == [
        "worker 1",
        "  task 1 main",
        "  ├─ task 2 poll",
        "  │  └─ task 4 poll",
        "  └─ task 3 'loader' poll",
        "worker 2",
        "  task 9 poll",
    ]
    assert out[0] == "worker 1, request"
    assert out[1] == "  task 1 main, 9.0 s, waits for gather at /srv/web.py:20 in poll"
    assert out[6] == "  task 9 poll, 30 s, ready"


def test_tasks_that_wait_for_each_other_are_shown_once(run: Run, fake: Fake) -> None:
    fake.says("/tasks", listed("tasks", task(1, parent=2), task(2, parent=1)))
    _, out, _ = run("tasks", "--tree")
    assert out[0] == "worker 1, tasks that wait for each other"
    assert [line.split(",")[0] for line in out[1:]] == ["  task 1 poll", "  └─ task 2 poll", "     └─ task 1"]


def test_a_chain_of_thousands_is_no_recursion_error(run: Run, fake: Fake) -> None:
    fake.says("/tasks", listed("tasks", *(task(n, parent=n - 1 if n else None) for n in range(3000))))
    assert len(run("tasks", "--tree")[1]) == 3001


def test_groups_are_counted_by_where_tasks_were_made_and_wait(run: Run, fake: Fake) -> None:
    rows = [*(task(n, age=float(n)) for n in range(1, 4)), task(8, coroutine="other", age=500.0)]
    fake.says("/tasks", listed("tasks", *rows))
    _, out, _ = run("tasks", "--group")
    assert out[1].split()[:6] == ["3", "3.0", "s", "2.0", "s", "poll"]
    assert out[2].split()[:2] == ["1", "8"]


def test_a_task_whose_birth_nobody_noted_counts_as_the_oldest(run: Run, fake: Fake) -> None:
    fake.says("/tasks", listed("tasks", task(5, age=9.0), task(6, age=None, created=""), task(7, age=None, created="")))
    assert [line.split()[:2] for line in run("tasks")[1][1:]] == [["1-6", "-"], ["1-7", "-"], ["1-5", "9.0"]]
    assert [line.split()[:3] for line in run("tasks", "--group")[1][1:]] == [["2", "-", "-"], ["1", "9.0", "s"]]
    assert len(run("tasks", "--tree")[1]) == 4


def test_seconds_that_are_left_do_not_split_a_group(run: Run, fake: Fake) -> None:
    fake.says("/tasks", listed("tasks", task(5, waits_for="sleep 3.5 s left"), task(6, waits_for="sleep 60 s left")))
    (_, line) = run("tasks", "--group")[1]
    assert line.split()[5:7] == ["poll", "sleep"]


def test_a_task_that_outlived_its_owner_is_marked(run: Run, fake: Fake) -> None:
    fake.says("/tasks", listed("tasks", task(retained=True)))
    assert "waits for sleep, outlived its owner" in run("tasks")[1][1]


# -- stacks, leaks, metrics


def test_stacks_are_printed_for_each_worker(run: Run, fake: Fake) -> None:
    found = [{"worker": 1, "text": "Thread 1\n  File x\n"}, {"worker": 2, "text": ""}]
    fake.says("/stacks", listed("stacks", *found))
    assert run("stacks", "--worker", "1")[1] == ["worker 1", "Thread 1", "  File x", "", "worker 2", "it did not say"]
    assert fake.asked[0].query == {"worker": "1"}


def test_a_leak_is_named_with_file_and_line(run: Run, fake: Fake) -> None:
    fake.says("/leaks", leaks(leak(), leak(kind="connection", holder="web.CACHE -> dict", stack=[])))
    code, out, _ = run("leaks", "--stacks")
    assert code == 0
    assert "/srv/web.py:31 in handler" in out[1]
    assert out[2] == "    /srv/web.py:40 in refresh"
    assert "web.CACHE -> dict" in out[3]


def test_scripts_can_fail_on_a_leak(run: Run, fake: Fake) -> None:
    fake.says("/leaks", leaks(leak()))
    assert run("leaks", "--fail-on-leak")[0] == 9
    fake.says("/leaks", leaks())
    assert run("leaks", "--fail-on-leak") == (0, [], "no leak\n")


def test_a_lease_that_is_overdue_is_listed_and_is_a_leak_when_its_request_has_ended(run: Run, fake: Fake) -> None:
    lease = {"worker": 1, "pool": "pg", "seconds": 61.0, "owner": "connection 4 GET /", "created": "/srv/web.py:9 in f"}
    lease |= {"leaked": False, "stack": [["f", "/srv/web.py", 9]]}
    fake.says("/leaks", leaks(overdue=(lease,)))
    code, out, err = run("leaks", "--fail-on-leak", "--stacks")
    assert (code, err) == (0, "no leak\n")
    assert out[0] == "held for longer than they should be:"
    assert out[2].startswith("pg    61 s  /srv/web.py:9 in f  connection 4 GET /  overdue")
    assert out[3] == "    /srv/web.py:9 in f"
    fake.says("/leaks", leaks(overdue=(lease | {"leaked": True},)))
    assert run("leaks", "--fail-on-leak")[0] == 9


def test_what_grows_without_a_name_is_told(run: Run, fake: Fake) -> None:
    growth = [{"what": "memory", "before": 1 << 27, "now": 1 << 28, "slope": 0.01}]
    descriptors = {"open": 900, "limit": 1024, "unexplained": 700, "noting": True}
    fake.says("/leaks", leaks(growth=growth, descriptors=descriptors))
    assert run("leaks")[1] == [
        "worker 1: memory from 128 MiB to 256 MiB in two and a half hours, while the load did not grow",
        "worker 1: 700 of 900 descriptors belong to nothing the server knows, and rise",
    ]


def test_metrics_are_the_page_or_a_part_of_it(run: Run, fake: Fake) -> None:
    fake.shows("/metrics", '# HELP a_total All.\n# TYPE a_total counter\na_total 1\n# TYPE b gauge\nb{x="y"} +Inf\n')
    lines = ["# HELP a_total All.", "# TYPE a_total counter", "a_total 1", "# TYPE b gauge", 'b{x="y"} +Inf']
    assert run("metrics")[1] == lines
    assert run("metrics", "a_")[1] == lines[:3]
    assert json.loads("\n".join(run("metrics", "b", "--json")[1])) == [
        {"name": "b", "labels": {"x": "y"}, "value": None}
    ]


# -- commands


def test_a_connection_is_ended_by_its_name(run: Run, fake: Fake) -> None:
    fake.says("/connections/1-17/close", {"id": 17, "how": "a close frame was sent"}, method="POST")
    assert run("close", "1-17") == (0, ["connection 1-17: a close frame was sent"], "")
    assert run("close", "1-17", "--now", "--code", "4000")[0] == 0
    assert [asked.query for asked in fake.asked] == [{}, {"now": "1", "code": "4000"}]


def test_what_is_no_connection_is_not_sent(run: Run, fake: Fake) -> None:
    code, _, err = run("close", "1-17", "../drain")
    assert code == 2
    assert "'../drain' is no connection" in err
    assert fake.asked == []


def test_those_before_a_refusal_are_told(run: Run, fake: Fake) -> None:
    fake.says("/connections/1-1/close", {"id": 1, "how": "ended"}, method="POST")
    gone = problem(404, "no_such_connection", "connection 2 is not open")
    fake.says("/connections/1-2/close", gone, method="POST", status=404)
    code, out, err = run("close", "1-1", "1-2")
    assert (code, out) == (1, ["connection 1-1: ended"])
    assert err.endswith("refused: connection 2 is not open\n")


@pytest.mark.parametrize(("name", "said"), [("drain", "drains"), ("restart", "restarts its workers one by one")])
def test_a_command_is_sent_and_confirmed(run: Run, fake: Fake, name: str, said: str) -> None:
    fake.says(f"/{name}", {"command": name, "instance": "web-1:8000"}, method="POST", status=202)
    assert run(name) == (0, [f"web-1:8000 {said}"], "")


def test_the_level_of_the_log_is_shown_and_changed(run: Run, fake: Fake) -> None:
    fake.says("/config", {"version": 1, "settings": [setting("log.level", "info")]})
    fake.says("/log-level", {"version": 2}, method="POST")
    assert run("log-level")[1] == ["info"]
    assert run("log-level", "debug")[1] == ["the log's level is debug"]
    assert fake.asked[-1].body == {"level": "debug"}
    assert run("log-level", "loud")[0] == 2


# -- settings


def test_the_settings_in_force_are_shown_with_their_origin(run: Run, fake: Fake) -> None:
    rows = [setting("log.level", "debug", origin="version 2 by uid 0"), setting("timeouts.header", 10.0, text="10 s")]
    fake.says("/config", {"version": 2, "settings": rows})
    _, out, err = run("config", "--running", "header")
    assert out[1].split() == ["timeouts.header", "10", "s", "default", "live"]
    assert err == "version 2\n"
    assert len(run("config", "--running")[1]) == 3


def test_settings_are_changed_together(run: Run, fake: Fake) -> None:
    changes = {"timeouts.header": [10.0, 5.0], "timeouts.handler": ["none", 30.0]}
    answer = {"version": 2, "changes": changes, "live": ["timeouts.handler"], "new": ["timeouts.header"]}
    fake.says("/config", answer | {"warnings": ["timeouts.handler is long"]}, method="POST")
    code, out, err = run("config", "set", "timeouts.header=5s", "timeouts.handler=30")
    assert code == 0
    assert out == ["timeouts.header: 10 s -> 5 s, for new connections", "timeouts.handler: none -> 30 s, now"]
    assert err == "warning: timeouts.handler is long\nversion 2\n"
    assert fake.asked[0].body == {"timeouts.header": "5s", "timeouts.handler": "30"}


def test_a_setting_may_have_an_equals_sign_in_its_value(run: Run, fake: Fake) -> None:
    answer = {"version": 1, "changes": {}, "live": [], "new": [], "warnings": []}
    fake.says("/config", answer, method="POST")
    assert run("config", "set", "app.root_path=/a=b") == (0, [], "nothing changed\n")
    assert fake.asked[0].body == {"app.root_path": "/a=b"}


@pytest.mark.parametrize("given", [["timeouts.header"], ["=5"], ["a=1", "a=2"], []])
def test_what_is_no_setting_is_not_sent(run: Run, fake: Fake, given: list[str]) -> None:
    assert run("config", "set", *given)[0] == 2
    assert fake.asked == []
