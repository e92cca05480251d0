"""How much memory and how many cores there are, and what the embedded server should be told because of it."""

import os
from contextlib import suppress
from pathlib import Path

MIB = 2**20
CGROUP = Path("/sys/fs/cgroup")
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - it is measured, nothing is written there


def fitted_settings(memory_bytes: int, cores: int) -> dict[str, str]:
    """What PostgreSQL should be told on a machine of this size, which it shares with the service."""
    memory = memory_bytes // MIB
    cores = max(cores, 1)

    def share(part: int, at_least: int, at_most: int) -> str:
        return f"{min(max(memory // part, at_least), at_most)}MB"

    return {
        "shared_buffers": share(4, 16, 16_384),
        "effective_cache_size": share(2, 32, 262_144),
        # An HNSW build that outgrows this falls back to inserting row by row, several times slower.
        "maintenance_work_mem": share(16, 16, 2_048),
        # Iterative index scans stop at work_mem times hnsw.scan_mem_multiplier.
        "work_mem": share(256, 4, 64),
        "max_worker_processes": str(cores + 8),
        "max_parallel_workers": str(cores),
        "max_parallel_workers_per_gather": str(min(cores // 2, 4)),
        "max_parallel_maintenance_workers": str(min(cores - 1, 8)),
        "random_page_cost": "1.1",  # solid state: the default of 4 turns the planner away from vector indexes
        "jit": "off",  # vector queries take milliseconds; compiling one takes tens
        "wal_compression": "on",
        # Bulk loads of vectors write gigabytes of log: checkpoints by the clock, not each 1 GB.
        "max_wal_size": "4GB",
        "checkpoint_timeout": "15min",
    }


def machine_settings() -> dict[str, str]:
    """`fitted_settings` of this machine, or of the container's limits where they are lower."""
    settings = fitted_settings(available_memory(), available_cores())
    with suppress(OSError):
        space = os.statvfs(SHARED_MEMORY)
        if space.f_frsize * space.f_blocks < 1024 * MIB:
            # Docker gives /dev/shm 64 MB, where a parallel HNSW build fails; System V memory lies elsewhere.
            settings["dynamic_shared_memory_type"] = "sysv"
    return settings


def available_memory() -> int:
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [physical]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # cgroup v2, v1
        with suppress(OSError, ValueError):  # not there, or "max"
            limits.append(int((CGROUP / name).read_text()))
    return min(limits)


def available_cores() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        quota, period = (CGROUP / "cpu.max").read_text().split()
        cores = min(cores, max(int(quota) // int(period), 1))
    return cores
