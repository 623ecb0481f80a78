"""The state machine of a client: events and ``now`` in, actions out. Pure.

    start ── connecting ──opened── greeting ──hello── open
                 │  ▲                 │                │
                 │  └────due────┐     │                │
                 └────lost──► waiting ◄──────lost──────┘
                 any ── stop ──► stopped        lost for good, or for too long ──► given up

In every state but the last two there is a moment (``due``) at which something happens even if nothing arrives. There is
one connection at a time, known by its number: what is told of an earlier one is not heard.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Final

import msgspec
from msgspec import Raw

from sojourn.clients.hub.actions import (
    Action,
    Answer,
    Became,
    Connect,
    Deliver,
    Direct,
    Drop,
    Entered,
    Fail,
    Refuse,
    Renew,
    Send,
)
from sojourn.clients.hub.comeback import Comeback
from sojourn.clients.hub.commands import Command, Commands, Pace
from sojourn.clients.hub.events import Ended, Event, HubState, Joined, Left, Member, Message
from sojourn.clients.hub.membership import Membership, Phase
from sojourn.clients.hub.rooms import Rooms
from sojourn.clients.hub.rules import ClientRules
from sojourn.clock import NEVER
from sojourn.errors import HubGone, HubRefused
from sojourn.policy.retry import Backoff
from sojourn.wire import hub as wire
from sojourn.wire.hub.cursor import Cursor

__all__ = ["Machine", "Stage", "value_of"]

#: Seconds of a second look at a connection that seems dead: what came while nothing could run is read first.
_DOUBT: Final = 1.0
#: The server can't resume from where the client is.
_AFRESH: Final = 4011
_PONG: Final = b"{}"


class Stage(Enum):
    """Where the machine stands."""

    IDLE = "idle"
    CONNECTING = "connecting"
    GREETING = "greeting"
    OPEN = "open"
    WAITING = "waiting"
    OVER = "over"


def value_of(data: Any, binary: Any) -> Any:
    """A payload as it is handed over: what its JSON says, or bytes.

    Raises:
        HubWireError: It is no JSON.
    """
    if isinstance(binary, bytes):
        return binary
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, TypeError, RecursionError, UnicodeError) as error:
        raise wire.HubWireError("bad_request", f"a payload that can't be read: {error}") from None


class Machine:
    """One client.

    Args:
        rules: How long and how much.
        chance: Gives random numbers from 0 to 1.
        renewable: Whether it can get another credential than the last one.

    Attributes:
        stage: Where it stands.
        ended: Why it is not connected; None while all is well.
        conn: What the server calls the connection; "" before the first greeting.
        user: Who the server takes it for.
        rooms: The channels it is in or wants to be in.
    """

    __slots__ = (
        "_actions",
        "_chance",
        "_comeback",
        "_commands",
        "_doubt",
        "_flush_at",
        "_held",
        "_largest",
        "_last",
        "_link",
        "_moment",
        "_pace",
        "_quiet",
        "_rules",
        "conn",
        "ended",
        "renewable",
        "rooms",
        "stage",
        "user",
    )

    def __init__(self, rules: ClientRules, chance: Callable[[], float], *, renewable: bool = False) -> None:
        self._rules = rules
        self._chance = chance
        self.renewable = renewable
        self.stage = Stage.IDLE
        self.ended: Ended | None = None
        self.conn = self.user = ""
        self.rooms = Rooms()
        self._comeback = Comeback(rules)
        self._commands = Commands(rules)
        self._pace = Pace(rules.rate, rules.burst)
        self._actions: list[Action] = []
        #: Number of the present connection, or of the last one.
        self._link = 0
        #: When the present stage is looked at next.
        self._moment = NEVER
        #: When the last frame came; for how long none may come.
        self._last = 0.0
        self._quiet = NEVER
        self._doubt = False
        #: Whether the application is behind, and nothing is read.
        self._held = False
        #: Bytes of a command.
        self._largest = 0
        #: When the next command may go out; NEVER while the pace is not what they wait for.
        self._flush_at = NEVER

    # What comes out

    @property
    def due(self) -> float:
        """When to call :meth:`tick` at the latest; NEVER when it is over, or not begun."""
        return min(self._moment, self._flush_at, self.rooms.due)

    @property
    def state(self) -> HubState:
        """As the application sees it."""
        stage = self.stage
        if stage is Stage.OVER:
            return HubState.STOPPED if self.ended is None else HubState.GIVEN_UP
        if stage is Stage.OPEN:
            return HubState.OPEN
        return HubState.WAITING if stage is Stage.WAITING else HubState.CONNECTING

    @property
    def asking(self) -> bool:
        """Whether an answer is awaited."""
        return bool(self._commands) or self.rooms.asking

    def take(self) -> list[Action]:
        """What is to be done since the last call, in order."""
        actions, self._actions = self._actions, []
        return actions

    # The connection

    def start(self, now: float) -> None:
        """Begin."""
        if self.stage is Stage.IDLE:
            self._comeback.down(now)
            self._connect(now)

    def opened(self, number: int, now: float) -> None:
        """The connection is made; the server has to greet."""
        if number == self._link and self.stage is Stage.CONNECTING:
            self.stage, self._moment = Stage.GREETING, now + self._rules.hello

    def received(self, number: int, frame: str | bytes, now: float) -> None:
        """A frame came."""
        if number != self._link or self.stage not in (Stage.GREETING, Stage.OPEN):
            return
        self._last, self._doubt = now, False
        try:
            for line in wire.lines(frame):
                said = wire.decode_object(line)
                if said is not None:
                    _HANDLERS[type(said)](self, said, len(line), now)
        except wire.HubWireError as error:
            self._actions.append(Drop(number))
            self.lost(number, 0, f"not sojourn.v1: {error.message}", now)
        self._flush(now)

    def lost(self, number: int, code: int, reason: str, now: float, least: float | None = None) -> None:
        """The connection is lost, or could not be made.

        Args:
            number: Which.
            code: WebSocket close code, HTTP status of a refused handshake, or 0.
            reason: In words.
            now: Monotonic seconds.
            least: Seconds after which the server wants to be asked again; None when it does not say.
        """
        if number != self._link or self.stage not in (Stage.CONNECTING, Stage.GREETING, Stage.OPEN):
            return
        self.ended, comeback = Ended(reason, code), self._comeback
        comeback.down(now)
        comeback.tries += self.stage is not Stage.OPEN
        self._cut(afresh=code == _AFRESH)
        if comeback.final(code, self.renewable) or comeback.wearied(now):
            self._end(HubGone(reason, code))
            return
        self.stage = Stage.WAITING
        self._moment = now + comeback.wait(code, least, self._chance())
        self._actions.append(Became(HubState.WAITING, self.ended))

    def tick(self, now: float) -> None:
        """Do what is due."""
        for membership in self.rooms.ripe(now):
            self._deliver(membership.channel, membership.overdue(), 0)
        if self._flush_at <= now:
            self._flush_at = NEVER
        if self._moment <= now:
            self._turn(now)
        self._flush(now)

    def hold(self) -> None:
        """Nothing is read from now on: the application is behind."""
        self._held = True

    def release(self, now: float) -> None:
        """It is read again."""
        self._held, self._last, self._doubt = False, now, False

    def stop(self) -> None:
        """End it, as the application wishes."""
        if self.stage is Stage.OVER:
            return
        if self.stage in (Stage.CONNECTING, Stage.GREETING, Stage.OPEN):
            self._actions.append(Drop(self._link, 1000))
        self._cut()
        self.ended = None
        self._end(HubGone("the client was closed", 1000))

    # What the application asks for

    def join(self, channel: str, info: Any, since: Cursor | None, now: float) -> None:
        """Join a channel, now and after each cut. It must not be joined already."""
        self.rooms.add(channel, info, since)
        self._flush(now)

    def leave(self, channel: str, now: float) -> None:
        """Leave a channel."""
        membership = self.rooms.remove(channel)
        if membership is not None and membership.phase is not Phase.OUT and self.stage is Stage.OPEN:
            # At once, so that another join of the same channel comes behind it.
            self._pace.force(now)
            leave = wire.Command(self._commands.number(), "leave", wire.Leave(channel))
            self._actions.append(Send(wire.encode_command(leave)))

    def ask(self, command: Command, now: float) -> int:
        """Have a command carried out. Returns its number.

        Raises:
            HubGone: It is over.
            HubRefused: Too many wait, or it is too large.
        """
        if self.stage is Stage.OVER:
            raise self.gone()
        if self._largest and command.size > self._largest:
            raise self._too_large(command)
        number = self._commands.push(command)
        self._flush(now)
        return number

    def forget(self, number: int, now: float) -> None:
        """Nobody waits for an answer any more. What was not sent is not sent."""
        self._commands.answered(number)
        self._flush(now)

    def renew(self, token: str, now: float) -> None:
        """Another credential is here."""
        if self.stage is Stage.OPEN:
            self._pace.force(now)
            refresh = wire.Command(self._commands.number(), "refresh", wire.Refresh(token))
            self._actions.append(Send(wire.encode_command(refresh)))

    def gone(self) -> HubGone:
        """What says that it is over."""
        ended = self.ended or Ended("the client was closed", 1000)
        return HubGone(ended.reason, ended.code)

    # Stages

    def _connect(self, now: float) -> None:
        self._link += 1
        self.stage, self._moment = Stage.CONNECTING, now + self._rules.connect
        self._actions += (Became(HubState.CONNECTING, self.ended), Connect(self._link))

    def _turn(self, now: float) -> None:
        """The moment of the present stage has come."""
        stage, quiet = self.stage, now - self._last
        if stage is Stage.WAITING:
            self._connect(now)
        elif stage is Stage.OPEN and (self._held or quiet < self._quiet):
            self._moment = now + (self._quiet if self._held else self._quiet - quiet)
        elif stage is Stage.OPEN and not self._doubt:
            self._doubt, self._moment = True, now + _DOUBT
        else:
            self._actions.append(Drop(self._link))
            late = {Stage.CONNECTING: "no connection in time", Stage.GREETING: "no greeting in time"}
            self.lost(self._link, 0, late.get(stage, "no sign of life"), now)

    def _cut(self, *, afresh: bool = False) -> None:
        """What was on the connection is gone."""
        self._moment = self._flush_at = NEVER
        self._held = self._doubt = False
        self.rooms.cut(afresh=afresh)
        for command in self._commands.cut():
            error = HubGone("it was lost before the answer; it may have been done")
            self._actions.append(Fail(command.number, error))

    def _end(self, error: HubGone) -> None:
        self.stage, self._moment = Stage.OVER, NEVER
        self.rooms.clear()
        self._actions += [Fail(command.number, error) for command in self._commands.take()]
        self._actions.append(Became(self.state, self.ended))

    def _flush(self, now: float) -> None:
        """Send what can be sent."""
        if self.stage is not Stage.OPEN:
            return
        while (membership := self.rooms.first()) is not None:
            if not self._paced(now):
                return
            self._ask_for(membership)
        while (command := self._commands.next(self.rooms.may)) is not None:
            if command.size > self._largest:
                self._commands.answered(command.number)
                self._actions.append(Fail(command.number, self._too_large(command)))
                continue
            if not self._paced(now):
                return
            self._commands.sent(command)
            self._actions.append(Send(command.line))

    def _paced(self, now: float) -> bool:
        moment = self._pace.take(now)
        self._flush_at = moment or NEVER
        return not moment

    def _too_large(self, command: Command) -> HubRefused:
        return HubRefused("too_large", f"{command.verb} of {command.size} bytes, and the hub takes {self._largest}")

    # Channels

    def _ask_for(self, membership: Membership) -> None:
        number = self._commands.number()
        self.rooms.ask(membership, number)
        since = None if membership.since is None else str(membership.since)
        join = wire.Command(number, "join", wire.Join(membership.channel, since, membership.info))
        self._actions.append(Send(wire.encode_command(join)))

    def _deliver(self, channel: str, events: list[Event], size: int) -> None:
        self._actions += [Deliver(channel, event, size) for event in events]

    # What the server says

    def _hello(self, hello: wire.Hello, size: int, now: float) -> None:
        if self.stage is Stage.OPEN:
            return
        self.stage, self.ended = Stage.OPEN, None
        self.conn, self.user, self._largest = hello.conn, hello.user, hello.max
        self._quiet = hello.ping + hello.pong
        self._moment = now + self._quiet
        self._comeback.up(hello.retry)
        self._actions.append(Became(HubState.OPEN, None))

    def _ping(self, ping: wire.Ping, size: int, now: float) -> None:
        self._actions.append(Send(_PONG))

    def _publication(self, said: wire.Publication, size: int, now: float) -> None:
        membership = self.rooms.inside(said.ch)
        if membership is not None:
            events = membership.published(said.p, value_of(said.d, said.b), said.k)
            self.rooms.watch(membership)
            self._deliver(said.ch, events, size)

    def _message(self, said: wire.Message, size: int, now: float) -> None:
        self._actions.append(Direct(Message("", value_of(said.msg, said.bin)), size))

    def _gap(self, said: wire.Gap, size: int, now: float) -> None:
        membership = self.rooms.inside(said.ch)
        if membership is not None:
            events = membership.gap(_place(said.pos))
            self.rooms.watch(membership)
            self._deliver(said.ch, events, size)

    def _snapshot(self, said: wire.Snap, size: int, now: float) -> None:
        membership = self.rooms.inside(said.ch)
        if membership is not None:
            events = membership.snapshot(_place(said.pos), value_of(said.d, said.b))
            self.rooms.watch(membership)
            self._deliver(said.ch, events, size)

    def _presence(self, said: wire.Pres, size: int, now: float) -> None:
        if self.rooms.inside(said.ch) is not None:
            came: list[Event] = [
                Joined(said.ch, Member(one.member, one.user, one.state, one.info)) for one in said.came
            ]
            left: list[Event] = [Left(said.ch, member) for member in said.left]
            events = came + left
            self._deliver(said.ch, events, size // max(1, len(events)))

    def _expiring(self, said: wire.Expiring, size: int, now: float) -> None:
        if self.renewable:
            self._actions.append(Renew())

    def _bye(self, said: wire.Bye, size: int, now: float) -> None:
        self._comeback.bye(said.retry)

    def _done(self, said: wire.Ok, size: int, now: float) -> None:
        membership = self.rooms.answered(said.id)
        if membership is not None:
            if self.rooms.current(membership):
                self._entered(membership, wire.decode_result(_raw(said), wire.Joined), now)
        elif self._commands.answered(said.id) is not None:
            self._actions.append(Answer(said.id, _raw(said)))

    def _entered(self, membership: Membership, said: wire.Joined, now: float) -> None:
        recovered = said.recovered if isinstance(said.recovered, bool) else None
        events = membership.entered(_place(said.pos), recovered, now)
        self.rooms.watch(membership)
        self._actions.append(Entered(membership.channel))
        self._deliver(membership.channel, events, 0)

    def _refused(self, said: wire.Refused, size: int, now: float) -> None:
        later = said.retry and said.code == "rate"
        if later:
            self._pace.exhaust(now)
        error = HubRefused(said.code, said.message, said.retry)
        membership = self.rooms.answered(said.id)
        if membership is None:
            if (not later or not self._commands.again(said.id)) and self._commands.answered(said.id) is not None:
                self._actions.append(Fail(said.id, error))
        elif self.rooms.current(membership):
            self._not_entered(membership, error, later, now)

    def _not_entered(self, membership: Membership, error: HubRefused, later: bool, now: float) -> None:
        """A join was refused: for now, or for good. Who was never in is told at once, and may ask again."""
        if later or (error.retry and membership.joined):
            membership.tries += 1
            membership.phase = Phase.OUT
            membership.due = (
                now
                + self._rules.first
                + Backoff(self._rules.first, self._rules.most).delay(membership.tries, self._chance())
            )
            self.rooms.watch(membership)
            return
        channel = membership.channel
        self.rooms.remove(channel)
        self._actions += [Fail(command.number, error) for command in self._commands.take(channel)]
        self._actions.append(Refuse(channel, error))


def _raw(said: wire.Ok) -> Raw:
    assert isinstance(said.ok, Raw)
    return said.ok


def _place(text: str) -> Cursor:
    place = Cursor.parse(text)
    if place is None:
        raise wire.HubWireError("bad_request", f"no cursor: {text[:64]!r}")
    return place


_HANDLERS: Final[dict[type, Callable[[Machine, Any, int, float], None]]] = {
    wire.Hello: Machine._hello,
    wire.Ping: Machine._ping,
    wire.Publication: Machine._publication,
    wire.Message: Machine._message,
    wire.Gap: Machine._gap,
    wire.Snap: Machine._snapshot,
    wire.Pres: Machine._presence,
    wire.Expiring: Machine._expiring,
    wire.Bye: Machine._bye,
    wire.Ok: Machine._done,
    wire.Refused: Machine._refused,
}
