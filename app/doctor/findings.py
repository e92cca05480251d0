"""What the doctor says: one finding for each thing that it looked at."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`ok`; `warn`: it works, but not as well or not for long; `fail`: it does not work. `todo` helps."""

    check: str
    status: Status
    message: str
    todo: str | None = None


def ok(check: str, message: str) -> Finding:
    return Finding(check, "ok", message)


def warn(check: str, message: str, todo: str) -> Finding:
    return Finding(check, "warn", message, todo)


def fail(check: str, message: str, todo: str) -> Finding:
    return Finding(check, "fail", message, todo)
