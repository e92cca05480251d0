"""The file of the root key, which the first start makes in the data directory."""

from pathlib import Path

from app.domain.security.keys import new_key


def root_key_file(data_dir: Path) -> Path:
    return data_dir / "root.key"


def kept_root_key(data_dir: Path) -> tuple[str, Path]:
    """The root key of this data directory, made at the first start, in a file that only its owner reads."""
    path = root_key_file(data_dir)
    if path.exists():
        return path.read_text(encoding="ascii").strip(), path
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = new_key()
    path.touch(mode=0o600, exist_ok=False)
    path.write_text(f"{key}\n", encoding="ascii")
    return key, path
