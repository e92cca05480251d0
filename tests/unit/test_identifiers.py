"""Names of schemas and columns: plain, never alike, never special, and the same tomorrow."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.db.identifiers import MAX_LENGTH, RESERVED_COLUMNS, RESERVED_SCHEMAS, sql_name

RESERVED = st.sampled_from([RESERVED_SCHEMAS, RESERVED_COLUMNS, frozenset[str]()])
SPECIAL = sorted(RESERVED_SCHEMAS | RESERVED_COLUMNS | {"pg_catalog", "PG_toast", "", "_", "-", "1", "é", "Ⅷ", "a\n"})
# Names that a careless rule would make alike: by case, by what is replaced, by what is cut, by a hash that they bear.
NEAR = st.text("aA_- 1é", max_size=6)
LONG = st.builds(lambda end, length: "a" * length + end, NEAR, st.integers(MAX_LENGTH - 12, MAX_LENGTH + 12))
RAW = st.one_of(st.text(), NEAR, LONG, st.sampled_from(SPECIAL))
MADE = st.builds(sql_name, RAW, RESERVED)
ANY = st.one_of(RAW, MADE, st.builds("{}_{:08x}".format, NEAR, st.integers(0, 2**32 - 1)))


@given(ANY, RESERVED, st.integers(0, 40))
@example("pg_", frozenset(), 0)
@example("0", frozenset(), 0)
@example("İ" * 63, frozenset(), 0)
def test_a_name_is_plain_and_never_special(raw: str, reserved: frozenset[str], suffix_room: int) -> None:
    name = sql_name(raw, reserved, suffix_room=suffix_room)
    assert re.fullmatch(r"[a-z_][a-z0-9_]*", name)
    assert len(name.encode()) <= MAX_LENGTH - suffix_room
    assert name not in reserved
    assert not name.startswith("pg_")
    assert sql_name(raw, reserved, suffix_room=suffix_room) == name


@given(st.lists(ANY, min_size=2, max_size=12, unique=True), RESERVED)
def test_different_names_stay_different(raws: list[str], reserved: frozenset[str]) -> None:
    assert len({sql_name(raw, reserved) for raw in raws}) == len(raws)


@given(ANY, RESERVED)
def test_a_name_that_was_made_is_not_what_another_name_is(raw: str, reserved: frozenset[str]) -> None:
    made = sql_name(raw, reserved)
    assert made == raw or sql_name(made, reserved) != made


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("catalog", "catalog"),
        ("text_embedding_2", "text_embedding_2"),
        ("Text-Embedding", "text_embedding_2c3a3076"),
        ("payload", "payload_239f59ed"),
        ("pg_stat", "n_pg_stat_bfd4a597"),
        ("PG", "n_pg_91f026c9"),
        ("2024", "n_2024_6557739a"),
        ("é", "n_4a99557e"),
        ("deadbeef_deadbeef", "deadbeef_deadbeef_e9e6193b"),
    ],
)
def test_names_never_change_between_versions(raw: str, name: str) -> None:
    """They name what lies in databases."""
    assert sql_name(raw, RESERVED_COLUMNS) == name
