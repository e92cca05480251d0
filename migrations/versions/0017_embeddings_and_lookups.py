"""Texts that analysts ask to be embedded, and look-ups that administrators store."""

from migrations import sqlfile

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    sqlfile.run(__file__)


def downgrade() -> None:
    sqlfile.run(__file__, ".down.sql")
