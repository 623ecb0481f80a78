"""Profiles: stacks with values, from tasks, threads, processor time, waits, stalls and memory. See README.md."""
