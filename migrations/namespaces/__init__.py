"""Changes of every namespace's schema, as `NNNN_name.sql`, run by `app.db.namespace_migrations`."""
