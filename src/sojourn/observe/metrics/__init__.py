"""Metrics: what the server counts, in memory that supervisor and workers share, as one page. See README.md."""
