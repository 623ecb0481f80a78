"""All statements. Each call is one of them, and so one transaction and one way to the server and back.

Entries of a batch travel as arrays, a column each. Rows are locked in the order of the batch, which its caller sorts:
two batches do not wait for each other. The time is that of the server when a statement came.
"""

from __future__ import annotations

from typing import Final

__all__ = ["EVENTS", "SETTINGS", "Statements"]

#: Events of a task that are kept, and how many more there may be before they are removed together.
EVENTS: Final = 1000
_SLACK: Final = 100

#: Of our own connections. Tables of work grow and empty faster than statistics follow: a plan that was right for an
#: empty table must not stay when it is full, and the good plan is always the one by the indexes.
SETTINGS: Final = {
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_bitmapscan": "off",
}

_NOW: Final = "extract(epoch FROM statement_timestamp())::float8"

_TASK: Final = (
    "t.id, t.kind, t.state, {payload} AS payload, t.spec, t.owner, t.key, t.priority, t.run_at, t.keep, t.failures, "
    "t.interruptions, t.crashes, t.epoch, t.node, t.lease_until, t.cancelling, {result} AS result, t.error, "
    "{checkpoint} AS checkpoint, t.seq, t.created, t.begun, t.updated, t.ended"
)
_FULL: Final = _TASK.format(payload="t.payload", result="t.result", checkpoint="t.checkpoint")
_SHORT: Final = _TASK.format(payload="''::bytea", result="''::bytea", checkpoint="''::bytea")

_INSERT: Final = """
INSERT INTO {schema}.tasks (id, kind, payload, spec, owner, key, fingerprint, priority, run_at, keep, node, lease_until,
    state, epoch, created, updated, begun, claimed)
SELECT n.id, n.kind, n.payload, n.spec, n.owner, n.key, n.fingerprint, n.priority, coalesce(n.run_at, {now} + n.delay),
    n.keep, n.node, CASE WHEN n.node = '' THEN 0 ELSE {now} + n.lease END,
    CASE WHEN n.node = '' THEN 'pending' ELSE 'running' END, (n.node <> '')::int, {now}, {now},
    CASE WHEN n.node = '' THEN 0 ELSE {now} END, CASE WHEN n.node = '' THEN 0 ELSE {now} END
FROM {source}
ON CONFLICT DO NOTHING
"""

#: What a NewTask is, as arrays: from parameter so many on.
_NEW: Final = "text text bytea bytea text text text int float8 float8 float8 text float8".split()
_NEW_NAMES: Final = "id, kind, payload, spec, owner, key, fingerprint, priority, delay, run_at, keep, node, lease"


def _unnest(first: int, types: list[str], names: str) -> str:
    arrays = ", ".join(f"${first + index}::{name}[]" for index, name in enumerate(types))
    return f"unnest({arrays}) AS n({names})"


_KNOWN: Final = """
SELECT id, owner, key, fingerprint, state FROM {schema}.tasks WHERE id = ANY($1::text[])
UNION ALL
SELECT t.id, t.owner, t.key, t.fingerprint, t.state FROM unnest($2::text[], $3::text[]) AS k(owner, key)
JOIN {schema}.tasks t ON t.owner = k.owner AND t.key = k.key AND t.key <> ''
"""

