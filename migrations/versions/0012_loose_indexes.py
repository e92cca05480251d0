"""Vector indexes that are built beside those in force: what may exist without being used is noted, and swept."""

from migrations import sqlfile

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    sqlfile.run(__file__)


def downgrade() -> None:
    sqlfile.run(__file__, ".down.sql")
