"""A new task, as it is written down: of a kind, its arguments, and what was asked beside them."""

from __future__ import annotations

import hashlib
import secrets
from typing import Final

import msgspec

from sojourn.clock import SystemClock
from sojourn.tasks.kinds import Kind
from sojourn.tasks.origin import actor, trace
from sojourn.tasks.record import NewTask
from sojourn.tasks.settings import Settings
from sojourn.tasks.spec import Actor, Spec
from sojourn.tasks.wish import Wish

__all__ = ["kept", "made", "spec_of"]

_encode: Final = msgspec.json.Encoder().encode
_encode_in_order: Final = msgspec.json.Encoder(order="deterministic").encode
_wall: Final = SystemClock.wall


def made(kind: Kind, payload: bytes, wish: Wish, owner: str, settings: Settings, taker: str) -> NewTask:
    """A task of a kind.

    Args:
        kind: What is to be done.
        payload: Its arguments, checked.
        wish: What was asked beside them, checked.
        owner: Principal who starts it; "" for nobody.
        settings: Of the service.
        taker: Node that has it from the first; "" for whoever claims it.

    Raises:
        SecurityContextError: Who acts here does so no more.
    """
    return NewTask(
        id=_new_id(),
        kind=kind.name,
        payload=payload,
        spec=_encode(spec_of(kind, wish, actor(), trace())),
        owner=owner,
        key=wish.key,
        fingerprint=_fingerprint(kind.name, payload) if wish.key else "",
        priority=kind.priority if wish.priority is None else wish.priority,
        delay=max(0.0, wish.delay),
        run_at=wish.run_at,
        keep=kept(kind, settings),
        node=taker,
        lease=settings.lease if taker else 0.0,
    )


def spec_of(kind: Kind, wish: Wish, acting: Actor | None = None, traced: str = "") -> Spec:
    """How a task of a kind is to be run."""
    return Spec(
        deadline=kind.deadline,
        attempts=kind.retries + 1,
        crashes=kind.crashes,
        first=kind.backoff.first,
        most=kind.backoff.most,
        expires=wish.expires,
        callback=wish.callback,
        actor=acting,
        trace=traced,
    )


def kept(kind: Kind, settings: Settings) -> float:
    """Seconds that the record of an ended task of a kind is kept."""
    return settings.keep if kind.keep is None else kind.keep


def _new_id() -> str:
    """Later ones sort later: lists and indexes are in order. 128 bits of it are random: nobody guesses it."""
    return f"{int(_wall() * 1000):012x}{secrets.token_urlsafe(16)}"


def _fingerprint(kind: str, payload: bytes) -> str:
    """The same for the same arguments, in whatever order they are named."""
    in_order = _encode_in_order(msgspec.json.decode(payload))
    return hashlib.blake2b(kind.encode() + b"\0" + in_order, digest_size=16).hexdigest()
