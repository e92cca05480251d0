"""Inference services turn text into vectors: the protocol, the services, the registry that guards them."""
