"""State that outlives connections, kept in a store, and taken back everywhere at once."""
