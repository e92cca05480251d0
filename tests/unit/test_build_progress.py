"""The percentage of an index build, by PostgreSQL's phases."""

import pytest

from app.domain.indexing.build_progress import percentage_of


@pytest.mark.parametrize(
    ("phase", "tuples", "blocks", "percentage"),
    [
        ("initializing", (0, 0), (0, 0), 0.0),
        ("waiting for writers before build", (0, 0), (0, 0), 0.0),
        ("building index: initializing", (0, 0), (0, 0), 0.0),
        ("building index: loading tuples", (700, 0), (50, 100), 48.5),
        ("building index: loading tuples", (700, 1000), (0, 0), 67.9),
        ("building index: loading tuples", (700, 0), (130, 100), 97.0),  # the table has grown
        ("index validation: scanning index", (0, 0), (0, 0), 97.0),
        ("index validation: scanning table", (0, 0), (1, 2), 98.5),
        ("waiting for old snapshots", (0, 0), (2, 2), 99.0),
        ("a phase of a later version", (1, 2), (1, 2), 0.0),
    ],
)
def test_each_phase_is_a_part_of_the_whole(
    phase: str, tuples: tuple[int, int], blocks: tuple[int, int], percentage: float
) -> None:
    told = {"phase": phase, "tuples_done": tuples[0], "tuples_total": tuples[1]}
    assert percentage_of(told | {"blocks_done": blocks[0], "blocks_total": blocks[1]}) == percentage
