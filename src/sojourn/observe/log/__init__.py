"""What an operator sees of the server: its access log and its messages. See README.md."""

from __future__ import annotations

from sojourn.observe.log.console import Console, configure
from sojourn.observe.log.install import Installed, Losses, install

__all__ = ["Console", "Installed", "Losses", "configure", "install"]
