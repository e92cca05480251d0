"""The registry of stages: every module of this package that defines a stage. Adding a stage is adding a file."""

import importlib
import pkgutil

from app.retrieval.stages.base import HostStage, SqlStage, Stage


def _registry() -> dict[str, type[Stage]]:
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    kinds = [kind for base in (SqlStage, HostStage) for kind in _below(base) if hasattr(kind, "stage_id")]
    return {kind.stage_id: kind for kind in sorted(kinds, key=lambda kind: kind.stage_id)}


def _below(kind: type[Stage]) -> list[type[Stage]]:
    """Every class below; those without an id are what several stages have in common."""
    return [each for below in kind.__subclasses__() for each in (below, *_below(below))]


REGISTRY: dict[str, type[Stage]] = _registry()
