"""What the kernel tells: processor clocks, memory, cores, versions."""

from __future__ import annotations

import datetime
import os
import platform
import resource
import sysconfig
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / "bench"
BUILD = BENCH / ".build"


def cores() -> tuple[int, int]:
    """The load's core and the server's core; the same one when there is no other."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[1] if len(allowed) > 1 else allowed[0]


def tree(pid: int) -> list[int]:
    """The process and all its descendants that are alive."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found.extend(int(child) for child in task.read_text().split())
            except OSError:
                continue
    return found


def cpu_seconds(pid: int) -> float:
    """Processor time of the tree, user and system, exact to the nanosecond.

    This is the process clock of clock_getcpuclockid(3); utime and stime of /proc have a 10 ms grain.
    """
    total = 0.0
    for each in tree(pid):
        try:
            total += time.clock_gettime((~each << 3) | 2)
        except OSError:
            continue
    return total


def memory_bytes(pid: int) -> dict[str, int]:
    """Rss, Pss and Uss of the tree in bytes (smaps_rollup)."""
    total = {"rss": 0, "pss": 0, "uss": 0}
    names = {"Rss:": "rss", "Pss:": "pss", "Private_Clean:": "uss", "Private_Dirty:": "uss"}
    for each in tree(pid):
        try:
            lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            words = line.split()
            if words[0] in names:
                total[names[words[0]]] += int(words[1]) * 1024
    return total


def busy_seconds(core: int) -> float:
    """Time the core was not idle since boot, stolen time included."""
    for line in Path("/proc/stat").read_text().splitlines():
        words = line.split()
        if words[0] == f"cpu{core}":
            idle = int(words[4]) + int(words[5])
            return (sum(int(word) for word in words[1:9]) - idle) / os.sysconf("SC_CLK_TCK")
    return 0.0


def raise_file_limit() -> int:
    """Soft limit of open files up to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def describe() -> dict[str, str]:
    """The machine, for the report."""
    info: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        info.setdefault(key.strip(), value.strip())
    optimised = "--enable-optimizations" in str(sysconfig.get_config_var("CONFIG_ARGS"))
    memory = Path("/proc/meminfo").read_text().split()[1]
    return {
        "processor": info.get("model name", platform.machine()),
        "cores": str(os.cpu_count()),
        "memory": f"{int(memory) / 1048576:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_version()}, {'with' if optimised else 'without'} profile-guided optimisation",
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
