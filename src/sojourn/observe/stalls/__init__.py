"""What blocks the event loop, by name."""
