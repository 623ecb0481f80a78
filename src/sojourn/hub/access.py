"""Who may do what in which channel, as the application says."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Literal, NamedTuple

from sojourn.errors import ConfigError
from sojourn.hub.patterns import Pattern, Patterns, valid
from sojourn.hub.rules import Channel

__all__ = ["Access", "Action", "Asker"]

Action = Literal["join", "publish", "presence", "history"]


class Asker(NamedTuple):
    """Who asks, as a function of the application's sees it.

    Attributes:
        user: Who it is; "" for nobody in particular.
        member: Id of the member; "" when a single request asks.
        info: What the authenticator has said about it.
    """

    user: str
    member: str
    info: Any = None


Authorizer = Callable[..., Awaitable[bool]]


class _Asked(NamedTuple):
    call: Authorizer
    knows_action: bool


class Access:
    """The functions that decide, by pattern.

    A function is called with who asks, and with the parameters of the pattern by their names. If it has a parameter
    ``action`` it decides about every action. Else it decides who joins, and those may see who is there and what was;
    clients publish only where the rule of the channel has ``publish=True``.
    """

    def __init__(self) -> None:
        self._calls: Patterns[_Asked] = Patterns()

    def add(self, pattern: str, call: Authorizer) -> None:
        """Have a function decide.

        Raises:
            ConfigError: The pattern is there already, or the function does not take what it is called with.
        """
        parameters = inspect.signature(call).parameters
        action = "action" in parameters
        names = dict.fromkeys(Pattern(pattern).names, "") | ({"action": "join"} if action else {})
        try:
            inspect.signature(call).bind(Asker("", ""), **names)
        except TypeError as error:
            raise ConfigError(
                f"the function for {pattern!r} is called with (asker, {', '.join(names)}): {error}"
            ) from None
        self._calls.add(pattern, _Asked(call, action))

    async def may(self, asker: Asker, channel: str, rule: Channel, action: Action, inside: bool) -> bool:
        """Whether somebody may do something.

        Args:
            asker: Who.
            channel: Where.
            rule: What holds there.
            action: What.
            inside: Whether it is a member of the channel now.

        Cancel: safe.
        """
        if not valid(channel):
            return False  # a pattern matches more than can be the name of a channel
        if action == "join" and rule.public:
            return True
        if action == "publish" and rule.publish and (inside or rule.public):
            return True
        if action in ("presence", "history") and inside:
            return True
        found = self._calls.find(channel)
        if found is None:
            return action in ("presence", "history") and rule.public
        asked, params = found
        if asked.knows_action:
            return bool(await asked.call(asker, action=action, **params))
        return (action != "publish" or rule.publish) and bool(await asked.call(asker, **params))
