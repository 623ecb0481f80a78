"""The benchmark: Sojourn beside its peers on one machine. See README.md."""
