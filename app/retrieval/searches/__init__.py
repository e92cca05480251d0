"""How one search of each kind becomes SQL: a select of `document_id` and `score`, best first."""
