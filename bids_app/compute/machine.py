"""How much of the machine this process may use."""

from __future__ import annotations

import os
from pathlib import Path

# The rest is left to the system beside our own processes.
_MEMORY_SHARE = 0.9


def cpu_count() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))


def available_memory_gb() -> float:
    """Memory that this process may use, in GB: the machine's or its cgroup's."""
    limit = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    for name in ('memory.max', 'memory/memory.limit_in_bytes'):
        path = Path('/sys/fs/cgroup') / name
        if path.is_file() and path.read_text().strip().isdigit():
            limit = min(limit, int(path.read_text()))
    return round(_MEMORY_SHARE * limit / 1e9, 1)
