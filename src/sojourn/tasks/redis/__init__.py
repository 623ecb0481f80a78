"""The journal of durable tasks in Redis or Valkey: see README.md."""
