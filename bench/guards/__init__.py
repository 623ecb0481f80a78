"""What a guard costs that has nothing to do."""
