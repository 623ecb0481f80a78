"""The hub's client for browsers, and what serves it."""
