"""Durable tasks beside other task queues, on the same Redis, PostgreSQL and SQLite."""
