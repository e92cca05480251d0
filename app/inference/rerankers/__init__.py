"""Rerankers, which score texts for a query: one that is built in, cross-encoders, endpoints of two protocols."""
