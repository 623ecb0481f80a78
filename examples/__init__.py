"""Applications that show Sojourn at work."""
