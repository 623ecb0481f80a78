"""A small hub that speaks the server's side of ``sojourn.v1``, without I/O: what tests of its clients run against."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import msgspec

__all__ = ["ModelHub", "Session"]


def line(said: Any) -> bytes:
    return msgspec.json.encode(said)


class ModelHub:
    """All channels, their rings and who is connected.

    Args:
        size: Publications that are kept of each channel.
        gap: How a resume that has a gap goes on: ``kept`` (a gap, then what is kept), ``latest`` (a gap up to now),
            ``snap`` (the state), ``silent`` (nothing, which a hub must not do).
    """

    def __init__(self, size: int = 5, gap: str = "kept") -> None:
        self.size = size
        self.gap = gap
        self.life = 0
        self.seq = 0
        #: Numbers by epoch and channel, of all that was ever published.
        self.log: dict[tuple[str, str], list[int]] = {}
        self.rings: dict[str, list[tuple[int, Any]]] = {}
        self.trimmed: dict[str, int] = {}
        self.uids: dict[str, str] = {}
        #: What was published with a uid, in order: its payload.
        self.published: list[Any] = []
        self.sessions: list[Session] = []
        #: What the application was told.
        self.said: list[Any] = []
        self.hello = {"ping": 25, "pong": 8, "retry": [500, 8000], "max": 65536, "user": "ada"}
        #: How commands are refused, by verb: (code, retry), used up one by one.
        self.refusals: dict[str, list[tuple[str, bool]]] = {}
        #: Commands of these verbs are carried out, and not answered.
        self.mute: set[str] = set()

    @property
    def epoch(self) -> str:
        return f"e{self.life}"

    @property
    def position(self) -> str:
        return f"{self.epoch}.{self.seq}"

    def publish(self, channel: str, data: Any, key: str = "", skip: bool = False) -> str:
        """Publish; ``skip``: all members of now are too slow, and miss it."""
        self.seq += 1
        ring = self.rings.setdefault(channel, [])
        ring.append((self.seq, data))
        self.log.setdefault((self.epoch, channel), []).append(self.seq)
        while len(ring) > self.size:
            self.trimmed[channel] = ring.pop(0)[0]
        for session in self.sessions:
            if channel in session.channels:
                session.publication(channel, self.seq, data, key, skip)
        return self.position

    def forget(self) -> None:
        """The store is lost: another epoch begins. Who is connected is told, as a hub does that repositions."""
        self.life += 1
        self.seq = 0
        self.rings.clear()
        self.trimmed.clear()
        for session in self.sessions:
            session.said.clear()
            for channel in session.channels:
                session.say({"gap": {"ch": channel, "pos": self.position}})


class Session:
    """One connection.

    Args:
        hub: Whose.
        say: Takes what is to be written.
    """

    def __init__(self, hub: ModelHub, write: Callable[[bytes], None]) -> None:
        self.hub = hub
        self.write = write
        self.channels: dict[str, bool] = {}
        #: Publications that were written to it while it was there.
        self.said: list[Any] = []
        self.pongs = 0
        self.heard: list[Any] = []
        hub.sessions.append(self)

    def say(self, said: Any) -> None:
        self.write(line(said))

    def greet(self) -> None:
        self.say({"hello": {"conn": f"c{id(self)}", "pos": self.hub.position, **self.hub.hello}})

    def end(self) -> None:
        self.hub.sessions.remove(self)

    def publication(self, channel: str, seq: int, data: Any, key: str, skip: bool) -> None:
        if skip:
            self.channels[channel] = True
            return
        if self.channels[channel]:
            self.channels[channel] = False
            before = [number for number in self.hub.log[self.hub.epoch, channel] if number < seq]
            self.say({"gap": {"ch": channel, "pos": f"{self.hub.epoch}.{max(before, default=0)}"}})
        payload = {"b": data} if isinstance(data, bytes) else {"d": data}
        self.said.append({"ch": channel, "p": seq, **payload, **({"k": key} if key else {})})
        self.say(self.said[-1])

    def hear(self, frame: str | bytes) -> None:
        """What the client says."""
        for text in frame.split(b"\n" if isinstance(frame, bytes) else "\n"):  # type: ignore[arg-type]
            said = msgspec.json.decode(text)
            self.heard.append(said)
            if said == {}:
                self.pongs += 1
                continue
            number = said.pop("id", 0)
            ((verb, body),) = said.items()
            refusals = self.hub.refusals.get(verb)
            if refusals:
                code, retry = refusals.pop(0)
                self.say({"id": number, "error": {"code": code, "message": "no", "retry": retry}})
                continue
            answer = getattr(self, f"_{verb}")(body)
            if verb not in self.hub.mute:
                for said in [{"id": number, "ok": answer.pop("ok")}, *answer.pop("then", [])]:
                    self.say(said)

    def _join(self, body: Any) -> Any:
        hub, channel, since = self.hub, body["ch"], body.get("since")
        self.channels[channel] = False
        ok: dict[str, Any] = {"pos": hub.position}
        if since is None:
            return {"ok": ok}
        epoch, _, number = since.partition(".")
        seen, trimmed = int(number), hub.trimmed.get(channel, 0)
        ring = hub.rings.get(channel, [])
        whole = epoch == hub.epoch and trimmed <= seen
        start = seen if whole or (epoch == hub.epoch and seen > trimmed) else trimmed
        then: list[Any] = [{"ch": channel, "p": p, "d": d} for p, d in ring if p > start]
        if not whole:
            then = {
                "kept": [{"gap": {"ch": channel, "pos": f"{hub.epoch}.{trimmed}"}}, *then],
                "latest": [{"gap": {"ch": channel, "pos": hub.position}}],
                "snap": [{"snap": {"ch": channel, "pos": hub.position, "d": [d for _, d in ring]}}],
                "silent": [],
            }[hub.gap]
        return {"ok": {**ok, "recovered": whole}, "then": then}

    def _leave(self, body: Any) -> Any:
        self.channels.pop(body["ch"], None)
        return {"ok": {}}

    def _pub(self, body: Any) -> Any:
        uid, data = body["uid"], base64.b64decode(body["b"]) if "b" in body else body["d"]
        repeated = uid in self.hub.uids
        if not repeated:
            self.hub.published.append(data)
            self.hub.uids[uid] = self.hub.publish(body["ch"], data, body.get("key", ""))
        return {"ok": {"pos": self.hub.uids[uid], "repeated": repeated}}

    def _who(self, body: Any) -> Any:
        members = [
            {"member": f"m{i}", "user": "ada"} for i, s in enumerate(self.hub.sessions) if body["ch"] in s.channels
        ]
        return {"ok": {"members": members, "more": False}}

    def _count(self, body: Any) -> Any:
        return {"ok": {"members": sum(body["ch"] in one.channels for one in self.hub.sessions), "users": 1}}

    def _hist(self, body: Any) -> Any:
        channel = body["ch"]
        seen = int(body["since"].partition(".")[2]) if body.get("since") else 0
        pubs = [{"ch": channel, "p": p, "d": d} for p, d in self.hub.rings.get(channel, []) if p > seen]
        limit = body.get("limit") or len(pubs)
        gap = bool(body.get("since")) and self.hub.trimmed.get(channel, 0) > seen
        return {"ok": {"pubs": pubs[:limit], "pos": self.hub.position, "gap": gap, "more": len(pubs) > limit}}

    def _refresh(self, body: Any) -> Any:
        return {"ok": {}}

    def _msg(self, body: Any) -> Any:
        self.hub.said.append(body)
        return {"ok": {}}
