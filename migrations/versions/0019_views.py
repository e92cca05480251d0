"""Views in plain words for analysts, and what hands a new namespace's schema to the roles of the database."""

from migrations import sqlfile

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    sqlfile.run(__file__)


def downgrade() -> None:
    sqlfile.run(__file__, ".down.sql")