# steps: of each kind, the priorities that wait, each found from the one above by one look into the index: what is due
#   later, or is less urgent, is never read.
# found: what is due, one more than wanted of each; lost are those whose lease has run out. Nothing is locked yet.
# shares: how many of each priority of each kind are the most urgent; so many are locked, whichever they are by then:
#   those that somebody else has locked are left to him.
_CLAIM: Final = """
WITH RECURSIVE
wanted AS MATERIALIZED (
    SELECT * FROM unnest($1::int[], $2::text[], $3::int[]) AS w(place, kind, n)
), steps(place, kind, n, priority) AS (
    SELECT w.place, w.kind, w.n, (
        SELECT t.priority FROM {schema}.tasks t WHERE t.state = 'pending' AND t.kind = w.kind
        ORDER BY t.priority DESC LIMIT 1)
    FROM wanted w
    UNION ALL
    SELECT s.place, s.kind, s.n, (
        SELECT t.priority FROM {schema}.tasks t WHERE t.state = 'pending' AND t.kind = s.kind
        AND t.priority < s.priority ORDER BY t.priority DESC LIMIT 1)
    FROM steps s WHERE s.priority IS NOT NULL
), found AS MATERIALIZED (
    SELECT s.place, s.kind, s.n, s.priority, t.run_at, false AS lost FROM steps s CROSS JOIN LATERAL (
        SELECT t.run_at FROM {schema}.tasks t WHERE t.state = 'pending' AND t.kind = s.kind
        AND t.priority = s.priority AND t.run_at <= {now} ORDER BY t.run_at LIMIT s.n + 1) t
    WHERE s.priority IS NOT NULL
    UNION ALL
    SELECT w.place, w.kind, w.n, t.priority, t.run_at, true FROM wanted w CROSS JOIN LATERAL (
        SELECT t.priority, t.run_at FROM {schema}.tasks t WHERE t.state = 'running' AND t.kind = w.kind
        AND t.lease_until < {now} ORDER BY t.lease_until LIMIT w.n + 1) t
), shares AS (
    SELECT kind, priority, lost, count(*) AS n
    FROM (SELECT *, row_number() OVER (PARTITION BY place ORDER BY priority DESC, run_at) AS rank FROM found) r
    WHERE rank <= n GROUP BY place, kind, priority, lost
), picked AS MATERIALIZED (
    SELECT t.id, t.epoch FROM shares s CROSS JOIN LATERAL (
        SELECT t.id, t.epoch FROM {schema}.tasks t WHERE t.state = 'pending' AND t.kind = s.kind
        AND t.priority = s.priority AND t.run_at <= {now} ORDER BY t.run_at LIMIT s.n FOR UPDATE SKIP LOCKED) t
    WHERE NOT s.lost
    UNION ALL
    SELECT t.id, t.epoch FROM shares s CROSS JOIN LATERAL (
        SELECT t.id, t.epoch FROM {schema}.tasks t WHERE t.state = 'running' AND t.kind = s.kind
        AND t.priority = s.priority AND t.lease_until < {now} ORDER BY t.lease_until LIMIT s.n
        FOR UPDATE SKIP LOCKED) t
    WHERE s.lost
), done AS (
    UPDATE {schema}.tasks t SET
        state = CASE WHEN t.cancelling THEN 'cancelled' ELSE 'running' END,
        ended = CASE WHEN t.cancelling THEN {now} ELSE 0 END,
        gone = CASE WHEN t.cancelling THEN {now} + t.keep ELSE 0 END,
        lease_until = CASE WHEN t.cancelling THEN 0 ELSE {now} + $5 END,
        cancelling = false, node = $4, epoch = t.epoch + 1, claimed = {now}, updated = {now},
        begun = CASE WHEN t.begun = 0 THEN {now} ELSE t.begun END,
        interruptions = t.interruptions + (t.state = 'running')::int,
        crashes = t.crashes + (t.state = 'running')::int
    FROM picked p WHERE t.id = p.id AND t.epoch = p.epoch AND t.state IN ('pending', 'running')
    RETURNING t.id, t.kind, t.epoch, t.payload, t.spec, t.owner, t.checkpoint, t.failures, t.interruptions, t.crashes,
        greatest(0, {now} - t.run_at) AS waited, {now} - t.created AS age, t.priority, t.state
), rest AS (
    SELECT (SELECT count(*) FROM found) AS due, CASE WHEN (SELECT count(*) FROM found) > $6 THEN NULL ELSE least(
        (SELECT min(t.run_at) FROM steps s CROSS JOIN LATERAL (
            SELECT t.run_at FROM {schema}.tasks t WHERE t.state = 'pending' AND t.kind = s.kind
            AND t.priority = s.priority AND t.run_at > {now} ORDER BY t.run_at LIMIT 1) t),
        (SELECT min(t.lease_until) FROM wanted w CROSS JOIN LATERAL (
            SELECT t.lease_until FROM {schema}.tasks t WHERE t.state = 'running' AND t.kind = w.kind
            AND t.lease_until >= {now} ORDER BY t.lease_until LIMIT 1) t)) - {now} END AS after
)
SELECT r.due, r.after, d.* FROM rest r LEFT JOIN done d ON true
"""

