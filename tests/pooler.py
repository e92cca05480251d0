"""PgBouncer in transaction mode before a test's server: Debian's 1.18, which cannot hold prepared statements."""

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict

from tests import servers
from tests.db.test_service import free_port

CONFIG = """
[databases]
* = {server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
auth_type = any
pool_mode = transaction
default_pool_size = {size}
max_client_conn = 200
unix_socket_dir =
logfile = {directory}/pgbouncer.log
admin_users = admin
"""


@contextmanager
def pooler(url: str, *, size: int) -> Iterator[str]:
    """The URL of the same database through a pooler that has `size` connections to it."""
    program = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
    at = conninfo_to_dict(url)
    known = {"host": at["host"], "port": at.get("port"), "user": at.get("user"), "password": at.get("password")}
    server = " ".join(f"{name}='{value}'" for name, value in known.items() if value)
    with servers.temporary_directory() as directory:
        port = free_port()
        file = directory / "pgbouncer.ini"
        file.write_text(CONFIG.format(server=server, port=port, size=size, directory=directory))
        account: list[str] = []
        if os.geteuid() == 0:  # which it refuses to run as; the embedded server's socket is that of its account
            entry = pwd.getpwnam("pgretrieve")
            os.chown(directory, entry.pw_uid, entry.pw_gid)
            account = ["-u", "pgretrieve"]
        process = subprocess.Popen([program, "-q", *account, str(file)])
        try:
            query = urlencode({"sslmode": "disable"})
            through = f"postgresql://{at.get('user')}@127.0.0.1:{port}/{at['dbname']}?{query}"
            _await(through, process)
            yield through
        finally:
            process.terminate()
            process.wait(10)


def _await(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 10
    while True:
        assert process.poll() is None, "pgbouncer has ended"
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        else:
            return
