"""The registry of stages: every module of this package that defines a `SqlStage`. Adding a stage is adding a file."""

import importlib
import pkgutil

from app.retrieval.stages.base import SqlStage


def _registry() -> dict[str, type[SqlStage]]:
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return {stage.stage_id: stage for stage in sorted(SqlStage.__subclasses__(), key=lambda stage: stage.stage_id)}


REGISTRY: dict[str, type[SqlStage]] = _registry()
