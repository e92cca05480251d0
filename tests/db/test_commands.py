"""`pgretrieve keys` and `pgretrieve doctor` as a user runs them, beside a service and without one."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from click.testing import CliRunner, Result
from pydantic import SecretStr
from sqlalchemy.exc import DBAPIError

from app.cli import main
from app.db.statements import statement
from app.doctor import database, examine
from app.doctor.findings import Finding
from app.settings import Settings
from tests.db.test_service import data_dir, serving

__all__ = ["data_dir"]  # a fixture

TROUBLE = """
    SET LOCAL search_path = pgretrieve_queue;
    INSERT INTO pgretrieve.namespaces (namespace_id, namespace_name, schema_name, mode, dynamic_vector_indexes)
    VALUES ('n', 'n', 'n', 'managed', false);
    INSERT INTO pgretrieve.vector_configs
        (namespace_id, name, position, column_name, dimension, metric, index_name, index_method, index_state)
    VALUES ('n', 'lost', 1, 'lost', 3, 'cosine', 'lost_hnsw', 'hnsw_vector', 'ready'),
        ('n', 'failed', 2, 'failed', 3, 'cosine', 'failed_hnsw', 'hnsw_vector', 'failed'),
        ('n', 'forgotten', 3, 'forgotten', 3, 'cosine', 'forgotten_hnsw', 'hnsw_vector', 'building'),
        ('n', 'awaited', 4, 'awaited', 3, 'cosine', 'awaited_hnsw', 'hnsw_vector', 'building'),
        ('n', 'exact', 5, 'exact', 9000, 'dot', 'exact_hnsw', 'exact', 'ready');
    INSERT INTO pgretrieve.vector_inference_map (namespace_id, name, inference_service)
    VALUES ('n', 'lost', 'openai_text_3_small'), ('n', 'failed', 'gone_service'), ('n', 'exact', 'made_service');
    INSERT INTO pgretrieve.inference_services (name, provider, model, dimension, settings, created_by)
    VALUES ('made_service', 'onnx', 'm', 9000, '{"of": "another version"}', 'root');
    INSERT INTO pgretrieve.api_keys (key_id, key_hash, name, scopes)
    VALUES ('root', sha256('another'), 'root key', '{*}');
    INSERT INTO pgretrieve_queue.procrastinate_jobs (queue_name, task_name, args, status)
    VALUES ('default', 'build_index', '{"namespace_id": "n", "name": "awaited"}', 'todo'),
        ('default', 'build_index', '{"namespace_id": "n", "name": "failed"}', 'failed'),
        ('default', 'build_index', '{"namespace_id": "n", "name": "exact"}', 'doing');
"""


@pytest.fixture(autouse=True)
def keep_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands run within this process, whose log is pytest's."""
    monkeypatch.setattr("app.commands.options.configure_logging", lambda *_: None)


def run(*arguments: str, **more: str) -> Result:
    """A command within this process: starting Python for each takes seconds."""
    unset = dict.fromkeys((n for n in os.environ if n.startswith(("PGRETRIEVE_", "DATABASE_URL"))), None)
    return CliRunner().invoke(main, arguments, env={**unset, **more}, prog_name="pgretrieve")


def test_keys_and_doctor_beside_a_service_and_after_it(data_dir: Path) -> None:
    here = ("--data-dir", str(data_dir))
    pid_file = data_dir / "postgres" / "postmaster.pid"
    with serving(*here, PGRETRIEVE_KEY_CACHE_S="0") as (process, url, _lines):
        made = run("keys", "create", "--name", "reader", "--scope", "read", "--expires", "30d", *here)
        assert made.exit_code == 0, made.stderr
        key, headers = made.stdout.strip(), {"Authorization": f"Bearer {made.stdout.strip()}"}
        assert key.startswith("pgr_")
        assert httpx.get(f"{url}/v1/namespaces", headers=headers).status_code == 200
        assert httpx.get(f"{url}/v1/keys", headers=headers).status_code == 403

        listed = {found["name"]: found for found in json.loads(run("keys", "list", "--json", *here).stdout)}
        reader = listed["reader"]
        assert (reader["status"], reader["created_by"], reader["scopes"]) == ("active", "pgretrieve keys", ["read"])
        assert listed["root key"]["key_id"] == "root"
        assert key not in str(listed)

        rotated = run("keys", "rotate", reader["key_id"], "--grace", "0m", *here)
        assert rotated.exit_code == 0, rotated.stderr
        assert httpx.get(f"{url}/v1/namespaces", headers=headers).status_code == 401
        headers = {"Authorization": f"Bearer {rotated.stdout.strip()}"}
        assert httpx.get(f"{url}/v1/namespaces", headers=headers).status_code == 200
        assert "no time" in run("keys", "rotate", reader["key_id"], "--grace", "soon", *here).stderr

        revoked = run("keys", "revoke", reader["key_id"], *here)
        assert f"{reader['key_id']} (reader) is revoked" in revoked.stdout
        assert httpx.get(f"{url}/v1/namespaces", headers=headers).status_code == 401

        healthy = run("doctor", *here)
        assert healthy.exit_code == 0, healthy.stdout
        assert "fail " not in healthy.stdout
        assert "answers" in healthy.stdout
        (data_dir / "root.key").chmod(0o644)
        sick = run("doctor", "--json", *here)
        assert sick.exit_code == 1
        told = json.loads(sick.stdout)
        assert told["ok"] is False
        (failed,) = [found for found in told["findings"] if found["status"] == "fail"]
        assert failed["check"] == "root key"
        assert "chmod 600" in failed["todo"]
        process.terminate()
        assert process.wait(30) == 0
    (data_dir / "root.key").chmod(0o600)

    asleep = run("doctor", *here)
    assert asleep.exit_code == 0
    assert "is not running" in asleep.stdout
    assert not pid_file.exists(), "the doctor starts nothing"
    table = run("keys", "list", *here)  # starts the server for itself, and stops it
    assert "reader" in table.stdout
    assert "revoked" in table.stdout
    assert not pid_file.exists()


