"""The embedded server, with real processes: owners that die, servers that die, paths, modes, versions."""

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.db.embedded import EmbeddedServer, fitted_settings
from app.errors import Conflict, Unavailable
from tests import servers

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the embedded server needs Unix")
SIZE = st.integers(256 * 2**20, 4 * 2**40)


@pytest.fixture
def empty_dir() -> Iterator[Path]:
    with servers.temporary_directory() as path:
        yield path / "data"


@pytest.fixture(scope="module")
def data_dir() -> Iterator[Path]:
    """One cluster for the tests that need no empty directory: making one takes longer than most of them."""
    with servers.temporary_directory() as path:
        yield path


def embedded(data_dir: Path, **settings: str) -> EmbeddedServer:
    return EmbeddedServer(data_dir, settings=servers.HASTY | settings)


def value(url: str, query: str) -> str:
    with psycopg.connect(url) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return str(row[0])


def wait_for_the_end_of(pid: int) -> None:
    """Of a process that is not our child: once it is a zombie or gone, it holds nothing any more."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except OSError:
            return
        time.sleep(0.01)
    raise AssertionError(f"process {pid} is still there")


def test_data_survive_a_restart_and_files_are_private(empty_dir: Path) -> None:
    server = embedded(empty_dir, application_name="it's \\ fine")
    with server:
        url = server.url
        with psycopg.connect(url) as connection:
            connection.execute("CREATE EXTENSION vector")
            connection.execute("CREATE TABLE kept AS SELECT '[1,2]'::vector AS v")
        assert value(url, "SHOW listen_addresses") == ""
        assert value(url, "SHOW shared_buffers") == "64MB"
        assert value(url, "SHOW jit") == "off"
        assert value(url, "SELECT lower('ÉCOLE')") == "école"
        assert value(url, "SELECT reset_val FROM pg_settings WHERE name = 'application_name'") == "it's \\ fine"
        for path in ("postgres", "postgres.log", "service.lock", "postgres/pgretrieve.conf"):
            mode = stat.S_IMODE((empty_dir / path).stat().st_mode)
            assert mode & 0o077 == 0, f"{path} has mode {mode:o}"
        assert stat.S_IMODE(empty_dir.stat().st_mode) == (0o701 if os.geteuid() == 0 else 0o700)
        pid = server.postmaster.pid
    wait_for_the_end_of(pid)
    server.stop()  # once more does no harm
    with pytest.raises(Unavailable, match="not running"):
        _ = server.url
    assert server.start() == url
    try:
        assert value(url, "SELECT v::text FROM kept") == "[1,2]"
        assert server.postmaster.pid != pid
    finally:
        server.stop()
    assert "automatic recovery" not in (empty_dir / "postgres.log").read_text()


def test_a_second_owner_is_refused(data_dir: Path) -> None:
    with embedded(data_dir) as server:
        with pytest.raises(Conflict, match=f"process {os.getpid()}") as refused:
            embedded(data_dir).start()
        assert str(data_dir) in refused.value.message
        with pytest.raises(Conflict):
            server.start()
        assert value(server.url, "SELECT 1") == "1"


OWNER = """
import pathlib, signal, sys
from tests.db.test_embedded import embedded
server = embedded(pathlib.Path(sys.argv[1]))
server.start()
print(server.postmaster.pid, flush=True)
signal.pause()
"""


def left_behind(data_dir: Path) -> int:
    """The postmaster of an owner that was killed."""
    command = [sys.executable, "-c", OWNER, str(data_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        owner.kill()
    return pid


def test_takes_over_a_server_whose_owner_was_killed(data_dir: Path) -> None:
    pid = left_behind(data_dir)
    os.kill(pid, 0)
    with embedded(data_dir) as server:
        assert server.postmaster.pid == pid
        assert value(server.url, "SELECT 1") == "1"
    wait_for_the_end_of(pid)


def test_recovers_when_server_and_owner_were_killed(data_dir: Path) -> None:
    pid = left_behind(data_dir)
    log = data_dir / "postgres.log"
    log.write_text("")
    os.kill(pid, signal.SIGKILL)  # its other processes may still be ending when the next one starts
    with embedded(data_dir) as server:
        assert server.postmaster.pid != pid
        assert value(server.url, "SELECT 1") == "1"
    assert "automatic recovery" in log.read_text()


def test_waits_for_the_orphans_of_a_killed_server(data_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    with embedded(data_dir) as server, psycopg.connect(server.url) as connection:
        orphan, pid = connection.info.backend_pid, server.postmaster.pid
        os.kill(orphan, signal.SIGSTOP)  # as if within a long system call
        os.kill(pid, signal.SIGKILL)
        wait_for_the_end_of(pid)
    threading.Timer(1, os.kill, (orphan, signal.SIGCONT)).start()
    with caplog.at_level("INFO", logger="app.db.embedded"), embedded(data_dir) as server:
        assert value(server.url, "SELECT 1") == "1"
    assert "trying again" in caplog.text


def test_stops_when_the_server_is_gone_and_recovers(data_dir: Path) -> None:
    with embedded(data_dir) as server:
        os.kill(server.postmaster.pid, signal.SIGKILL)
        wait_for_the_end_of(server.postmaster.pid)
    with embedded(data_dir) as server:
        assert value(server.url, "SELECT 1") == "1"


def test_is_not_misled_by_another_process_with_the_number_of_its_server(data_dir: Path) -> None:
    with embedded(data_dir) as server:
        pid_file = data_dir / "postgres" / "postmaster.pid"
        lines = pid_file.read_text().splitlines(keepends=True)
    with subprocess.Popen(["sleep", "60"]) as other:
        pid_file.write_text("".join([f"{other.pid}\n", *lines[1:]]))
        try:
            with embedded(data_dir) as server:
                assert server.postmaster.pid != other.pid
            assert other.poll() is None
        finally:
            other.kill()


def test_long_and_awkward_paths_and_what_a_killed_initdb_left(empty_dir: Path) -> None:
    deep = empty_dir / ("long" * 30) / 'a, "b" $HOME `c` é'
    (deep / "postgres.new" / "base").mkdir(parents=True)
    with embedded(deep) as server:
        assert value(server.url, "SHOW data_directory") == str(deep / "postgres")
        socket_dir = Path(server.postmaster.socket_dir)
        assert len(str(socket_dir)) < 80
        assert stat.S_IMODE(socket_dir.stat().st_mode) == 0o700
    assert not socket_dir.exists()
    assert not (deep / "postgres.new").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_takes_data_that_root_restored(data_dir: Path) -> None:
    with embedded(data_dir):
        pass
    for folder, folders, files in os.walk(data_dir / "postgres"):
        for name in [".", *folders, *files]:
            os.chown(Path(folder, name), 0, 0)
    with embedded(data_dir) as server:
        assert value(server.url, "SELECT 1") == "1"
    assert (data_dir / "postgres").stat().st_uid != 0


def test_says_why_it_does_not_start(data_dir: Path) -> None:
    with pytest.raises(Unavailable, match="shared_buffers") as refused:
        embedded(data_dir, shared_buffers="plenty").start()
    assert str(data_dir / "postgres.log") in refused.value.message
    with embedded(data_dir):  # the lock was given back
        pass


def test_refuses_data_of_another_major_version(empty_dir: Path) -> None:
    (empty_dir / "postgres").mkdir(parents=True)
    (empty_dir / "postgres" / "PG_VERSION").write_text("15\n")
    with pytest.raises(Unavailable, match="PostgreSQL 15, and this installation carries 18") as refused:
        embedded(empty_dir).start()
    assert refused.value.error_code == "unsupported_database"


def test_says_that_the_wheel_is_missing(empty_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.db.embedded.programs.find_spec", lambda name: None)
    with pytest.raises(Unavailable, match="set DATABASE_URL"):
        embedded(empty_dir).start()


@pytest.mark.skipif(sys.platform != "linux", reason="the wheel with PostgreSQL 16 is for Linux")
def test_runs_the_oldest_supported_version(empty_dir: Path) -> None:
    with EmbeddedServer(empty_dir, bin_dir=servers.pg16_binaries(), settings=servers.HASTY) as server:
        assert value(server.url, "SHOW server_version").startswith("16.")
        assert value(server.url, "SELECT lower('ÉCOLE')") == "école"
        with psycopg.connect(server.url) as connection:
            connection.execute("CREATE EXTENSION vector")


def megabytes(setting: str) -> int:
    assert setting.endswith("MB")
    return int(setting.removesuffix("MB"))


@given(SIZE, st.integers(1, 256))
def test_settings_fit_the_machine(memory: int, cores: int) -> None:
    settings = fitted_settings(memory, cores)
    total = memory // 2**20
    assert megabytes(settings["shared_buffers"]) <= 0.4 * total
    assert megabytes(settings["effective_cache_size"]) <= total
    assert megabytes(settings["maintenance_work_mem"]) + megabytes(settings["shared_buffers"]) <= 0.5 * total
    assert megabytes(settings["work_mem"]) >= 4
    assert int(settings["max_parallel_workers"]) <= int(settings["max_worker_processes"])
    assert 0 <= int(settings["max_parallel_workers_per_gather"]) <= cores
    assert 0 <= int(settings["max_parallel_maintenance_workers"]) < cores


@given(SIZE, SIZE, st.integers(1, 256))
def test_more_memory_never_means_smaller_settings(one: int, other: int, cores: int) -> None:
    less, more = (fitted_settings(memory, cores) for memory in sorted([one, other]))
    for name in ("shared_buffers", "effective_cache_size", "maintenance_work_mem", "work_mem"):
        assert megabytes(less[name]) <= megabytes(more[name])
