"""The engine of one host: a broker that holds order, history and presence, and the workers that talk to it."""
