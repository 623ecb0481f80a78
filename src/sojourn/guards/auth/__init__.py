"""Who asks, whether that is proved, and for how long it counts."""
