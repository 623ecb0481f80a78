"""The demo: ``make demo``, then http://127.0.0.1:8000."""
