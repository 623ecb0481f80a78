"""Drills: real processes under load are stopped, restarted, killed and blocked, and a promise is checked."""
