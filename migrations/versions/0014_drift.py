"""What tells that a provider has changed its model: vectors of fixed texts, and their comparisons."""

from migrations import sqlfile

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    sqlfile.run(__file__)


def downgrade() -> None:
    sqlfile.run(__file__, ".down.sql")
