"""Filters: one tree, whichever of the two languages a caller wrote it in (`app.retrieval.filter_parser`)."""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.retrieval import qdrant
from app.retrieval.templates import needed_names, unlift


@dataclass(frozen=True, slots=True)
class Condition:
    """What one field is asked. `value` is JSON, with templates lifted.

    Conditions of language B have operators that begin with `key.`, and their field is a path as Qdrant writes it.
    """

    field: str
    operator: str
    value: Any
    case_insensitive: bool = False


@dataclass(frozen=True, slots=True)
class And:
    items: "tuple[Filter, ...]"


@dataclass(frozen=True, slots=True)
class Or:
    items: "tuple[Filter, ...]"


@dataclass(frozen=True, slots=True)
class Not:
    item: "Filter"


@dataclass(frozen=True, slots=True)
class AtLeast:
    """So many of these."""

    count: int
    items: "tuple[Filter, ...]"


@dataclass(frozen=True, slots=True)
class Nested:
    """One of the objects in the array at this key passes the filter, whose fields are the object's."""

    key: str
    item: "Filter"


@dataclass(frozen=True, slots=True)
class Given:
    """Whether all of these inputs are given; a function of a retriever asks that of its parameters."""

    names: tuple[str, ...]


Filter = Condition | And | Or | Not | AtLeast | Nested | Given


@dataclass(frozen=True, slots=True)
class FilterLimits:
    """How deep groups may nest, and how many conditions there may be in all."""

    depth: int
    conditions: int


def all_of(items: Sequence[Filter]) -> Filter | None:
    """The filter that asks for every one of these; a group of one is that one, and of none is no filter."""
    return And(tuple(items)) if len(items) > 1 else items[0] if items else None


def any_of(items: Sequence[Filter]) -> Filter | None:
    """The filter that asks for one of these at least."""
    return Or(tuple(items)) if len(items) > 1 else items[0] if items else None


def none_of(items: Sequence[Filter]) -> Filter | None:
    """The filter that asks for none of these."""
    found = any_of(items)
    return Not(found) if found else None


def drop_missing(filter_: Filter, provided: Container[str]) -> tuple[Filter | None, tuple[Condition, ...]]:
    """The filter without the conditions whose inputs were not provided, and those conditions."""
    match filter_:
        case Condition():
            if all(name in provided for name in needed_names(filter_.value)):
                return filter_, ()
            return None, (filter_,)
        case Not() | Nested():
            item, dropped = drop_missing(filter_.item, provided)
            return (replace(filter_, item=item) if item else None), dropped
        case And() | Or() | AtLeast():
            parts = [drop_missing(item, provided) for item in filter_.items]
            kept = tuple(item for item, _ in parts if item)
            dropped = tuple(condition for _, dropped in parts for condition in dropped)
            if isinstance(filter_, AtLeast):
                return (AtLeast(min(filter_.count, len(kept)), kept) if kept else None), dropped
            return (all_of(kept) if isinstance(filter_, And) else any_of(kept)), dropped
    return filter_, ()


def guarded(filter_: Filter, optional: frozenset[str]) -> Filter:
    """The filter that does by itself what `drop_missing` does before: conditions without their inputs do not count.

    Raises `ValueError` for what cannot be said so.
    """
    kept, there = _guarded(filter_, optional)
    return Or((Not(there), kept)) if there is not None else kept


def _guarded(filter_: Filter, optional: frozenset[str]) -> tuple[Filter, Filter | None]:
    """What is asked where it counts, and whether it counts (None: always)."""
    match filter_:
        case Condition():
            names = tuple(sorted(needed_names(filter_.value) & optional))
            return filter_, Given(names) if names else None
        case Not() | Nested():
            item, there = _guarded(filter_.item, optional)
            return replace(filter_, item=item), there
        case AtLeast():
            if any(_guarded(item, optional)[1] is not None for item in filter_.items):
                raise ValueError("`min_should` counts a condition whose input may be missing")
            return filter_, None
        case And() | Or():
            parts = [_guarded(item, optional) for item in filter_.items]
            shield = _shielded_and if isinstance(filter_, And) else _shielded_or
            theres = [there for _, there in parts if there is not None]
            whole = any_of(theres) if len(theres) == len(parts) else None
            return replace(filter_, items=tuple(shield(item, there) for item, there in parts)), whole
    return filter_, None


def _shielded_and(item: Filter, there: Filter | None) -> Filter:
    return item if there is None else Or((Not(there), item))


def _shielded_or(item: Filter, there: Filter | None) -> Filter:
    return item if there is None else And((there, item))


def with_conditions(filter_: Filter, change: Callable[[Condition], Condition]) -> Filter:
    """The filter with each of its conditions changed."""
    match filter_:
        case Condition():
            return change(filter_)
        case Given():
            return filter_
        case Not() | Nested():
            return replace(filter_, item=with_conditions(filter_.item, change))
        case _:
            return replace(filter_, items=tuple(with_conditions(item, change) for item in filter_.items))


def to_json(filter_: Filter) -> dict[str, Any]:
    """The filter as `parse_filter` reads it back."""
    match filter_:
        case And():
            return {"AND": [to_json(item) for item in filter_.items]}
        case Or():
            return {"OR": [to_json(item) for item in filter_.items]}
        case Not():
            return {"NOT": [to_json(filter_.item)]}
        case AtLeast():
            conditions = [to_json(item) for item in filter_.items]
            return {"min_should": {"conditions": conditions, "min_count": filter_.count}}
        case Nested():
            return {"nested": {"key": filter_.key, "filter": to_json(filter_.item)}}
        case Given():
            return {"given": list(filter_.names)}
        case Condition():
            fold = {"case_insensitive": True} if filter_.case_insensitive else {}
            value = unlift(filter_.value)
            if filter_.operator.startswith("key."):
                return {"key": filter_.field} | qdrant.written(filter_.operator, value) | fold
            return {"field": filter_.field, "operator": filter_.operator, "value": value} | fold
