"""Commands: what a signal could do as well, and what can hurt who is connected. Each is recorded first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec

from sojourn.asgi.probes import Answer
from sojourn.errors import ErrandError
from sojourn.server.admin.answers import Kind, Question, Route, json
from sojourn.server.admin.audit import Audit
from sojourn.server.admin.gather import ask_all
from sojourn.server.admin.guard import asker
from sojourn.server.reconfigure import plan

__all__ = ["Commands"]

_CLOSE: Final[dict[str, Kind]] = {"code": "number", "now": "flag"}
_MEMBERS: Final[dict[str, Kind]] = {"user": "text", "member": "text", "name": "text", "code": "number"}
#: Seconds that a worker has to end a connection.
_SECONDS: Final = 5.0


class Commands:
    """What is done with POST.

    Args:
        audit: Where it is recorded.
    """

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self.routes: tuple[Route, ...] = (
            Route("/drain", self._drain, "end everything cleanly, as SIGTERM does", method="POST"),
            Route("/restart", self._restart, "replace the workers one by one, as SIGHUP does", method="POST"),
            Route("/upgrade", self._upgrade, "replace the supervisor too, as SIGUSR2 does", method="POST"),
            Route("/log-level", self._log_level, 'change log.level: {"level": "debug"}', method="POST"),
            Route("/config", self._configure, 'change settings: {"timeouts.header": 5}', {}, "POST", action=True),
            Route("/connections/{n}-{n}/close", self._close, "end a connection", _CLOSE, "POST", action=True),
            Route("/hub/disconnect", self._disconnect, "end members of hubs", _MEMBERS, "POST", action=True),
        )

    async def _drain(self, question: Question) -> Answer:
        return await self._signal(question, question.fleet.drain)

    async def _restart(self, question: Question) -> Answer:
        return await self._signal(question, question.fleet.restart)

    async def _upgrade(self, question: Question) -> Answer:
        return await self._signal(question, question.fleet.upgrade)

    async def _signal(self, question: Question, act: Callable[[], None]) -> Answer:
        command = question.scope["path"][1:]
        status = question.fleet.status()

        async def do() -> dict[str, Any]:
            if status.state == "draining" and command != "drain":
                raise ErrandError(409, "draining", "everything is about to end")
            act()
            return {"command": command, "instance": status.instance}

        return json(question, await self.recorded(question, command, {}, do), 202)

    async def _log_level(self, question: Question) -> Answer:
        document = question.document()
        if set(document) != {"level"}:
            raise ErrandError(400, "bad_body", 'write {"level": "debug"}, or another level')
        return await self._change(question, "log-level", {"log.level": document["level"]})

    async def _configure(self, question: Question) -> Answer:
        changes = question.document()
        if not changes:
            raise ErrandError(400, "bad_body", 'write keys with their new values: {"timeouts.header": 5}')
        return await self._change(question, "config", changes)

    async def _change(self, question: Question, what: str, changes: Mapping[str, Any]) -> Answer:
        planned = plan(question.fleet.config().config, changes)
        facts = {"changes": planned.changes} if not planned.refused else {"keys": sorted(changes)}

        async def do() -> Any:
            planned.check()
            return await question.fleet.configure(changes, asker(question.scope))

        return json(question, msgspec.to_builtins(await self.recorded(question, what, facts, do)))

    async def _close(self, question: Question) -> Answer:
        worker, connection = map(int, question.named)
        arguments = {**question.arguments, **(question.document() if question.body else {}), "id": connection}

        async def do() -> Any:
            return msgspec.msgpack.decode(await question.fleet.ask(worker, "close", arguments, _SECONDS))

        facts = {"connection": f"{worker}-{connection}", "arguments": arguments}
        return json(question, await self.recorded(question, "close", facts, do))

    async def _disconnect(self, question: Question) -> Answer:
        arguments = {**question.arguments, **(question.document() if question.body else {})}

        async def do() -> Any:
            found = await ask_all(question, "hub_disconnect", arguments, _SECONDS)
            ended = sum(msgspec.msgpack.decode(answer)["ended"] for answer in found.answers.values())
            return {"ended": ended, "workers": found.workers}

        return json(question, await self.recorded(question, "hub-disconnect", {"arguments": arguments}, do))

    async def recorded(
        self, question: Question, what: str, facts: Mapping[str, Any], do: Callable[[], Awaitable[Any]]
    ) -> Any:
        """Do something, with a line about it written before and completed after.

        Args:
            question: Who wants it.
            what: What the line calls it.
            facts: What the line says of it.
            do: Does it.

        Raises:
            ErrandError: It can't be done, or the line can't be written.
        """
        entry = self._audit.begin(asker(question.scope), what, facts)
        result = "failed"
        try:
            done = await do()
            result = "ok"
        except ErrandError as error:
            result = f"{error.reason}: {error.detail}"
            raise
        finally:
            entry.end(result)
        return done
