"""The commands as a user runs them: they start, serve, stop cleanly, and say plainly what is wrong."""

import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest

from tests import servers

KEY = "a key of sixteen"
COMMAND = [sys.executable, "-m", "app.cli"]


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with servers.temporary_directory() as path:
        yield path


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PGRETRIEVE_", "DATABASE_URL"))}
    return {**kept, "PYTHONUNBUFFERED": "1", **more}


@contextmanager
def serving(*arguments: str, **more: str) -> Iterator[tuple[subprocess.Popen[str], str, list[str]]]:
    """A `pgretrieve serve` that is up: the process, its base URL, and the lines it has printed."""
    port = free_port()
    command = [*COMMAND, "serve", "--port", str(port), *arguments]
    process = subprocess.Popen(
        command, env=environment(**more), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    lines: list[str] = []
    assert process.stdout is not None
    try:
        for line in process.stdout:
            lines.append(line)
            if "Uvicorn running" in line:
                break
        assert process.poll() is None, "".join(lines)
        yield process, f"http://127.0.0.1:{port}", lines
    finally:
        if process.poll() is None:
            process.kill()
        process.stdout.close()
        process.wait()


def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
    return port


def test_serve_makes_a_key_serves_and_stops_its_server_cleanly(data_dir: Path) -> None:
    for _start in range(2):  # the second one finds data and key
        with serving("--data-dir", str(data_dir)) as (process, url, lines):
            key_file = data_dir / "root.key"
            assert f"in {key_file}" in "".join(lines)
            assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
            key = key_file.read_text().strip()
            assert httpx.get(f"{url}/v1/namespaces").status_code == 401
            answer = httpx.get(f"{url}/v1/namespaces", headers={"Authorization": f"Bearer {key}"})
            assert answer.status_code == 200
            assert httpx.get(f"{url}/health/ready").json()["status"] == "ok"
            assert key not in "".join(lines)
            server = re.search(r"psql '(.*)'", "".join(lines))
            assert server is not None
            with psycopg.connect(server[1]) as conn:
                stored = conn.execute("SELECT key_hash FROM pgretrieve.api_keys").fetchone()
                assert stored is not None
                assert key.encode() not in bytes(stored[0])
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        assert not (data_dir / "postgres" / "postmaster.pid").exists()


def test_a_killed_service_leaves_a_server_that_the_next_one_takes_over(data_dir: Path) -> None:
    pid_file = data_dir / "postgres" / "postmaster.pid"
    with serving("--data-dir", str(data_dir)) as (process, _url, _lines):
        postmaster = pid_file.read_text().splitlines()[0]
        process.kill()
        process.wait(30)
    assert pid_file.read_text().splitlines()[0] == postmaster
    with serving("--data-dir", str(data_dir)) as (process, url, _lines):
        assert pid_file.read_text().splitlines()[0] == postmaster
        assert httpx.get(f"{url}/health/ready").status_code == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert not pid_file.exists()


def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], env=environment(**more), capture_output=True, text=True, timeout=60, check=False
    )


def test_an_outdated_schema_is_refused_until_it_is_migrated(server_url: str, data_dir: Path) -> None:
    name = "pgretrieve_test_outdated"
    with psycopg.connect(server_url, autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name}")
    url = servers.with_database(server_url, name)
    try:
        refused = run("serve", "--data-dir", str(data_dir), "--port", "0", DATABASE_URL=url)
        assert refused.returncode == 1
        assert refused.stderr.strip().splitlines()[-1].startswith("Error: The database's schema is at revision none")
        assert "pgretrieve migrate" in refused.stderr
        assert run("migrate", DATABASE_URL=url).returncode == 0
        with serving("--data-dir", str(data_dir), DATABASE_URL=url, PGRETRIEVE_ROOT_KEY=KEY) as (
            _,
            at,
            _l,
        ):
            headers = {"Authorization": f"Bearer {KEY}"}
            assert httpx.get(f"{at}/v1/namespaces", headers=headers).status_code == 200
            assert not (data_dir / "root.key").exists()
    finally:
        with psycopg.connect(server_url, autocommit=True) as conn:
            conn.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_what_is_wrong_is_said_in_a_line() -> None:
    unreachable = run("serve", DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert unreachable.returncode == 1
    assert "Error: The database cannot be reached" in unreachable.stderr
    assert "Traceback" not in unreachable.stderr
    wrong = run("serve", PGRETRIEVE_POOL_SIZE="many", PGRETRIEVE_ROOT_KEY="short")
    assert wrong.returncode == 1
    assert "pool_size" in wrong.stderr
    assert "root_key" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_migrate_prints_its_statements_without_a_database() -> None:
    printed = run("migrate", "--sql")
    assert printed.returncode == 0
    assert "CREATE TABLE pgretrieve.namespaces" in printed.stdout
