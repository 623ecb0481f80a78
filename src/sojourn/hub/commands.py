"""What members ask for in ``sojourn.v1``, carried out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sojourn.errors import AccessDenied, AuthenticationError, EngineUnavailable, HubFull
from sojourn.hub.access import Action, Asker
from sojourn.hub.dialects import wired
from sojourn.hub.identity import Identity
from sojourn.hub.member import Member
from sojourn.hub.resume import UNKNOWN, Joined
from sojourn.wire import hub as wire
from sojourn.wire.hub.cursor import Cursor

if TYPE_CHECKING:
    from sojourn.hub.hub import Hub

__all__ = ["Commands", "place_of"]

#: Publications, and members, that are given at once at most.
_MOST: Final = 1000
_UNAVAILABLE: Final = "the hub can't do this now; try again"


def place_of(since: str | None) -> Cursor | None:
    """Where a client says that it was: None when it does not; what can't be read counts as having missed everything."""
    return None if since is None else Cursor.parse(since) or UNKNOWN


class Commands:
    """Carries out the commands of one member, or those of a single request.

    Args:
        hub: Where.
        identity: Who asks; may be renewed.
        member: The member; None for a single request.
    """

    __slots__ = ("_hub", "_joining", "_member", "identity", "renew")

    def __init__(self, hub: Hub, identity: Identity, member: Member | None = None) -> None:
        self._hub = hub
        self._member = member
        self._joining: set[str] = set()
        self.identity = identity
        #: Takes a new credential, and raises AuthenticationError when it does not count.
        self.renew: Callable[[str], Any] | None = None

    @property
    def asker(self) -> Asker:
        """Who asks."""
        member = self._member
        return Asker(self.identity.user, "" if member is None else member.id, self.identity.info)

    async def carry_out(self, command: wire.Command) -> wire.Reply | None:
        """Carry out a command.

        Returns:
            The answer; None when none is due, or it was given already.

        Cancel: safe.
        """
        number, name = command.id, command.name
        try:
            result = await self._result(command)
        except AccessDenied as error:
            return wire.Refused(number, "forbidden", error.detail)
        except AuthenticationError as error:
            return wire.Refused(number, "unauthenticated", error.detail, error.status >= 500)
        except (EngineUnavailable, HubFull):
            return wire.Refused(number, "unavailable", _UNAVAILABLE, True)
        except ValueError as error:
            return wire.Refused(number, "bad_request", str(error))
        except _Limit as error:
            return wire.Refused(number, "limit", str(error))
        if result is None or (not number and name != "join"):
            return None
        return wire.Ok(number, result)

    async def _result(self, command: wire.Command) -> wire.Result | None:
        match command.body:
            case wire.Join() as join:
                await self._join(command.id, join)
                return None
            case wire.Leave(ch=channel):
                if self._member is None:
                    raise ValueError("there is nothing to leave for a single request")
                self._member.node.leave(self._member, channel)
                return wire.Done()
            case wire.Pub() as pub:
                return await self._publish(pub)
            case wire.Who(ch=channel):
                await self._require(channel, "presence")
                present = await self._hub.presence(channel, _MOST + 1)
                members = [wire.Member(*each) for each in present[:_MOST]]
                return wire.Members(members, len(present) > _MOST)
            case wire.Count(ch=channel):
                await self._require(channel, "presence")
                return wire.Counted(*await self._hub.presence_count(channel))
            case wire.Hist() as hist:
                return await self._history(hist)
            case wire.Refresh(token=token):
                if self.renew is None:
                    raise ValueError("there is nothing to refresh here")
                await self.renew(token)
                return wire.Done()
            case wire.Auth():
                raise ValueError("it is known already who this is; send refresh for a new credential")
        if command.name == "msg":
            raise ValueError("a single request can't say anything to the application")  # a member's never come here
        return None

    async def _require(self, channel: str, action: Action) -> None:
        member = self._member
        inside = member is not None and channel in member.topics
        if not await self._hub.may(self.asker, channel, action, inside=inside):
            raise AccessDenied(self.identity.user, f"{action} in {channel[:80]!r} is not allowed")

    async def _join(self, number: int, join: wire.Join) -> None:
        member, channel = self._member, join.ch
        if member is None:
            raise ValueError("a single request can't join")
        if channel in member.topics or channel in self._joining:
            raise ValueError(f"it has joined {channel[:80]!r} already")
        if len(member.topics) + len(self._joining) >= self._hub.limits.channels:
            self._hub.counts.refused["channels"] += 1
            raise _Limit(f"a member may be in {self._hub.limits.channels} channels")
        self._joining.add(channel)
        try:
            await self._require(channel, "join")

            def tell(joined: list[Joined]) -> None:
                if number:
                    _, position, recovered, _ = joined[0]
                    known = msgspec.UNSET if recovered is None else recovered
                    said = member.form.say(wire.Ok(number, wire.Joined(str(position), known)))
                    if said is not None:
                        member.control(said)

            await self._hub.reception.let_in(member, {channel: place_of(join.since)}, tell, join.info)
        finally:
            self._joining.discard(channel)

    async def _publish(self, pub: wire.Pub) -> wire.Published:
        await self._require(pub.ch, "publish")
        data: Any = pub.b if isinstance(pub.b, bytes) else pub.d
        if isinstance(data, msgspec.Raw) and bytes(data).startswith(b'"'):
            data = msgspec.json.decode(data)  # text, which other forms send without quotes
        sent = await self._hub.publish(
            pub.ch, data, key=pub.key, id=f"{self.identity.user}/{pub.uid}" if pub.uid else ""
        )
        return wire.Published(str(sent.cursor), sent.repeated)

    async def _history(self, hist: wire.Hist) -> wire.Page:
        await self._require(hist.ch, "history")
        since = place_of(hist.since)
        page = await self._hub.history(hist.ch, since, min(hist.limit or _MOST, _MOST))
        pubs = [said for each in page.publications if isinstance(said := wired(each), wire.Publication)]
        return wire.Page(pubs, str(page.position), page.gap, page.more)


class _Limit(Exception):
    """As many as may."""
