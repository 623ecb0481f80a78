"""Which services of durable tasks there are in a context."""

from __future__ import annotations

from contextvars import copy_context
from typing import cast

from sojourn.bus import Bus
from sojourn.scopes.journals import JOURNALS, Journals, Shown, met


class Service:
    name = "tasks"


def service() -> Shown:
    return cast(Shown, Service())


def test_a_service_is_known_to_the_server_in_whose_context_it_is_used() -> None:
    journals, used, context = Journals(Bus()), service(), copy_context()
    context.run(JOURNALS.set, journals)
    assert context.run(met, used) is journals
    assert context.run(met, used) is journals
    assert list(journals) == [used]
    journals.leave(used)
    journals.leave(used)
    assert len(journals) == 0


def test_without_a_server_nobody_is_told() -> None:
    assert copy_context().run(met, service()) is None
