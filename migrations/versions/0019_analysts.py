"""What analysts read: views in plain words, and grants that follow each new namespace."""

from migrations import sqlfile

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    sqlfile.run(__file__)


def downgrade() -> None:
    sqlfile.run(__file__, ".down.sql")
