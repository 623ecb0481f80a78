"""How often clients may come. See README.md."""
