"""All metrics there are: name, meaning, labels, and how the numbers of several workers become one.

Pure data. Whoever counts names a family of this table and gives a value for each of its labels; nothing else appears on
the page. Labels are chosen by the server or by the application's code, never by a client.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

__all__ = ["FAMILIES", "PREFIX", "TABLE", "Family", "Join", "Kind", "Rest"]

PREFIX: Final = "sojourn_"


class Kind(Enum):
    """What a family is to Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Join(Enum):
    """How the values of workers are put together."""

    SUM = "sum"
    MAX = "max"
    #: Each for itself, with a label ``worker``.
    WORKER = "worker"


class Rest(Enum):
    """What becomes of a gauge when its worker has ended; counters and histograms are always added up."""

    DROP = "drop"
    ADD = "add"
    #: It stays until another worker has ended with a value of its own.
    LAST = "last"


class Family(NamedTuple):
    """One metric.

    Attributes:
        name: As on the page; a counter with ``_total``.
        kind: What it is.
        help: One line.
        labels: Names of its labels.
        buckets: Upper bounds of a histogram, without infinity.
        join: How the values of workers are put together.
        rest: What becomes of a gauge when its worker has ended.
        known: Label values that are there from the beginning, with 0. None have no label or come when they come.
        most: Series a worker may have; one more has ``other`` for its label values.
        supervised: Whether only the supervisor knows it.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    join: Join = Join.SUM
    rest: Rest = Rest.DROP
    known: tuple[tuple[str, ...], ...] = ()
    most: int = 200
    supervised: bool = False

    @property
    def width(self) -> int:
        """Numbers that a series has: a histogram one for each bucket, one above them, and the sum."""
        return len(self.buckets) + 2 if self.kind is Kind.HISTOGRAM else 1


#: Series of a family whose labels name routes.
_ROUTES: Final = 1000
#: Series of a family with outcomes of guards: each guard has up to eight.
_GUARDS: Final = 1000
#: The seconds of OpenTelemetry for http.server.request.duration.
_REQUEST: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_SHORT: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)
_LONG: Final = (0.01, 0.1, 1.0, 10.0, 60.0, 300.0, 1800.0, 7200.0, 43200.0, 86400.0)
_WAITED: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
_RUN: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 43200.0)
_LAG: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
_PAUSE: Final = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_START: Final = (0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


def _each(*words: str) -> tuple[tuple[str, ...], ...]:
    return tuple((word,) for word in words)


def _counter(name: str, text: str, labels: str = "", **more: object) -> Family:
    return Family(PREFIX + name, Kind.COUNTER, text, tuple(labels.split()), **more)  # type: ignore[arg-type]


def _gauge(name: str, text: str, labels: str = "", join: Join = Join.SUM, **more: object) -> Family:
    return Family(PREFIX + name, Kind.GAUGE, text, tuple(labels.split()), join=join, **more)  # type: ignore[arg-type]


def _histogram(name: str, text: str, buckets: tuple[float, ...], labels: str = "", **more: object) -> Family:
    return Family(PREFIX + name, Kind.HISTOGRAM, text, tuple(labels.split()), buckets, **more)  # type: ignore[arg-type]


_GENERATIONS: Final = _each("0", "1", "2")
_PHASES: Final = _each("notice", "finish", "cut", "persist")
_WAYS: Final = _each("in", "out")
_OWNERS: Final = _each("request", "connection", "server", "application")
_OFFLOADED: Final = tuple((to, state) for to in ("thread", "process") for state in ("running", "waiting"))

_RESUMES: Final = _each("recovered", "gap", "fresh")
_DROPS: Final = _each("disconnect", "drop_oldest", "drop_newest", "block")

#: States of connections that every server knows; others come when they come.
_STATES: Final = (("none", "opening"), ("http", "request"), ("http", "idle"), ("websocket", "open"))

FAMILIES: Final = (
    # Connections
    _gauge("connections", "Open connections, by what is spoken and what they do.", "protocol state", known=_STATES),
    _gauge("connections_limit", "Connections that may be open; absent when there is no limit."),
    _counter("connections_accepted_total", "Connections accepted, those over a limit included."),
    _counter("connections_refused_total", "Connections over a limit.", "reason"),
    _counter("connections_ended_total", "Connections ended.", "protocol reason fault"),
    _histogram("connection_duration_seconds", "From accept to the end, to a tenth of a second.", _LONG, "protocol"),
    _histogram("handshake_duration_seconds", "TLS from accept; WebSocket from its request.", _SHORT, "kind"),
    _counter("bytes_total", "Bytes received (in) and handed to the kernel (out).", "direction", known=_WAYS),
    _counter("deadlines_missed_total", "Deadlines that passed and ended something.", "deadline"),
    _counter("caller_deadlines_total", "Requests that brought a deadline, by what followed.", "outcome"),
    _gauge("buffered_bytes", "Bytes that wait for clients that are behind."),
    _gauge("outbox_high_bytes", "Most bytes that waited for one client, lately.", join=Join.MAX),
    _gauge("connections_behind", "Connections whose client does not take what waits for it."),
    _gauge("accept_paused", "Listeners that leave new connections to the kernel."),
    # Requests: plain HTTP under OpenTelemetry's name, what lasts for long apart from it
    Family(
        "http_server_request_duration_seconds",
        Kind.HISTOGRAM,
        "From the end of the request's head to the end of the answer; no event streams, no WebSockets.",
        ("http_request_method", "http_route", "http_response_status_code", "error_type"),
        _REQUEST,
        most=_ROUTES,
    ),
    _gauge("requests_running", "HTTP requests in the application that are not answered."),
    _gauge("requests_queued", "HTTP requests that wait for one of limits.requests."),
    _histogram("request_queue_wait_seconds", "Wait of requests that got a slot, to a tenth of a second.", _SHORT),
    _gauge("requests_limit", "HTTP requests that may run at once in each worker, as found out.", join=Join.WORKER),
    _counter("requests_shed_total", "HTTP requests not begun because of overload.", "priority reason"),
    _gauge("pressure_level", "Measures taken because there is too little of this.", "cause", join=Join.MAX),
    _counter("requests_ended_total", "HTTP requests ended, event streams included.", "reason fault"),
    _counter("event_streams_total", "Event streams ended.", "route reason", most=_ROUTES),
    _histogram("event_stream_duration_seconds", "From request to end.", _LONG),
    _counter("websockets_total", "WebSockets ended, refused ones included.", "route reason", most=_ROUTES),
    _histogram("websocket_duration_seconds", "From request to end, of accepted ones.", _LONG),
    _counter("websocket_messages_total", "Messages received (in) and sent (out).", "direction", known=_WAYS),
    _histogram("ping_round_trip_seconds", "From our ping to the client's pong.", _SHORT),
    _counter("pongs_missed_total", "Pings that a client did not answer in time."),
    # Guards of outgoing calls: breakers, bulkheads, retries, workers; named by the application's code
    _counter("guard_calls_total", "Calls of guards, by what became of them.", "kind guard outcome", most=_GUARDS),
    _gauge("guard_running", "Calls that a guard let through and that have not ended.", "kind guard"),
    _gauge("guard_waiting", "Calls that wait at a guard.", "kind guard"),
    _gauge("guard_state", "Circuit breakers: 0 closed, 1 half-open, 2 open.", "kind guard", join=Join.MAX),
    # Hubs of the application, all of a process together; gauges are there once there is one
    _gauge("hub_members", "Members, by transport; direct: a WebSocket of this server.", "transport"),
    _gauge("hub_members_suspect", "Members that have missed a ping."),
    _gauge("hub_members_slow", "Members for whom more waits than the high watermark."),
    _gauge("hub_channels", "Channels with members; one with members on two workers counts twice."),
    _gauge("hub_present", "Members that presence shows, once for each channel."),
    _gauge("hub_buffered_bytes", "Bytes that wait for members."),
    _gauge("hub_buffered_high_bytes", "Most bytes that waited for the members of a worker, lately.", join=Join.MAX),
    _counter("hub_published_total", "Publications of the application and of members."),
    _counter("hub_received_total", "Messages that came from members."),
    _counter("hub_deliveries_total", "Messages to members: a publication to a thousand is a thousand."),
    _counter("hub_bytes_total", "Bytes of those."),
    _counter("hub_dropped_total", "Messages not sent, by the policy that dropped them.", "policy", known=_DROPS),
    _counter("hub_conflated_total", "Messages not sent because a later one of the same key was there."),
    _counter("hub_gaps_total", "Gaps that members were told of."),
    _counter("hub_resumes_total", "Channels joined, by what became of the resume.", "outcome", known=_RESUMES),
    _counter("hub_refused_total", "Members and messages over a limit.", "limit"),
    _counter("hub_closes_total", "Members closed by the hub.", "code"),
    _counter("hub_holes_total", "Publications that the engine did not deliver, and that were looked for."),
    _counter("hub_repositioned_total", "Channels read again because the engine may have lost something."),
    _histogram("hub_round_trip_seconds", "From a ping of the hub to the first sign of life.", _SHORT),
    _gauge("hub_engine_lag_seconds", "How long the engine took to answer lately.", join=Join.MAX),
    _gauge("hub_engine_away_for_seconds", "Since the engine can't be reached; 0 while it can.", join=Join.MAX),
    _counter("hub_engine_away_seconds_total", "Seconds for which it could not be reached."),
    _counter("hub_engine_losses_total", "Times that it could not be reached any more."),
    # Durable tasks; what is in the journal is asked when the page is made, by one worker
    _counter("journal_submitted_total", "Durable tasks started here.", "kind"),
    _counter("journal_runs_total", "Runs of durable tasks that have ended, by how.", "kind outcome"),
    _counter("journal_interruptions_total", "Runs handed over, or taken up after a crash.", "kind why"),
    _counter("journal_lost_total", "Runs whose lease was lost or not renewed in time.", "kind"),
    _counter("journal_fenced_total", "Ends of runs that did not count: another had the task.", "kind"),
    _counter("journal_self_fenced_total", "Runs cancelled because their lease could not be renewed."),
    _histogram("journal_wait_seconds", "From when a durable task was due to its run.", _WAITED, "kind"),
    _histogram("journal_run_seconds", "How long runs lasted.", _RUN, "kind"),
    _gauge("journal_running", "Durable tasks that run.", "kind"),
    _gauge("journal_held", "Leases that are held."),
    _gauge("journal_room", "How many more could run."),
    _gauge("journal_tasks", "Durable tasks in the journal, of all nodes.", "kind state", join=Join.MAX),
    _gauge("journal_due_oldest_seconds", "How long the oldest due task has waited.", "kind", join=Join.MAX),
    _gauge("journal_away_for_seconds", "Since the journal can't be reached; 0 while it can.", join=Join.MAX),
    _counter("journal_away_seconds_total", "Seconds for which it could not be reached."),
    _counter("journal_losses_total", "Times that it could not be reached any more."),
    _counter("journal_call_failures_total", "Calls to the journal that failed.", "call"),
    _counter("journal_claims_total", "Times that the journal was asked for work."),
    _counter("journal_claimed_total", "Durable tasks that it gave."),
    _counter("journal_beats_total", "Times that leases were renewed."),
    # The event loop and the process
    _histogram("loop_lag_seconds", "How much later than it was due the server's timer was served.", _LAG),
    _counter("loop_stalls_total", "Times that the event loop stood still.", "cause"),
    _counter("loop_stalled_seconds_total", "Seconds for which it did."),
    _histogram("gc_pause_seconds", "Pauses of the garbage collector.", _PAUSE, "generation", known=_GENERATIONS),
    _counter("gc_collected_total", "Objects that it collected.", "generation", known=_GENERATIONS),
    _counter("gc_uncollectable_total", "Objects that it could not collect.", "generation", known=_GENERATIONS),
    _gauge("tasks", "Tasks, by what they belong to.", "owner", known=_OWNERS),
    _counter("tasks_lost_total", "Tasks that the collector took although they had not ended."),
    _counter("tasks_survived_total", "Tasks that did not end although they were cancelled again and again."),
    _counter("tasks_failed_total", "Tasks of sojourn.spawn and after_response that failed."),
    _gauge("offload_calls", "Calls of sojourn.offload, running or waiting.", "to state", known=_OFFLOADED),
    _gauge("leaks", "What is alive past its declared end.", "kind"),
    _counter("leaks_found_total", "Kinds of leaks found, each once.", "kind"),
    _gauge("leases", "What is taken from a pool.", "pool"),
    _counter("lease_overdue_total", "Leases held for longer than diagnostics.lease_held.", "pool"),
    _gauge("fds", "Open file descriptors, of the worker that has most.", join=Join.MAX),
    _gauge("fds_limit", "File descriptors that a worker may have.", join=Join.MAX),
    _gauge("sockets", "Sockets of the process, by state.", "state"),
    _gauge("memory_resident_bytes", "Resident memory.", join=Join.WORKER),
    _counter("processor_seconds_total", "Processor time of all workers."),
    _counter("log_lines_lost_total", "Lines of the log that could not be written.", "cause"),
    # Drain
    _gauge("drain_phase", "1 while a worker is in this phase of its drain.", "phase", join=Join.MAX, known=_PHASES),
    _gauge("drain_phase_seconds", "How long it lasted, in the last drain.", "phase", join=Join.MAX, rest=Rest.LAST),
    _gauge("drain_left_seconds", "Seconds until all that is left is cut.", join=Join.MAX),
    _gauge("drain_connections", "Connections of all drains, by what became of them.", "kind outcome", rest=Rest.ADD),
    # Workers and the whole
    _gauge("worker_up", "1 while the worker serves.", "worker", supervised=True),
    _gauge("worker_beat_age_seconds", "Since the last sign of life of its event loop.", "worker", supervised=True),
    _histogram("worker_start_seconds", "From the start of a worker until it served.", _START, supervised=True),
    _counter("worker_restarts_total", "Workers replaced, or gone, and why.", "cause", supervised=True),
    _gauge("config_version", "The how-manieth configuration since the start it is.", join=Join.MAX),
    _gauge("build_info", "What serves; always 1.", "version python loop", join=Join.MAX),
)  # fmt: skip

#: The families by their name.
TABLE: Final = {family.name: family for family in FAMILIES}
