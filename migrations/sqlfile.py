"""Runs the .sql file beside a migration: the body is SQL, the .py file only gives it its place in the order."""

from pathlib import Path

from alembic import context, op


def run(migration: str, suffix: str = ".sql") -> None:
    """Execute the sibling of `migration` (its `__file__`) that has `suffix`, several statements at once.

    Through the raw cursor: without parameters nothing in the text is parsed, so a literal `%` is safe.
    """
    text = Path(migration).with_suffix(suffix).read_text(encoding="utf-8")
    if context.is_offline_mode():
        context.get_context().impl.static_output(text)
        return
    connection = op.get_bind().connection
    cursor = connection.cursor()
    try:
        cursor.execute(text)
    finally:
        cursor.close()