_BEAT: Final = """
UPDATE {schema}.tasks t SET lease_until = {now} + $3 FROM unnest($1::text[], $2::bigint[]) AS h(id, epoch)
WHERE t.id = h.id AND t.epoch = h.epoch AND t.node = $4 AND t.state = 'running' RETURNING t.id, t.cancelling
"""

_FINAL: Final = "s.outcome IN ('completed', 'failed', 'cancelled')"
_SETTLE: Final = """
UPDATE {schema}.tasks t SET
    state = CASE WHEN {final} THEN s.outcome WHEN t.cancelling THEN 'cancelled' ELSE 'pending' END,
    ended = CASE WHEN {final} OR t.cancelling THEN {now} ELSE 0 END,
    gone = CASE WHEN {final} OR t.cancelling THEN {now} + t.keep ELSE 0 END,
    run_at = CASE s.outcome WHEN 'retry' THEN {now} + s.delay WHEN 'handover' THEN {now} ELSE t.run_at END,
    begun = CASE WHEN s.outcome = 'unbegun' AND t.begun = t.claimed THEN 0 ELSE t.begun END,
    failures = t.failures + (s.outcome IN ('retry', 'failed'))::int,
    interruptions = t.interruptions + (s.outcome = 'handover')::int,
    result = CASE WHEN s.outcome = 'completed' THEN s.result ELSE t.result END,
    error = CASE WHEN s.outcome IN ('failed', 'retry') THEN s.error ELSE t.error END,
    checkpoint = coalesce(s.checkpoint, t.checkpoint),
    lease_until = 0, cancelling = false, settled = t.epoch, outcome = s.outcome, updated = {now}
FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bytea[], $5::bytea[], $6::float8[], $7::bytea[])
    AS s(id, epoch, outcome, result, error, delay, checkpoint)
WHERE t.id = s.id AND t.epoch = s.epoch AND t.state = 'running'
RETURNING t.id, t.epoch
"""

_SETTLED: Final = """
SELECT t.id, t.settled AS epoch, t.outcome FROM unnest($1::text[], $2::bigint[]) AS s(id, epoch)
JOIN {schema}.tasks t ON t.id = s.id AND t.settled = s.epoch
"""

# With the numbers of a batch: of one task, several events may come together.
_APPEND: Final = """
WITH said AS MATERIALIZED (
    SELECT * FROM unnest($1::text[], $2::bigint[], $3::int[], $4::bytea[]) AS s(id, epoch, n, checkpoint)
), done AS (
    UPDATE {schema}.tasks t SET seq = t.seq + s.n, checkpoint = coalesce(s.checkpoint, t.checkpoint), updated = {now}
    FROM said s WHERE t.id = s.id AND t.epoch = s.epoch AND t.state = 'running'
    RETURNING t.id, t.epoch, t.seq, t.seq - s.n AS base
), written AS (
    INSERT INTO {schema}.task_events (task, seq, at, data)
    SELECT d.id, d.base + e.place, {now}, e.data
    FROM unnest($5::text[], $6::bigint[], $7::int[], $8::bytea[]) AS e(id, epoch, place, data)
    JOIN done d ON d.id = e.id AND d.epoch = e.epoch
), removed AS (
    DELETE FROM {schema}.task_events e USING done d
    WHERE d.seq / {slack} <> d.base / {slack} AND d.seq > {events} AND e.task = d.id AND e.seq <= d.seq - {events}
)
SELECT id, epoch, base FROM done
"""

_CANCEL: Final = """
UPDATE {schema}.tasks t SET
    state = CASE WHEN t.state = 'pending' THEN 'cancelled' ELSE t.state END,
    ended = CASE WHEN t.state = 'pending' THEN {now} ELSE 0 END,
    gone = CASE WHEN t.state = 'pending' THEN {now} + t.keep ELSE 0 END,
    cancelling = t.state = 'running', updated = CASE WHEN t.cancelling THEN t.updated ELSE {now} END
WHERE t.id = $1 AND t.state IN ('pending', 'running') RETURNING {full}
"""

_RETRY: Final = """
UPDATE {schema}.tasks t SET state = 'pending', run_at = {now}, failures = 0, crashes = 0, ended = 0, gone = 0,
    updated = {now}
WHERE t.id = $1 AND t.state IN ('failed', 'cancelled') RETURNING {full}
"""

_GET: Final = "SELECT {full} FROM {schema}.tasks t WHERE t.id = $1"

