"""What the layers of an application do to each other: changed scopes, bodies read twice."""
