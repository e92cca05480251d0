"""Limits of requests by key, and who changed what."""

from migrations import sqlfile

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    sqlfile.run(__file__)


def downgrade() -> None:
    sqlfile.run(__file__, ".down.sql")
