"""A module for each task queue, run in its own environment: the one task, how it is submitted, what a worker needs."""
