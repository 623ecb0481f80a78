"""The admin listener: what can be asked of a server that runs, and what it can be told."""
