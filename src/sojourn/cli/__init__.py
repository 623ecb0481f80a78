"""The command line. What serves is here, one file per command; what asks a running server is in ``ops``."""
