"""`python -m bench.scraper SOCKET SECONDS`: reads /metrics of an admin listener every so often."""

from __future__ import annotations

import socket
import sys
import time

DEADLINE = 10.0


def get(path: str, where: str, deadline: float = DEADLINE) -> tuple[int, bytes]:
    """One request to an admin listener on a Unix socket: status and body."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(deadline)
        client.connect(where)
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        data = b"".join(iter(lambda: client.recv(1 << 18), b""))
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head[9:12]), body


def main() -> None:
    """Runs until it is ended."""
    where, pause = sys.argv[1], float(sys.argv[2])
    while True:
        status, body = get("/metrics", where)
        print(status, len(body), flush=True)
        time.sleep(pause)


if __name__ == "__main__":
    main()
