"""Files of models that services name: they lie under PGRETRIEVE_MODEL_DIR, and no path leads out of it."""

from pathlib import Path, PurePosixPath


class NotLocated(ValueError):
    """Why a file cannot be used, and what to do."""


def escapes(model_dir: Path | None, path: str) -> str | None:
    """Why this path must be refused, whether or not anything lies there; None when it stays inside."""
    parts = PurePosixPath(path).parts
    if not path or "\0" in path or "\\" in path or path.startswith(("/", "~")) or ".." in parts:
        return "The path is relative to PGRETRIEVE_MODEL_DIR, with neither '..' nor a backslash in it."
    if model_dir is not None and not (model_dir / path).resolve().is_relative_to(model_dir.resolve()):
        return "The path leads out of PGRETRIEVE_MODEL_DIR by a symbolic link."
    return None


def locate(model_dir: Path | None, path: str, *, folders: bool = False) -> Path:
    """The file (or with `folders` also the folder) at that path under the folder of models; `NotLocated` says what is
    missing."""
    if model_dir is None:
        raise NotLocated("PGRETRIEVE_MODEL_DIR is not set: name the folder that holds the models, and restart.")
    if reason := escapes(model_dir, path):
        raise NotLocated(reason)
    found = (model_dir / path).resolve()
    if not (found.is_file() or (folders and found.is_dir())):
        raise NotLocated(f"There is no file {path} in PGRETRIEVE_MODEL_DIR: put it there.")
    return found
