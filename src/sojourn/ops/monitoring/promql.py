"""Pieces of PromQL that dashboards and rules are put together from.

A metric that other programs have too (``http_server_request_duration_seconds`` is OpenTelemetry's name) is always kept
to the targets that are a Sojourn: a dashboard by its variables, a rule by :data:`OURS`.
"""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["HTTP", "OURS", "Query", "increase", "per_server", "quantile", "rate", "rise"]

#: OpenTelemetry's name, for plain HTTP only: streams and WebSockets have their own.
HTTP: Final = "http_server_request_duration_seconds"
#: Keeps what comes from a Sojourn, and changes no value.
OURS: Final = "and on (job, instance) sojourn_build_info"


class Query(NamedTuple):
    """What is asked of Prometheus.

    Attributes:
        expr: PromQL.
        legend: Grafana's name of a series, such as ``{{reason}}``.
    """

    expr: str
    legend: str


def per_server(inner: str, *by: str) -> str:
    """The sum for each server, and for each value of these labels."""
    return f"sum by ({', '.join(('job', 'instance', *by))}) ({inner})"


def rate(counter: str, window: str, *by: str, select: str = "") -> str:
    """How often a second, for each server.

    Args:
        counter: Name of a counter.
        window: Such as ``5m``.
        by: Labels that stay.
        select: Matchers of the series, such as ``kind="tls"``.
    """
    return per_server(f"rate({_chosen(counter, select)}[{window}])", *by)


def increase(counter: str, window: str, *by: str, select: str = "") -> str:
    """By how much it rose, for each server. Arguments as in :func:`rate`."""
    return per_server(f"increase({_chosen(counter, select)}[{window}])", *by)


def rise(counter: str, window: str, *by: str, select: str = "") -> str:
    """By how much a rare counter rose, for each server. Arguments as in :func:`rate`.

    A series that was not there before has risen from zero; ``increase`` does not see that.
    """
    series = _chosen(counter, select)
    return per_server(f"increase({series}[{window}]) > 0 or ({series} > 0 unless {series} offset {window})", *by)


def quantile(share: float, histogram: str, window: str, *by: str) -> str:
    """A quantile for each server. ``histogram`` is a name without ``_bucket``; other arguments as in :func:`rate`."""
    return f"histogram_quantile({share}, {rate(f'{histogram}_bucket', window, 'le', *by)})"


def _chosen(metric: str, select: str) -> str:
    return f"{metric}{{{select}}}" if select else metric
