"""Build the browser client: ``python scripts/build_browser_client.py``. Needs node and npm; users need neither.

Terser shortens ``sojourn.js`` to ``sojourn.min.js``, a module, and to ``sojourn.classic.min.js``, which sets the global
``Sojourn``. Each begins with the start of the source's SHA-256, by which a test knows that it is up to date.
"""

from __future__ import annotations

import gzip
import hashlib
import subprocess
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "src" / "sojourn" / "hub" / "browser"
TERSER = "terser@5.51.2"
_OPTIONS = ["--ecma", "2022", "--mangle", "--mangle-props", "regex=/^_/"]
_COMPRESS = "passes=3"
_EXPORT = "export function Sojourn("


def mark(source: bytes) -> bytes:
    """The first line of what was built from a source."""
    return b"//%b\n" % hashlib.sha256(source).hexdigest()[:12].encode()


def classic(source: str) -> str:
    """The module as a script that sets a global."""
    before, after = source.split(_EXPORT)
    return f"var Sojourn = (() => {{ {before} return function Sojourn({after} }})();"


def shorten(terser: Path, text: str, folder: Path, *options: str) -> bytes:
    """What Terser makes of a text."""
    given = folder / "given.js"
    given.write_text(text)
    command = [str(terser), str(given), *options, *_OPTIONS, "--compress", _COMPRESS]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.strip()


def main() -> None:
    source = (FOLDER / "sojourn.js").read_bytes()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run(["npm", "install", "--silent", "--prefix", name, TERSER], check=True)
        terser = folder / "node_modules" / ".bin" / "terser"
        built = {
            "sojourn.min.js": shorten(terser, source.decode(), folder, "--module"),
            "sojourn.classic.min.js": shorten(terser, classic(source.decode()), folder),
        }
    for file, code in built.items():
        whole = mark(source) + code + b"\n"
        (FOLDER / file).write_bytes(whole)
        print(f"{file}: {len(whole):,} bytes, {len(gzip.compress(whole, 9, mtime=0)):,} with gzip")


if __name__ == "__main__":
    main()
