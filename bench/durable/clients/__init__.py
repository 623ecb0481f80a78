"""A module for each peer, run in its own environment: the peer, and ``bench.durable.child``."""
