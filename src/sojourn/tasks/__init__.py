"""Durable tasks: 202 now, finished whatever happens."""