_READ: Final = """
SELECT {full}, e.seqs, e.datas, e.ats FROM {schema}.tasks t CROSS JOIN LATERAL (
    SELECT array_agg(e.seq) AS seqs, array_agg(e.data) AS datas, array_agg(e.at) AS ats FROM (
        SELECT e.seq, e.data, e.at FROM {schema}.task_events e
        WHERE e.task = t.id AND e.seq > greatest($2, t.seq - {events}) ORDER BY e.seq LIMIT $3) e) e
WHERE t.id = $1
"""

# The place of a task that is gone is told by its id, as far as ids grow with time.
_LIST: Final = """
SELECT {short} FROM {schema}.tasks t
WHERE (cardinality($1::text[]) = 0 OR t.state = ANY($1)) AND ($2 = '' OR t.kind = $2)
AND ($3::text IS NULL OR t.owner = $3)
AND (t.created, t.id) < (coalesce((SELECT b.created FROM {schema}.tasks b WHERE b.id = $4), 'infinity'), $4)
AND ($4 = '' OR t.id < $4 OR EXISTS (SELECT FROM {schema}.tasks b WHERE b.id = $4))
ORDER BY t.created DESC, t.id DESC LIMIT $5
"""

_COUNTS: Final = """
SELECT kind, state, count(*) AS n, max({now} - run_at) AS oldest FROM {schema}.tasks
WHERE state = 'pending' AND ($1::text[] IS NULL OR kind = ANY($1)) GROUP BY kind, state
UNION ALL
SELECT kind, state, count(*), NULL FROM {schema}.tasks
WHERE state = 'running' AND ($1::text[] IS NULL OR kind = ANY($1)) GROUP BY kind, state
UNION ALL
SELECT kind, state, count(*), NULL FROM {schema}.tasks
WHERE gone > 0 AND ($1::text[] IS NULL OR kind = ANY($1)) GROUP BY kind, state
"""

_SWEEP: Final = """
WITH over AS MATERIALIZED (
    SELECT t.id FROM {schema}.tasks t WHERE t.gone > 0 AND t.gone <= {now} ORDER BY t.gone LIMIT $1
    FOR UPDATE SKIP LOCKED
), events AS (
    DELETE FROM {schema}.task_events e USING over o WHERE e.task = o.id
), tasks AS (
    DELETE FROM {schema}.tasks t USING over o WHERE t.id = o.id AND t.gone > 0 RETURNING 1
)
SELECT count(*) FROM tasks
"""


class Statements:
    """The statements, for the tables of one schema.

    Args:
        schema: Where the tables are: a plain name.
    """

    __slots__ = (
        "append",
        "beat",
        "cancel",
        "channel",
        "claim",
        "counts",
        "get",
        "insert",
        "known",
        "list",
        "notify",
        "read",
        "retry",
        "settle",
        "settle_then",
        "settled",
        "sweep",
    )

    def __init__(self, schema: str) -> None:
        words = {"schema": schema, "now": _NOW, "events": EVENTS, "slack": _SLACK, "final": _FINAL}
        words |= {"full": _FULL, "short": _SHORT}
        self.channel = f"{schema}_tasks"
        self.insert = _INSERT.format(source=_unnest(1, _NEW, _NEW_NAMES), **words) + "RETURNING id"
        self.known = _KNOWN.format(**words)
        self.claim = _CLAIM.format(**words)
        self.beat = _BEAT.format(**words)
        self.settle = _SETTLE.format(**words)
        follow = _unnest(8, [*_NEW, "text", "bigint"], f"{_NEW_NAMES}, parent, run")
        follow += " JOIN done d ON d.id = n.parent AND d.epoch = n.run"
        self.settle_then = (
            f"WITH done AS ({self.settle}), follow AS ({_INSERT.format(source=follow, **words)}) SELECT * FROM done"
        )
        self.settled = _SETTLED.format(**words)
        self.append = _APPEND.format(**words)
        self.cancel = _CANCEL.format(**words)
        self.retry = _RETRY.format(**words)
        self.get = _GET.format(**words)
        self.read = _READ.format(**words)
        self.list = _LIST.format(**words)
        self.counts = _COUNTS.format(**words)
        self.sweep = _SWEEP.format(**words)
        self.notify = f"SELECT pg_notify('{self.channel}', p) FROM unnest($1::text[]) AS p"
