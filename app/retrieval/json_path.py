"""The part of JSONPath that names one value: `$.a.b`, `$.results[0]`, `$['a b']`."""

import re
from typing import Any

_STEP = re.compile(r"\.(?P<name>[^.\[\]'\"*?@()\s]+)|\[(?P<index>-?\d{1,9})\]|\['(?P<quoted>[^']*)'\]")


def parse(path: str) -> list[str | int]:
    """The steps of a path. Raises `ValueError` where it names more than one value."""
    steps: list[str | int] = []
    rest = path.removeprefix("$")
    while rest and (step := _STEP.match(rest)):
        index = step["index"]
        steps.append(int(index) if index is not None else step["name"] if step["name"] is not None else step["quoted"])
        rest = rest[step.end() :]
    if rest or not path.startswith("$"):
        raise ValueError("a path is $ and then .name, [0] or ['name']")
    return steps


def value_at(value: Any, steps: list[str | int]) -> Any:
    """The value there. Raises `LookupError` where there is none."""
    for step in steps:
        match step, value:
            case str(), dict():
                value = value[step]
            case int(), list():
                value = value[step]
            case _:
                raise KeyError(step)
    return value
