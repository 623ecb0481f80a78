"""Tasks as text: what somebody reads who has nothing but a terminal."""

from __future__ import annotations

from sojourn.observe.profiles.model import Frame
from sojourn.observe.tasks.describer import TaskInfo
from sojourn.observe.tasks.dump import dump

POLLER = TaskInfo(
    id=18,
    name="Task-18",
    coroutine="poll",
    created="/srv/app/main.py:12 in handle",
    age=185.0,
    owner="connection 12 GET /slow",
    connection=12,
    route="/slow",
    state="waiting",
    waiting="/srv/app/feed.py:31 in poll",
    waits_for="sleep 3.2 s left",
    parent=17,
    retained=True,
    stack=[Frame("sleep", "/usr/lib/python3.11/asyncio/tasks.py", 639), Frame("poll", "/srv/app/feed.py", 31)],
)


def test_a_task_is_told_with_all_that_is_known_of_it() -> None:
    assert dump([("2", POLLER)]) == (
        'task 18 "Task-18" [sleep 3.2 s left, 3 minutes]:\n'
        "# worker 2, connection 12 GET /slow which has ended (route /slow)\n"
        "sleep\n"
        "\t/usr/lib/python3.11/asyncio/tasks.py:639\n"
        "poll\n"
        "\t/srv/app/feed.py:31\n"
        "awaited by task 17\n"
        "created by /srv/app/main.py:12 in handle\n"
    )


def test_what_is_not_known_is_left_out() -> None:
    bare = POLLER._replace(
        created="", age=None, route="", parent=None, retained=False, stack=[], state="ready", waits_for=""
    )
    assert dump([("", bare)]) == (
        'task 18 "Task-18" [ready]:\n# connection 12 GET /slow\npoll (not begun, or not Python)\n'
    )


def test_a_task_that_is_asked_to_end_says_so() -> None:
    assert "[Event, cancelling, 0.4 s]" in dump([("", POLLER._replace(state="cancelling", waits_for="Event", age=0.4))])


def test_an_empty_line_is_between_two_tasks() -> None:
    assert dump([("1", POLLER), ("1", POLLER)]).count("\n\ntask 18") == 1
