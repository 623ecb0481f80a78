"""Clients of other services, bounded by the ambient deadline. See README.md."""