def test_what_is_wrong_with_keys_is_said_plainly(tmp_path: Path, fresh_database: Callable[[], str]) -> None:
    nowhere = run("keys", "list", "--data-dir", str(tmp_path / "none"))
    assert nowhere.exit_code == 1
    assert "There is no database in" in nowhere.stderr
    assert not (tmp_path / "none").exists()
    url = fresh_database()
    wrong = run("keys", "create", "--name", "", "--scope", "*", "--namespace", "n", DATABASE_URL=url)
    assert wrong.exit_code == 1
    assert "1 to 200 characters" in wrong.stderr
    assert "no scope '*'" in wrong.stderr
    for arguments, said in (
        (["revoke", "root"], "cannot be revoked"),
        (["revoke", "key_none"], "No key 'key_none'"),
        (["create", "--name", "k", "--scope", "read", "--expires", "soon"], "is no time"),
    ):
        refused = run("keys", *arguments, DATABASE_URL=url)
        assert refused.exit_code != 0
        assert said in refused.stderr
        assert isinstance(refused.exception, SystemExit)


def found(settings: Settings, status: str = "fail") -> dict[str, list[Finding]]:
    by_check: dict[str, list[Finding]] = {}
    for finding in examine(settings):
        if finding.status == status:
            by_check.setdefault(finding.check, []).append(finding)
    return by_check


def settings_for(url: str, path: Path, **more: Any) -> Settings:
    return Settings(database_url=SecretStr(url), data_dir=path, openai_api_key=None, **more)


def test_a_new_database_is_healthy(fresh_database: Callable[[], str], tmp_path: Path) -> None:
    settings = settings_for(fresh_database(), tmp_path)
    assert found(settings) == {}
    assert {finding.check for finding in examine(settings) if finding.status == "ok"} == {
        "python",
        "root key",
        "settings",
        "database",
        "versions",
        "connections",
        "schema",
        "jobs",
        "indexes",
        "inference",
    }


def test_every_trouble_is_found(fresh_database: Callable[[], str], tmp_path: Path) -> None:
    url = fresh_database()
    (tmp_path / "root.key").touch(mode=0o600)
    (tmp_path / "root.key").write_text("pgr_the_root_key_of_this_directory")
    with psycopg.connect(url) as conn:
        conn.execute(TROUBLE)
    settings = settings_for(url, tmp_path, direct_database_url=SecretStr(fresh_database()))
    failures, warnings = found(settings), found(settings, "warn")
    assert [f.message[:6] for f in failures["indexes"]] == ["'lost'"]
    assert [f.message.split(" ")[0] for f in warnings["indexes"]] == ["'failed'", "'forgotten'"]
    told = [finding.message.split(" ") for finding in failures["inference"]]
    assert [words[0] for words in told[:2]] == ["made_service", "openai_text_3_small"]
    assert "gone_service," in told[2]
    assert "another database" in failures["direct database"][0].message
    assert "another root key" in warnings["root key"][0].message
    waiting, stalled, failed = warnings["jobs"]
    assert waiting.message.startswith("1 wait")
    assert stalled.message.startswith("1 began")
    assert failed.message.startswith("1 failed")
    assert "build_index" in failed.message
    assert all(finding.todo for findings in (failures, warnings) for each in findings.values() for finding in each)


def test_a_database_that_cannot_serve_says_why(
    empty_database: Callable[[], str], fresh_database: Callable[[], str], tmp_path: Path
) -> None:
    (unreachable,) = found(settings_for("postgresql://nobody:secret@127.0.0.1:1/none", tmp_path))["database"]
    assert "does not answer" in unreachable.message
    assert "secret" not in unreachable.message
    (empty,) = found(settings_for(empty_database(), tmp_path))["schema"]
    assert "revision none" in empty.message
    assert "pgretrieve migrate" in str(empty.todo)
    url = fresh_database()
    with psycopg.connect(url) as conn:
        conn.execute("UPDATE pgretrieve.alembic_version SET version_num = '9999'")
    (newer,) = found(settings_for(url, tmp_path))["schema"]
    assert "9999" in newer.message
    (room,) = found(settings_for(fresh_database(), tmp_path, pool_size=500))["connections"]
    assert "PGRETRIEVE_POOL_SIZE" in str(room.todo)
    (impatient,) = found(settings_for(fresh_database(), tmp_path, lock_timeout_ms=1_000), "warn")["locks"]
    assert "deadlock_timeout (1000 ms)" in impatient.message


def test_the_doctor_cannot_change_anything(fresh_database: Callable[[], str]) -> None:
    with database._connect(fresh_database()) as conn, pytest.raises(DBAPIError, match="read-only"):
        conn.execute(statement("revoke_key"), {"key_id": "root"})


def test_wrong_settings_are_findings_too() -> None:
    told = run("doctor", "--json", PGRETRIEVE_POOL_SIZE="many")
    assert told.exit_code == 1
    assert json.loads(told.stdout)["findings"][0]["message"].startswith("pool_size")
