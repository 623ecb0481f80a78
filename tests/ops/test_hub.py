"""``sojourn hub``: what it shows of the hubs of all workers, and how members are ended."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.ops.fake import Fake, Run, problem


def member(name: str = "m7", **more: Any) -> dict[str, Any]:
    plain = {
        "member": name,
        "user": "ada",
        "peer": "192.0.2.7:50123",
        "transport": "direct",
        "state": "normal",
        "channels": 2,
        "messages": 57,
        "bytes": 1_234_567,
        "waits": 4.25,
    }
    return plain | more


def shown(worker: int = 1, **more: Any) -> dict[str, Any]:
    plain = {
        "worker": worker,
        "name": "hub",
        "engine": "redis",
        "away": None,
        "lag": 0.0012,
        "members": {"direct": 1200, "websocket": 0, "sse": 34, "poll": 0},
        "users": 1100,
        "suspect": 3,
        "slow": 0,
        "channels": 5,
        "present": 20,
        "buffered": 0,
        "largest": [{"channel": "chat:1", "members": 700, "position": "k3f9.1041"}],
        "waiting": [],
    }
    return plain | more


def answer(*hubs: dict[str, Any], **workers: str) -> dict[str, Any]:
    return {"hubs": list(hubs), "workers": {"1": "ok"} | {key[1:]: text for key, text in workers.items()}}


def test_a_row_for_each_worker_and_the_channels_of_all_together(run: Run, fake: Fake) -> None:
    more = [{"channel": "price:A", "members": 9, "position": ""}]
    channels = [{"channel": "chat:1", "members": 600, "position": "k3f9.987"}, *more]
    fake.says("/hub", answer(shown(2, largest=channels), shown(1)))
    code, out, err = run("hub")
    assert (code, err) == (0, "")
    assert [line.split()[:3] for line in out[1:3]] == [["hub", "1", "1,234"], ["hub", "2", "1,234"]]
    for part in ("1,200 direct, 34 sse", "redis", "1 ms"):
        assert part in out[1]
    assert [line.split() for line in out[5:]] == [["chat:1", "1,300", "hub", "k3f9.1041"], ["price:A", "9", "hub"]]


def test_slow_members_are_named_with_what_waits_for_them_the_worst_first(run: Run, fake: Fake) -> None:
    fake.says("/hub", answer(shown(1, slow=2, waiting=[member("m1", bytes=5), member("m2")], largest=[])))
    _, out, _ = run("hub", "--limit", "5")
    assert [line.split()[0] for line in out[3:]] == ["MEMBER", "m2", "m1"]
    for part in ("ada", "192.0.2.7:50123", "57", "1.2 MiB", "4.2 s"):
        assert part in out[4], part
    assert fake.asked[0].query == {"limit": "5"}


def test_an_engine_that_is_away_is_said(run: Run, fake: Fake) -> None:
    fake.says("/hub", answer(shown(away=75.0)))
    assert "redis, away for 75 s" in run("hub", "--name", "hub", "--worker", "1")[1][1]
    assert fake.asked[0].query == {"name": "hub", "worker": "1", "limit": "20"}


def test_no_hub_is_said_and_a_silent_worker_is_named(run: Run, fake: Fake) -> None:
    fake.says("/hub", answer(_2="there was no answer within 5 s"))
    assert run("hub") == (0, [], "no hub\nwarning: worker 2: there was no answer within 5 s\n")


def test_json_is_what_the_server_said(run: Run, fake: Fake) -> None:
    fake.says("/hub", document := answer(shown()))
    assert json.loads("\n".join(run("hub", "--json")[1])) == document


def test_a_name_of_a_stranger_can_not_drive_the_terminal(run: Run, fake: Fake) -> None:
    fake.says("/hub", answer(shown(waiting=[member(user="\x1b[2Jada")])))
    assert "\x1b" not in "".join(run("hub")[1])


@pytest.mark.parametrize(
    ("ended", "said"), [(0, "0 members ended"), (1, "1 member ended"), (1234, "1,234 members ended")]
)
def test_members_of_a_user_are_ended(run: Run, fake: Fake, ended: int, said: str) -> None:
    fake.says("/hub/disconnect", {"ended": ended, "workers": {"1": "ok"}}, method="POST")
    assert run("hub", "disconnect", "--user", "ada", "--code", "4000") == (0, [said], "")
    assert fake.asked[0].query == {"user": "ada", "code": "4000"}


def test_nobody_is_ended_when_nobody_is_named(run: Run, fake: Fake) -> None:
    code, out, err = run("hub", "disconnect")
    assert (code, out) == (2, [])
    assert "--user USER or --member ID" in err
    assert fake.asked == []


def test_a_refusal_is_said(run: Run, fake: Fake) -> None:
    fake.says("/hub/disconnect", problem(403, "actions_off", "admin.actions is off"), method="POST", status=403)
    assert run("hub", "disconnect", "--member", "m7")[0] == 1
