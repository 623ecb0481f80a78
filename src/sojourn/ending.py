"""How connections and requests end: one first cause, in stable words.

Every connection and every request ends once, with one :class:`Ending`: who caused it, in which phase, how it looked on
the wire, and a reason. The reason is a key of :data:`REASONS`, which holds what follows from it: the two-letter code of
the log, the fault class for SLOs, the HTTP status or WebSocket close code the peer gets, and whether it should come back.

The first letter of the code says who (``-`` normal, ``C`` client closed, ``c`` client silent, ``A`` application, ``a``
application too slow, ``P`` protocol or policy, ``R`` resource, ``D`` drain, ``K`` operator, ``N`` network, ``I``
internal); C, c, P, R, K and I keep HAProxy's meaning. The second letter is the phase.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

__all__ = ["REASONS", "Ending", "Fault", "How", "Phase", "Reason", "Who"]


class Who(Enum):
    """Whose act or silence ended it."""

    NONE = "-"
    CLIENT = "C"
    CLIENT_SILENT = "c"
    APP = "A"
    APP_SLOW = "a"
    POLICY = "P"
    RESOURCE = "R"
    DRAIN = "D"
    OPERATOR = "K"
    NETWORK = "N"
    INTERNAL = "I"


class Phase(Enum):
    """Where in its life the connection was. The value is the second letter of the log code."""

    ACCEPT = "A"
    TLS = "T"
    HEAD = "R"
    BODY = "B"
    QUEUED = "Q"
    HANDLER = "H"
    RESPONSE = "D"
    UPGRADE = "U"
    WEBSOCKET = "W"
    CLOSING = "X"
    IDLE = "I"


class How(Enum):
    """What was seen on the wire."""

    FIN = "fin"
    HALF_CLOSE = "half_close"
    RST = "rst"
    TLS_EOF = "tls_eof"
    TLS_ALERT = "tls_alert"
    CLOSE_FRAME = "close_frame"
    EOF_IN_FRAME = "eof_in_frame"
    EOF_IN_BODY = "eof_in_body"
    LOCAL_FIN = "local_fin"
    LOCAL_ABORT = "local_abort"
    TIMEOUT = "timeout"


class Fault(Enum):
    """Whom an SLO charges. Client faults never page anyone."""

    NONE = "none"
    CLIENT = "client"
    NETWORK = "network"
    APP = "app"
    SERVER = "server"
    OVERLOAD = "overload"
    SHUTDOWN = "shutdown"


class Reason(NamedTuple):
    """What follows from a reason.

    Attributes:
        word: The stable word, as in logs and metrics.
        who: The first letter of the code.
        fault: Whom an SLO charges.
        status: HTTP status the client gets, or that is logged when nobody is left to get it; None keeps the real one.
        ws_code: WebSocket close code sent, or logged when no close frame was possible; None keeps the real one.
        reconnect: Whether a client should come back: True at once, False not, None no advice.
        advice: One line for whoever reads the log.
    """

    word: str
    who: Who
    fault: Fault
    status: int | None
    ws_code: int | None
    reconnect: bool | None
    advice: str


def _table() -> dict[str, Reason]:
    w, f = Who, Fault
    rows = [
        Reason("completed", w.NONE, f.NONE, None, 1000, None, "ended as both sides wanted"),
        Reason("keep_alive_idle", w.CLIENT_SILENT, f.NONE, None, None, True, "no next request within timeouts.keep_alive"),
        Reason("keep_alive_closed_by_client", w.CLIENT, f.NONE, None, None, None, "closed between two requests"),
        Reason("keep_alive_rotated", w.NONE, f.NONE, None, None, True, "limits.requests_per_connection or age reached"),
        Reason("connected_no_data", w.CLIENT, f.NONE, None, None, None, "a probe or a preconnect: no byte was sent"),
        Reason("client_closed_before_head", w.CLIENT, f.CLIENT, 400, None, None, "left inside the request head"),
        Reason("request_headers_timeout", w.CLIENT_SILENT, f.CLIENT, 408, None, None, "head not complete within timeouts.header"),
        Reason("request_body_timeout", w.CLIENT_SILENT, f.CLIENT, 408, None, None, "no body byte for timeouts.body_idle"),
        Reason("min_request_body_data_rate", w.CLIENT_SILENT, f.CLIENT, 408, None, None, "body slower than limits.body_min_rate"),
        Reason("unexpected_end_of_request_content", w.CLIENT, f.CLIENT, 400, None, None, "left inside the request body"),
        Reason("client_closed_request", w.CLIENT, f.CLIENT, 499, None, None, "left before the answer began"),
        Reason("client_closed_in_queue", w.CLIENT, f.OVERLOAD, 499, None, None, "left while waiting for a slot"),
        Reason("client_closed_mid_response", w.CLIENT, f.CLIENT, None, None, None, "left while the answer was sent"),
        Reason("client_reset", w.CLIENT, f.CLIENT, 499, 1006, None, "reset the connection"),
        Reason("min_response_data_rate", w.CLIENT_SILENT, f.CLIENT, None, None, None, "reads slower than limits.write_min_rate"),
        Reason("send_timeout", w.CLIENT_SILENT, f.CLIENT, None, None, None, "took no byte for timeouts.write_idle"),
        Reason("slow_consumer", w.CLIENT_SILENT, f.CLIENT, None, 1013, True, "did not take its messages in time"),
        Reason("pong_timeout", w.NETWORK, f.NETWORK, None, 1006, True, "no sign of life after websocket.ping_misses pings"),
        Reason("tcp_dead", w.NETWORK, f.NETWORK, 499, 1006, True, "the kernel gave the peer up (keep-alive, user timeout)"),
        Reason("ws_client_closed", w.CLIENT, f.NONE, None, None, None, "the client closed with a close frame"),
        Reason("ws_client_going_away", w.CLIENT, f.NONE, None, 1001, None, "the page was left or the client shut down"),
        Reason("ws_eof_no_close", w.CLIENT, f.CLIENT, None, 1006, None, "left without a close frame"),
        Reason("ws_closed_by_app", w.NONE, f.NONE, None, None, None, "the application closed it"),
        Reason("ws_close_timeout", w.CLIENT_SILENT, f.CLIENT, None, None, None, "never answered our close frame"),
        Reason("ws_idle", w.CLIENT_SILENT, f.NONE, None, 1001, True, "no message for websocket.idle"),
        Reason("ws_protocol_error", w.POLICY, f.CLIENT, None, 1002, False, "broke RFC 6455"),
        Reason("ws_invalid_data", w.POLICY, f.CLIENT, None, 1007, False, "text that is not UTF-8"),
        Reason("ws_message_too_big", w.POLICY, f.CLIENT, None, 1009, False, "message larger than websocket.message"),
        Reason("handshake_timeout", w.APP_SLOW, f.APP, 504, None, None, "the application did not accept within websocket.open"),
        Reason("upgrade_rejected", w.POLICY, f.CLIENT, 400, None, False, "the opening handshake is not acceptable"),
        Reason("upgrade_denied", w.NONE, f.NONE, 403, None, False, "the application refused the WebSocket"),
        Reason("origin_not_allowed", w.POLICY, f.CLIENT, 403, None, False, "Origin is not in websocket.origins"),
        Reason("credentials_expired", w.POLICY, f.CLIENT, 401, 4401, None, "its token, certificate or session was over and was not renewed in time"),
        Reason("credentials_revoked", w.POLICY, f.NONE, 401, 4501, False, "what it had proved itself with was taken back"),
        Reason("access_withdrawn", w.POLICY, f.NONE, 403, 4502, False, "the policy has changed, and does not allow it any more"),
        Reason("tls_handshake_failed", w.POLICY, f.CLIENT, None, None, None, "no common protocol or certificate, or a reset inside"),
        Reason("tls_timeout", w.CLIENT_SILENT, f.CLIENT, None, None, None, "handshake not complete within timeouts.tls"),
        Reason("plain_on_tls", w.POLICY, f.CLIENT, None, None, None, "plain HTTP sent to a TLS listener"),
        Reason("proxy_header_timeout", w.CLIENT_SILENT, f.CLIENT, None, None, None, "no PROXY header within timeouts.proxy"),
        Reason("invalid_proxy_header", w.POLICY, f.CLIENT, None, None, None, "not a PROXY protocol header"),
        Reason("invalid_request_line", w.POLICY, f.CLIENT, 400, None, False, "not an HTTP request line"),
        Reason("invalid_request_headers", w.POLICY, f.CLIENT, 400, None, False, "a header that has no single meaning"),
        Reason("invalid_request_body", w.POLICY, f.CLIENT, 400, None, False, "a body whose framing is broken"),
        Reason("unsupported_transfer_coding", w.POLICY, f.CLIENT, 501, None, False, "Transfer-Encoding other than chunked"),
        Reason("unsupported_version", w.POLICY, f.CLIENT, 505, None, False, "neither HTTP/1.0 nor HTTP/1.1"),
        Reason("unsupported_method", w.POLICY, f.CLIENT, 501, None, False, "a method this server does not do, such as CONNECT"),
        Reason("expectation_failed", w.POLICY, f.CLIENT, 417, None, False, "Expect other than 100-continue"),
        Reason("header_too_large", w.POLICY, f.CLIENT, 431, None, False, "head larger than limits.header_bytes or limits.headers"),
        Reason("uri_too_long", w.POLICY, f.CLIENT, 414, None, False, "request target longer than limits.target"),
        Reason("body_too_large", w.POLICY, f.CLIENT, 413, None, False, "body larger than limits.body"),
        Reason("response_start_timeout", w.APP_SLOW, f.APP, 504, None, None, "no http.response.start within timeouts.response_start"),
        Reason("handler_deadline", w.APP_SLOW, f.APP, 504, 1011, None, "not finished within timeouts.handler"),
        Reason("application_deadline", w.APP_SLOW, f.APP, 504, 1011, None, "a deadline of the application's own was missed, and nobody caught it"),
        Reason("caller_deadline", w.POLICY, f.CLIENT, 504, None, None, "not finished within the time its caller had left"),
        Reason("caller_deadline_passed", w.CLIENT, f.CLIENT, 504, None, None, "its caller had no time left before it began"),
        Reason("guard_refused", w.RESOURCE, f.OVERLOAD, 503, 1013, True, "a guard of the application (circuit, bulkhead, workers, offload) let nothing through"),
        Reason("access_denied", w.POLICY, f.CLIENT, 403, None, False, "who asked lacks a role that the application requires"),
        Reason("stream_idle", w.APP_SLOW, f.APP, None, None, True, "no byte either way for timeouts.stream_idle"),
        Reason("max_connection_duration", w.NONE, f.NONE, None, 1001, True, "timeouts.lifetime reached"),
        Reason("app_error_before_head", w.APP, f.APP, 500, 1011, None, "the application raised before its answer began"),
        Reason("error_after_starting_response", w.APP, f.APP, None, 1011, None, "the application raised inside its answer"),
        Reason("app_returned_without_response", w.APP, f.APP, 500, 1011, None, "the application returned and sent no answer"),
        Reason("response_content_length_mismatch", w.APP, f.APP, 500, None, None, "more or fewer bytes than its Content-Length"),
        Reason("invalid_response", w.APP, f.APP, 500, 1011, None, "the application sent what ASGI or HTTP does not allow"),
        Reason("concurrency_limit", w.RESOURCE, f.OVERLOAD, 503, 1013, True, "limits.requests reached and the queue is off"),
        Reason("queue_full", w.RESOURCE, f.OVERLOAD, 503, 1013, True, "limits.queue reached"),
        Reason("queue_timeout", w.RESOURCE, f.OVERLOAD, 503, 1013, True, "waited limits.queue_wait for a slot"),
        Reason("shed", w.RESOURCE, f.OVERLOAD, 503, 1013, True, "overload: others were served first (admission.mode)"),
        Reason("connection_limit", w.RESOURCE, f.OVERLOAD, 503, 1013, True, "limits.connections reached"),
        Reason("address_limit", w.RESOURCE, f.CLIENT, 503, 1013, True, "limits.connections_per_ip reached"),
        Reason("fd_exhausted", w.RESOURCE, f.SERVER, 503, 1013, True, "no file descriptor left"),
        Reason("draining", w.DRAIN, f.SHUTDOWN, 503, None, True, "drain.read_only: nothing is changed once a drain has begun"),
        Reason("drain_goodbye", w.DRAIN, f.NONE, 503, 1012, True, "told to reconnect because the server stops"),
        Reason("drain_forced", w.DRAIN, f.SHUTDOWN, 503, 1012, True, "cut because the time to drain was over"),
        Reason("worker_lost", w.INTERNAL, f.SERVER, None, 1006, True, "the worker process died"),
        Reason("hub_slow", w.CLIENT_SILENT, f.CLIENT, None, 4008, True, "more waited for this member of a hub than its channel's Outbox allows"),
        Reason("hub_gap", w.RESOURCE, f.NONE, None, 4011, True, "publications are missing for this member of a hub, and nothing else could say so"),
        Reason("hub_silent", w.NETWORK, f.NETWORK, None, 4012, True, "a member of a hub gave no sign of life (Ping)"),
        Reason("hub_rate", w.POLICY, f.CLIENT, 429, 4029, True, "a member of a hub sent more than Limits.inbound_rate"),
        Reason("hub_unidentified", w.CLIENT_SILENT, f.CLIENT, None, 4408, True, "did not say within Limits.auth_within who it is"),
        Reason("hub_unauthenticated", w.POLICY, f.CLIENT, 401, 4501, False, "what it brought to a hub proves nothing"),
        Reason("hub_disconnected", w.NONE, f.NONE, None, 4503, False, "the application ended this member of a hub"),
        Reason("hub_member_limit", w.RESOURCE, f.CLIENT, 503, 4504, False, "as many members of a hub from this address, or of this user, as may"),
        Reason("hub_full", w.RESOURCE, f.OVERLOAD, 503, 1013, True, "HubLimits.buffered bytes wait for the members of a hub"),
        Reason("hub_unavailable", w.RESOURCE, f.SERVER, 503, 1013, True, "the engine of a hub can't be reached"),
        Reason("sessions_unavailable", w.RESOURCE, f.SERVER, 503, 1013, True, "the store of the sessions can't be reached"),
        Reason("tasks_unavailable", w.RESOURCE, f.SERVER, 503, 1013, True, "the journal of durable tasks can't be used"),
        Reason("task_conflict", w.POLICY, f.CLIENT, 409, None, False, "an idempotency key was used before for another task, or other arguments"),
        Reason("task_not_found", w.POLICY, f.CLIENT, 404, None, False, "there is no such durable task, or no more"),
        Reason("admin_kill", w.OPERATOR, f.NONE, None, 4503, False, "an operator ended it"),
        Reason("internal_error", w.INTERNAL, f.SERVER, 500, 1011, True, "a bug in Sojourn; please report it with the traceback"),
    ]  # fmt: skip
    return {row.word: row for row in rows}


#: Every reason by its word. Metrics are labelled with these words and with nothing a client chose.
REASONS: Final[dict[str, Reason]] = _table()


class Ending(NamedTuple):
    """The one first cause of an end.

    Attributes:
        reason: A key of :data:`REASONS`.
        phase: Where the connection was.
        how: What was seen on the wire; None where nothing was (a request that completed).
        detail: Free text for the log: the parser's complaint, the deadline's name; "" when there is none.
    """

    reason: str
    phase: Phase
    how: How | None = None
    detail: str = ""

    @property
    def row(self) -> Reason:
        """What follows from the reason."""
        return REASONS[self.reason]

    @property
    def who(self) -> Who:
        """Whose act or silence ended it."""
        return REASONS[self.reason].who

    @property
    def code(self) -> str:
        """The two letters of the log: who and phase; ``--`` when it completed."""
        if self.reason == "completed":
            return "--"
        return REASONS[self.reason].who.value + self.phase.value
