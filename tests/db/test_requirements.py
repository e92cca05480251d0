"""The floors of PostgreSQL and pgvector."""

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.db.requirements import at_least, check_server, lacks
from app.errors import Unavailable

versions = st.lists(st.integers(0, 99), min_size=3, max_size=3)


@pytest.mark.parametrize(
    ("version", "floor", "enough"),
    [
        ("0.8.4", "0.8.4", True),
        ("0.8.3", "0.8.4", False),
        ("0.10.0", "0.8.4", True),
        ("0.8", "0.8.4", False),
        ("1", "0.8.4", True),
        ("16.4 (Debian 16.4-1.pgdg120+2)", "16", True),
        ("15.13 (Ubuntu 15.13-0ubuntu0.22.04.1)", "16", False),
        ("18beta1", "16", True),
        ("9.6.24", "16", False),
        ("unknown", "16", False),
    ],
)
def test_versions_compare_by_number(version: str, floor: str, enough: bool) -> None:
    assert at_least(version, floor) is enough


@given(versions, versions)
def test_versions_compare_like_their_numbers(left: list[int], right: list[int]) -> None:
    assert at_least(".".join(map(str, left)), ".".join(map(str, right))) is (left >= right)


@pytest.mark.parametrize(
    ("server", "installed", "available", "says"),
    [
        ("15.13", None, "0.8.6", ["PostgreSQL 15.13", "16 or newer", "Upgrade"]),
        ("18.1", None, None, ["no pgvector", "0.8.4 or newer", "Install"]),
        ("18.1", "0.7.4", "0.8.6", ["pgvector 0.7.4", "carries 0.8.6", "ALTER EXTENSION vector UPDATE"]),
        ("18.1", "0.7.4", "0.8.0", ["pgvector 0.7.4", "newer package"]),
        ("18.1", None, "0.8.0", ["pgvector 0.8.0", "newer package"]),
        ("14.2", None, None, ["PostgreSQL 14.2", "no pgvector"]),
    ],
)
def test_says_what_was_found_and_what_to_do(
    server: str, installed: str | None, available: str | None, says: list[str]
) -> None:
    message = " ".join(lacks(server, installed, available))
    assert all(part in message for part in says), message


@pytest.mark.parametrize(("installed", "available"), [("0.8.4", "0.8.6"), (None, "0.8.4"), ("0.8.5", None)])
def test_accepts_what_is_new_enough(installed: str | None, available: str | None) -> None:
    assert lacks("16.4 (Debian 16.4-1.pgdg120+2)", installed, available) == []


def test_accepts_the_test_server(server_url: str) -> None:
    with psycopg.connect(server_url) as connection:
        check_server(connection)


def test_refuses_with_a_stable_code(server_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.db.requirements.PGVECTOR", "99.0")
    with (
        psycopg.connect(server_url) as connection,
        pytest.raises(Unavailable, match="needs 99") as refused,
    ):
        check_server(connection)
    assert refused.value.error_code == "unsupported_database"
