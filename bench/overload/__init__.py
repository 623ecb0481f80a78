"""What becomes of a server when more is asked of it than it can do."""
