"""What an operator sees: logs, metrics, tasks, profiles, leaks, traces. See README.md."""
