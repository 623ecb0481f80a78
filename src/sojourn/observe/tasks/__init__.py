"""Every task of the event loop: who made it and where, whose it is, what it waits for. See README.md."""
