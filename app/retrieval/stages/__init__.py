"""The registry of stages: every module of this package that defines a stage. Adding a stage is adding a file."""

import importlib
import pkgutil

from app.retrieval.stages.base import HostStage, SqlStage, Stage


def _registry() -> dict[str, type[Stage]]:
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    kinds: list[type[Stage]] = [*SqlStage.__subclasses__(), *HostStage.__subclasses__()]
    return {kind.stage_id: kind for kind in sorted(kinds, key=lambda kind: kind.stage_id)}


REGISTRY: dict[str, type[Stage]] = _registry()
