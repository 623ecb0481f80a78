"""How connections end, added up. See README.md."""

from __future__ import annotations

from sojourn.observe.endings.endings import Endings
from sojourn.observe.endings.report import EofReport, merged

__all__ = ["Endings", "EofReport", "merged"]
