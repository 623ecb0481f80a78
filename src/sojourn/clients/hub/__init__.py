"""A client of a hub: joins channels, and comes back after each cut without losing its place. See README.md."""
