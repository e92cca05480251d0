"""How far imports of sources without row numbers are: the last key, or the offset that the source itself gives."""

from migrations import sqlfile

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    sqlfile.run(__file__)


def downgrade() -> None:
    sqlfile.run(__file__, ".down.sql")
