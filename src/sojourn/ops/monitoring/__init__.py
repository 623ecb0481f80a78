"""Dashboards for Grafana, recording rules and alerts for Prometheus, described once and written as files."""
