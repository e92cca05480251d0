"""pgretrieve: multimodal retrieval inside the user's own Postgres, with pgvector."""

__version__ = "0.1.0"
