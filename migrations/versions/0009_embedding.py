"""Work that embeds content: provenance of vectors, sources, the work table, tasks; and changes of vector indexes."""

from migrations import sqlfile

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    sqlfile.run(__file__)


def downgrade() -> None:
    sqlfile.run(__file__, ".down.sql")
