"""Versions of retrievers: the name then, who made it, never changed."""

from migrations import sqlfile

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    sqlfile.run(__file__)


def downgrade() -> None:
    sqlfile.run(__file__, ".down.sql")
