"""Fan-out to connections that last: channels, history and resume, presence, bounded outboxes, engines."""
