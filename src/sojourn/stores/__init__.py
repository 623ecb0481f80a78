"""Glue around the packages of stores that several services use: see README.md."""
