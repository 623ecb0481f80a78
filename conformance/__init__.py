"""Conformance against a suite of others: Autobahn|Testsuite for WebSocket. See ``docs/conformance.md``."""
