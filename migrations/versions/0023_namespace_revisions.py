"""Which of the changes of namespaces' schemas each namespace has had, so that they are made in batches."""

from migrations import sqlfile

revision = "0023"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    sqlfile.run(__file__)


def downgrade() -> None:
    sqlfile.run(__file__, ".down.sql")
