"""Retrievers that are SQL functions, too, and what those make of their parameters."""

from migrations import sqlfile

revision = "0019"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    sqlfile.run(__file__)


def downgrade() -> None:
    sqlfile.run(__file__, ".down.sql")
