"""The catalog: namespaces, vector configs, mappings, retrievers, keys."""

from migrations import sqlfile

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    sqlfile.run(__file__)


def downgrade() -> None:
    sqlfile.run(__file__, ".down.sql")
