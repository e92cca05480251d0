"""The commands beside those that serve: one module each, or one for a family of them."""
