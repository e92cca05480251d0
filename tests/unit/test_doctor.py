"""What the doctor tells of this machine and of settings, without a database."""

from pathlib import Path
from typing import Any

import pytest

from app.doctor import combinations, machine
from tests.fakes import settings_of

POOLER = "postgresql://u:secret@db.example:6432/d"


@pytest.mark.parametrize(
    ("chosen", "status", "said"),
    [
        ({}, "ok", "do not contradict"),
        ({"hnsw_ef_construction": 31}, "fail", "pgvector refuses"),
        ({"direct_database_url": "postgresql://d"}, "fail", "without DATABASE_URL"),
        ({"database_url": POOLER, "prepare_statements": False}, "warn", "DIRECT_DATABASE_URL is not set"),
        ({"database_url": POOLER, "direct_database_url": "postgresql://d"}, "warn", "statements are prepared"),
        ({"index_build_memory_mb": 2**30}, "warn", "over half"),
        ({"max_document_bytes": 2**27}, "warn", "never reached"),
        ({"lock_timeout_ms": 20_000, "lock_attempts": 1}, "warn", "never gives way"),
        ({"lock_timeout_ms": 10_000}, "warn", "official client waits"),
        ({"statement_timeout_ms": 60_000}, "warn", "official client waits"),
        ({"inference_timeout_s": 60}, "warn", "official client waits"),
    ],
)
def test_settings_that_contradict_each_other(chosen: dict[str, Any], status: str, said: str) -> None:
    (finding,) = combinations.findings(settings_of(**chosen))
    assert finding.status == status
    assert said in finding.message
    assert "secret" not in finding.message
    assert bool(finding.todo) is (status != "ok")


def test_a_directory_and_a_key_that_are_right_and_wrong(tmp_path: Path) -> None:
    def told(check: str) -> list[str]:
        findings = machine.findings(settings_of(data_dir=tmp_path / "data"))
        return [finding.status for finding in findings if finding.check == check]

    assert (told("data directory"), told("root key")) == (["ok"], ["ok"])
    (tmp_path / "data").mkdir(mode=0o700)
    key = tmp_path / "data" / "root.key"
    key.touch(mode=0o600)
    assert told("root key") == ["fail"], "it is empty"
    key.write_text("pgr_something")
    assert (told("data directory"), told("root key")) == (["ok"], ["ok"])
    key.chmod(0o640)
    assert told("root key") == ["fail"]
    (tmp_path / "data").chmod(0o770)
    assert told("data directory") == ["warn"]
