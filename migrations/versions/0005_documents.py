"""Idempotency keys, sparse and multi-vectors, declared payload indexes."""

from migrations import sqlfile

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    sqlfile.run(__file__)


def downgrade() -> None:
    sqlfile.run(__file__, ".down.sql")
