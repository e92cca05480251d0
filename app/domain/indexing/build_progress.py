"""How far a build of an index is, of the phase, tuples and blocks that PostgreSQL tells of while it runs. Pure."""

from collections.abc import Mapping
from typing import Any

# The phases of a concurrent build that take time, and which part of the whole each is. Loading took 99 % of a build
# with 50,000 vectors of 128 dimensions; pgvector tells its blocks, and no total of tuples.
PHASES: tuple[tuple[str, float, float], ...] = (
    ("building index", 0, 97),
    ("waiting for writers before validation", 97, 97),
    ("index validation: scanning index", 97, 98),
    ("index validation: sorting tuples", 98, 98),
    ("index validation: scanning table", 98, 99),
    ("waiting for old snapshots", 99, 99),
)


def percentage_of(build: Mapping[str, Any]) -> float:
    """The percentage of an index that is there, by what PostgreSQL tells of its build."""
    for phase, begins, ends in PHASES:
        if build["phase"].startswith(phase):
            done, total = build["tuples_done"], build["tuples_total"]
            if not total:
                done, total = build["blocks_done"], build["blocks_total"]
            return round(begins + (ends - begins) * min(done / total, 1.0), 1) if total else float(begins)
    return 0.0
