"""What no single key shows: settings that contradict each other, that are probably not meant, or that wait for ever."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from sojourn.config import Config
from sojourn.errors import ConfigError
from sojourn.server.settings.keys import keys

__all__ = ["contradictions", "waits_without_deadline", "warnings"]


def contradictions(config: Config, by_hand: Mapping[str, str]) -> list[ConfigError]:
    """The settings that can't be used together, or that only their meaning shows to be wrong.

    Args:
        config: The configuration, each key of the right type and in its bounds.
        by_hand: Origin of each key that is not a default, for the messages.
    """
    found = (*_of_bind(config), *_of_tls(config), *_of_lists(config), *_of_others(config))
    return [ConfigError(message, key=key, origin=by_hand.get(key)) for key, message in found]


def warnings(config: Config, by_hand: Mapping[str, str]) -> list[str]:
    """What is allowed but probably not meant, one sentence each."""
    return [*_unused(config, by_hand), *_in_the_way(config, by_hand)]


def waits_without_deadline(config: Config) -> list[str]:
    """The timeouts that were set to none by hand although they have a default, for the start message.

    Returns:
        Their dotted paths; those of routes with the route's path, such as ``timeouts.handler of /reports/*``.
    """
    limited = [key for key in keys().values() if key.unit == "s" and key.optional and key.default is not None]
    found = [key.path for key in limited if getattr(getattr(config, key.group), key.name) is None]
    for route in config.routes:
        unlimited = (key.path for key in limited if getattr(route, key.group, {}).get(key.name) == "none")
        found += [f"{path} of {route.path}" for path in unlimited]
    return found


def _of_bind(config: Config) -> Iterator[tuple[str, str]]:
    bind, app = config.bind, config.app
    if bind.uds is not None and bind.fd is not None:
        yield "bind.fd", "excludes bind.uds: give one of them"
    if bind.port > 65535:
        yield "bind.port", f"{bind.port} is not a TCP port: write 0 to 65535"
    if not all(part.strip() for part in bind.host.split(",")):
        yield "bind.host", f"{bind.host!r} has an empty address: write 0.0.0.0 or :: for all"
    if not re.fullmatch("0?[0-7]{3}", bind.uds_mode):
        yield "bind.uds_mode", f"{bind.uds_mode!r} is not an octal mode, such as 660"
    if app.reload and app.workers > 1:
        yield "app.reload", f"serves with one worker: app.workers is {app.workers}"


def _of_tls(config: Config) -> Iterator[tuple[str, str]]:
    tls = config.tls
    if tls.cert is None:
        for name in ("key", "key_password", "ca"):
            if getattr(tls, name) is not None:
                yield f"tls.{name}", "means nothing without tls.cert"
        if tls.client_cert != "none":
            yield "tls.client_cert", "means nothing without tls.cert"
    elif tls.client_cert != "none" and tls.ca is None:
        yield "tls.client_cert", f"{tls.client_cert} needs tls.ca, the authorities to trust"


def _of_lists(config: Config) -> Iterator[tuple[str, str]]:
    for origin in config.websocket.origins or ():
        if origin not in ("*", "null", "same-origin") and not re.fullmatch(r"[A-Za-z][\w+.-]*://[^/*\s]+", origin):
            yield (
                "websocket.origins",
                f"{origin!r} is no origin: write https://host, https://host:port, same-origin or *",
            )
    if config.proxy.trusted != keys()["proxy.trusted"].default:
        from sojourn.policy.trust import TrustList  # the default needs no check: `sojourn config` stays quick

        for entry in config.proxy.trusted:
            try:
                TrustList([entry])
            except ConfigError as exc:
                yield "proxy.trusted", str(exc).removeprefix("proxy.trusted: ")


def _of_others(config: Config) -> Iterator[tuple[str, str]]:
    """What is heard of from outside: the admin listener, the registry; and budgets."""
    if config.deadlines.reject_share > 1:
        yield "deadlines.reject_share", f"{config.deadlines.reject_share:g} is no share: write 0 to 1"
    if config.deadlines.budgets:
        from sojourn.server.settings.budgets import read_budgets

        yield from _refused(lambda: read_budgets(config.deadlines.budgets))
    if config.admin.bind is not None:
        from sojourn.server.admin.place import admin_config

        yield from _refused(lambda: admin_config(config))
    if config.registration.webhook is not None:
        from sojourn.server.registration import from_config

        yield from _refused(lambda: from_config(config))
    elif config.registration.token is not None:
        yield "registration.token", "means nothing without registration.webhook"


def _refused(make: Callable[[], object]) -> Iterator[tuple[str, str]]:
    """Why something can't be made of the configuration, if it can't."""
    try:
        make()
    except ConfigError as exc:
        key = exc.key or ""
        yield key, str(exc).removeprefix(f"{key}: ")


def _unused(config: Config, by_hand: Mapping[str, str]) -> Iterator[str]:
    """Keys set by hand that another key takes the effect from."""
    bind = config.bind
    winner = "bind.fd" if bind.fd is not None else "bind.uds" if bind.uds is not None else None
    for path in ("bind.host", "bind.port"):
        if winner and path in by_hand:
            yield f"{path} has no effect: {winner} says where to listen"
    if config.websocket.ping_interval is None:
        for path in ("websocket.ping_timeout", "websocket.ping_misses"):
            if path in by_hand:
                yield f"{path} has no effect: websocket.ping_interval is none"
    if config.tls.ca is not None and config.tls.client_cert == "none":
        yield "tls.ca has no effect: tls.client_cert is none"
    if config.admission.mode == "off":
        if config.limits.requests is None:
            for path in ("limits.queue", "limits.queue_wait"):
                if path in by_hand:
                    yield f"{path} has no effect: limits.requests is none"
        for path in by_hand:
            if path.startswith("admission.") and path != "admission.mode":
                yield f"{path} has no effect: admission.mode is off"
    if config.rate_limits and config.rates.redis is None and config.app.workers > 1:
        yield f"rate_limits are counted by each of {config.app.workers} workers for itself: rates.redis counts for all"
    if not config.rate_limits:
        yield from (f"{path} has no effect: there are no rate_limits" for path in by_hand if path.startswith("rates."))
    alone = "app.workers is 0" if config.app.workers == 0 else "app.reload is on" if config.app.reload else None
    if alone and "registration.webhook" in by_hand:
        yield f"registration.webhook has no effect: it is the supervisor's, and there is none when {alone}"


def _in_the_way(config: Config, by_hand: Mapping[str, str]) -> Iterator[str]:
    """Values that defeat each other."""
    timeouts, websocket, drain = config.timeouts, config.websocket, config.drain
    answer, whole = timeouts.response_start, timeouts.handler
    if "timeouts.response_start" in by_hand and answer and whole and whole <= answer:
        yield f"timeouts.response_start ({answer:g} s) never passes: timeouts.handler ({whole:g} s) comes first"
    if websocket.ping_interval and websocket.ping_timeout > websocket.ping_interval:
        yield (
            f"websocket.ping_timeout ({websocket.ping_timeout:g} s) is longer than websocket.ping_interval "
            f"({websocket.ping_interval:g} s): a ping is due before the last one is missed"
        )
    for name in ("requests", "streams", "sockets"):
        part = getattr(drain, name)
        if part > drain.total and f"drain.{name}" in by_hand:
            yield f"drain.{name} ({part:g} s) is cut short: drain.total is {drain.total:g} s"
    webhook, token = config.registration.webhook, config.registration.token
    if token is not None and webhook is not None and webhook.lower().startswith("http:"):
        yield "registration.token is sent unencrypted: registration.webhook is http, not https"
    if "*" in config.proxy.trusted and config.proxy.headers:
        yield "proxy.trusted is *: every client can claim any address"
