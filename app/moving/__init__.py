"""Documents as files: JSONL, Parquet, Arrow and PostgreSQL's binary COPY, read and written chunk by chunk."""

from app.moving.files import FORMATS, format_of, read, write

__all__ = ["FORMATS", "format_of", "read", "write"]
