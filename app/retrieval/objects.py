"""Changes a JSON object in SQL: values are set on their paths, and what stands beside them stays.

The expressions grow with the square of a path's depth, not as its power, for an object is looked up from the root.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any, Union

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

Json = sa.ColumnElement[Any]
Tree = Mapping[str, Union[Json, "Tree"]]
# How deep a path may lead that is written to: composing a statement recurses along it.
DEEPEST = 16

EMPTY_OBJECT: Json = sa.literal_column("'{}'::jsonb", JSONB())
_OBJECT = sa.literal_column("'object'", sa.Text())


def tree_of(values: Mapping[str, Json]) -> Tree:
    """Dotted paths with their values, nested; where one path leads into another, the shorter one stands for both."""
    tree: dict[str, Any] = {}
    for path in sorted(values, key=lambda path: path.count(".")):
        *inner, last = path.split(".")
        node: Any = tree
        for name in inner:
            node = node.setdefault(name, {}) if isinstance(node, dict) else node
        if isinstance(node, dict):
            node[last] = values[path]
    return tree


def merged(whole: Json, tree: Tree, bind: Callable[[str], Json], *, optional: bool = False) -> Json:
    """The object with the tree's values set in it; what is no object on their way gives way to one.

    `bind` makes a text parameter of a key. With `optional` a value that is NULL is not set, instead of set to null.
    """
    return _merged(whole, tree, bind, optional, ())


def _merged(whole: Json, tree: Tree, bind: Callable[[str], Json], optional: bool, steps: tuple[Json, ...]) -> Json:
    parts = [] if whole is EMPTY_OBJECT else [_object_at(whole, steps)]
    for name, child in tree.items():
        key = bind(name)
        value = _merged(whole, child, bind, optional, (*steps, key)) if isinstance(child, Mapping) else child
        made: Json = sa.func.jsonb_build_object(key, value, type_=JSONB)
        if optional:
            there = sa.or_(*(leaf.is_not(None) for leaf in _leaves(child)))
            made = sa.case((there, made), else_=EMPTY_OBJECT)
        parts.append(made)
    return reduce(lambda left, right: left.op("||", return_type=JSONB())(right), parts)


def _object_at(whole: Json, steps: Sequence[Json]) -> Json:
    if not steps:
        return whole
    found = reduce(lambda value, key: value.op("->", return_type=JSONB())(key), steps, whole)
    return sa.case((sa.func.jsonb_typeof(found) == _OBJECT, found), else_=EMPTY_OBJECT)


def _leaves(child: Json | Tree) -> list[Json]:
    if isinstance(child, Mapping):
        return [leaf for each in child.values() for leaf in _leaves(each)]
    return [child]
