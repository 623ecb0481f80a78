"""Durable tasks: what waits, what runs, what fails, what was interrupted, and how the journal is."""

from __future__ import annotations

from typing import Final

from sojourn.ops.monitoring.dashboards.model import Bound, Dashboard, Panel, Row, each, mean, quantiles, rate

__all__ = ["DASHBOARD"]

DASHBOARD: Final = Dashboard(
    "sojourn-tasks",
    "Sojourn: durable tasks",
    "What waits in the journal, what runs, how long it takes, what fails, what was interrupted, how the journal is.",
    (
        Row(
            "What there is",
            (
                Panel(
                    "Waiting and running",
                    "In the journal, of all nodes, by kind. Asked when the metrics are read, and shown by one worker.",
                    (each("sojourn_journal_tasks", "kind", "state", select='state=~"pending|running"', join="max"),),
                ),
                Panel(
                    "Oldest due",
                    "How long the oldest due task has waited: nobody has room for it, or nobody knows its kind.",
                    (each("sojourn_journal_due_oldest_seconds", "kind", join="max"),),
                    unit="s",
                    bounds=(Bound(60, "orange"), Bound(900, "red")),
                ),
                Panel(
                    "Ended and kept",
                    "Records that are kept: completed for their time, failed until somebody looks.",
                    (
                        each(
                            "sojourn_journal_tasks",
                            "kind",
                            "state",
                            select='state=~"completed|failed|cancelled"',
                            join="max",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "Work",
            (
                Panel(
                    "Started",
                    "Tasks that were submitted here, by kind.",
                    (rate("sojourn_journal_submitted_total", "kind"),),
                    unit="ops",
                ),
                Panel(
                    "Runs ended",
                    "By outcome. retry: failed and tried again; unbegun: claimed and given back before it ran.",
                    (rate("sojourn_journal_runs_total", "outcome"),),
                    unit="ops",
                ),
                Panel(
                    "Running",
                    "Tasks that run, by kind; leases that are held, those claimed ahead included; room for more.",
                    (
                        each("sojourn_journal_running", "kind"),
                        each("sojourn_journal_held", legend="held"),
                        each("sojourn_journal_room", legend="room"),
                    ),
                ),
                Panel(
                    "Wait",
                    "From when a task was due to its run.",
                    (*quantiles("sojourn_journal_wait_seconds"), mean("sojourn_journal_wait_seconds")),
                    unit="s",
                ),
                Panel(
                    "Run",
                    "How long runs lasted, however they ended, by kind.",
                    quantiles("sojourn_journal_run_seconds", "kind", shares=(0.95,)),
                    unit="s",
                ),
                Panel(
                    "Failed for good",
                    "Tasks of which no attempt is left; `sojourn journal list --state failed` says why.",
                    (rate("sojourn_journal_runs_total", "kind", select='outcome="failed"'),),
                    unit="ops",
                    bounds=(Bound(0.1, "yellow"),),
                ),
            ),
        ),
        Row(
            "Interruptions",
            (
                Panel(
                    "Interrupted",
                    "drain: handed over because a node ends. crash: taken up because a node was lost.",
                    (rate("sojourn_journal_interruptions_total", "why"),),
                    unit="ops",
                ),
                Panel(
                    "Lost",
                    "Leases that went to others or could not be renewed; ends that did not count; runs cancelled here.",
                    (
                        rate("sojourn_journal_lost_total", legend="lost"),
                        rate("sojourn_journal_fenced_total", legend="fenced"),
                        rate("sojourn_journal_self_fenced_total", legend="cancelled here"),
                    ),
                    unit="ops",
                    bounds=(Bound(0.1, "yellow"),),
                ),
            ),
        ),
        Row(
            "Journal",
            (
                Panel(
                    "Away",
                    "For how long it can't be reached. Requests are served, submissions get 503.",
                    (each("sojourn_journal_away_for_seconds", "instance", join="max"),),
                    unit="s",
                    bounds=(Bound(10, "orange"), Bound(60, "red")),
                ),
                Panel(
                    "Losses and failed calls",
                    "How often it was lost, the share of the time without it, all workers added up; calls that failed.",
                    (
                        rate("sojourn_journal_losses_total", legend="losses"),
                        rate("sojourn_journal_away_seconds_total", legend="away"),
                        rate("sojourn_journal_call_failures_total", "call"),
                    ),
                ),
                Panel(
                    "Calls",
                    "Times it was asked for work, tasks it gave, renewals of leases.",
                    (
                        rate("sojourn_journal_claims_total", legend="claims"),
                        rate("sojourn_journal_claimed_total", legend="claimed"),
                        rate("sojourn_journal_beats_total", legend="beats"),
                    ),
                    unit="ops",
                ),
            ),
        ),
    ),
)
