"""Dashboards: what they show (one file each), and how that is written for Grafana."""
