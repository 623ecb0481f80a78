"""Durable tasks in PostgreSQL: for nodes of all hosts, next to the application's own tables."""
