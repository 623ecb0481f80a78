"""``sojourn top``: a live view of a server in a terminal. The views are data; only `app` knows Textual."""
