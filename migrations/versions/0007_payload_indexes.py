"""Physical payload indexes."""

from migrations import sqlfile

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    sqlfile.run(__file__)


def downgrade() -> None:
    sqlfile.run(__file__, ".down.sql")
