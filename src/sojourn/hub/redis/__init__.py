"""The hub's engine in Redis or Valkey: one order and one history for all nodes."""
