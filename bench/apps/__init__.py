"""The applications every server of the comparison runs."""
