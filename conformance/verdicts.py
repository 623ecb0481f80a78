"""What the suite found, counted: failures first, strictness and information apart."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

#: Kinds of verdict, from best to worst; the two in the middle are no failures.
PASSED, NON_STRICT, INFORMATIONAL, FAILED = "passed", "non-strict", "informational", "failed"
_KINDS = {"OK": PASSED, "NON-STRICT": NON_STRICT, "INFORMATIONAL": INFORMATIONAL}
_ORDER = (PASSED, INFORMATIONAL, NON_STRICT, FAILED)


@dataclass
class Section:
    """The verdicts of one part of a run.

    Args:
        name: For the table.
        expected: How many cases it has.
    """

    name: str
    expected: int
    counts: Counter[str] = field(default_factory=Counter)
    #: Each case that is not simply passed, with the suite's words.
    remarks: list[str] = field(default_factory=list)
    #: Why the part was not run to its end; "" when it was.
    problem: str = ""
    seconds: float = 0.0

    def add(self, verdicts: dict[str, dict[str, Any]]) -> None:
        """Count the verdicts of a run."""
        for case, verdict in sorted(verdicts.items(), key=lambda item: [int(part) for part in item[0].split(".")]):
            # The closing handshake is judged apart from what the case is about; both must be right.
            behaviors = verdict["behavior"], verdict["behaviorClose"]
            kind = max((_KINDS.get(behavior, FAILED) for behavior in behaviors), key=_ORDER.index)
            self.counts[kind] += 1
            if kind != PASSED:
                code = verdict.get("remoteCloseCode")
                self.remarks.append(f"{case}: {behaviors[0]}, close {behaviors[1]}, our close code {code}")

    @property
    def total(self) -> int:
        """Cases that were run."""
        return sum(self.counts.values())

    @property
    def good(self) -> bool:
        """Every case was run, and none failed."""
        return not self.problem and not self.counts[FAILED] and self.total == self.expected


def table(sections: list[Section]) -> str:
    """The sections as a Markdown table, with a line of totals."""
    rows = ["| section | cases | passed | non-strict | informational | failed | seconds |", "|" + " --- |" * 7]
    whole = Section("all", sum(section.expected for section in sections))
    for section in sections:
        whole.counts += section.counts
        whole.seconds += section.seconds
        rows.append(_row(section))
    return "\n".join([*rows, _row(whole)])


def _row(section: Section) -> str:
    counts = section.counts
    cases = str(section.total) if section.total == section.expected else f"{section.total} of {section.expected}"
    numbers = [cases, *(str(counts[kind]) for kind in (PASSED, NON_STRICT, INFORMATIONAL, FAILED))]
    return f"| {section.name} | {' | '.join(numbers)} | {section.seconds:.0f} |"
