"""Why an event loop stood still, from what was measured meanwhile.

Nobody can ask a thread what kept it. But a second thread, the watchdog, wanted to run at a known moment, and when it
came to run tells a lot. It was in time: so the interpreter was free, and the loop's thread was in some code. It was
late: then it waited either for the interpreter, whose lock is kept by native code (who waits for it gives the processor
away 200 times a second, which the kernel counts), or for the machine (then nothing is counted, because nothing runs).
"""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["CAUSES", "LATE", "Facts", "cause_of"]

#: What can be found.
CAUSES: Final = ("code", "gc", "native", "machine")
#: Seconds by which a thread wakes late on an ordinary busy day: four turns of 5 ms at the interpreter.
LATE: Final = 0.02
#: Times a second that a thread gives the processor away while it waits for the interpreter, and the part of it that is
#: proof: the interval of ``sys.setswitchinterval`` is 5 ms, and a busy machine makes it longer.
_WAITS: Final = 200.0
_PROOF: Final = 0.25
#: Shares of the stall.
_MOST: Final = 0.5
_NOTHING: Final = 0.1


class Facts(NamedTuple):
    """What is known of a stall.

    Attributes:
        seconds: How late the loop was.
        watched: Seconds of that in which the watchdog should have been awake.
        late: By how much the watchdog woke late; more than ``watched`` when the loop went on before it.
        waits: How often the watchdog gave the processor away while it was late; None where nobody counts.
        processor: Seconds of processor time that the loop's thread used.
        process: The same for all threads of the process.
        collector: Seconds in the garbage collector.
        idle: Whether the loop's thread was seen, and ran nothing.
    """

    seconds: float
    watched: float
    late: float
    waits: int | None
    processor: float
    process: float
    collector: float
    idle: bool


def cause_of(facts: Facts) -> str:
    """The cause, one of :data:`CAUSES`."""
    if facts.collector >= _MOST * facts.seconds:
        return "gc"
    if facts.late < max(LATE, _MOST * facts.watched):
        # The watchdog ran. A loop that runs nothing and uses nothing has waited for the machine in short pieces.
        starved = facts.idle and facts.process < _NOTHING * facts.seconds
        return "machine" if starved else "code"
    if facts.waits is not None and facts.waits >= _PROOF * _WAITS * facts.late:
        return "native"
    if facts.process < _MOST * facts.seconds:
        return "machine"
    # Somebody ran all the time. Without a count it was native; with one, a machine with too few processors let the
    # loop's thread go on and the watchdog wait.
    return "native" if facts.waits is None else "code"
