"""Operating a server that runs: one file per command. What they share: `client`, `asking`, `words`, `table`."""
