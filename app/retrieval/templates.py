"""`{{INPUT.x}}` templates: Jinja2, narrowed to a language over data.

Nothing can be called, assigned or imported: what a template may contain is a list of what is allowed, checked
when it is parsed. What is left to run time is size, so every step that makes text minds how much it makes.
Stages on the host may name further scopes (`DOC`, `CONTEXT`, …), whose values are handed to `fill`.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal
from urllib.parse import quote

from jinja2 import StrictUndefined, TemplateRuntimeError, Undefined, nodes, pass_context
from jinja2.environment import TemplateExpression
from jinja2.filters import FILTERS
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from app.errors import Problems

MAX_SOURCE = 10_000
MAX_OUTPUT = 2 * 2**20  # an input may be 1 MiB, and a template that quotes it once must work
MAX_NESTING = 150  # a retriever's stages hold filters, which may nest 50 deep: two levels of JSON each

_NODES: frozenset[type[nodes.Node]] = frozenset(
    {
        *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For, nodes.CondExpr),
        *(nodes.Name, nodes.Const, nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair),
        *(nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.Filter, nodes.Test, nodes.Keyword),
        *(nodes.And, nodes.Or, nodes.Not, nodes.Compare, nodes.Operand),
        *(nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod, nodes.Neg, nodes.Pos),
    }
)
_DYNAMIC = re.compile(r"inputs?\.(.+)", re.IGNORECASE)  # {"type": "dynamic", "field": "inputs.x"} is {{INPUT.x}}
_GUARDS = frozenset({"default", "d", "defined", "undefined"})
_OTHER_NAMES = {"inputs": "input", "secrets": "secret"}


class MissingInput(ValueError):
    """A template needs an input that was not provided."""

    def __init__(self, name: str, source: str) -> None:
        super().__init__(f"{source} needs {name!r}, which the inputs do not have.")
        self.name = name


@dataclass(frozen=True, slots=True)
class Template:
    """A text in which values are to be filled in; equal to another of the same source and scopes."""

    source: str
    scopes: frozenset[str] = frozenset()


def lift(
    raw: Any,
    location: tuple[str | int, ...],
    problems: Problems,
    depth: int = 0,
    scopes: frozenset[str] = frozenset(),
) -> Any:
    """A copy of a JSON structure with a `Template` for each templated text and each dynamic value.

    `scopes` (lower case) are what templates may read beside INPUT, in any case.
    """
    if isinstance(raw, str) and ("{{" in raw or "{%" in raw):
        return _lift_text(raw, location, problems, scopes)
    if not isinstance(raw, dict | list):
        return raw
    if depth == MAX_NESTING:
        problems.add(location, "too_deep", f"This may be nested {MAX_NESTING} deep, not deeper.")
        return None
    if isinstance(raw, list):
        return [lift(value, (*location, i), problems, depth + 1, scopes) for i, value in enumerate(raw)]
    if raw.get("type") == "dynamic" and raw.keys() == {"type", "field"}:
        name = _DYNAMIC.fullmatch(raw["field"]) if isinstance(raw["field"], str) else None
        return _lift_text(f"{{{{INPUT.{name[1] if name else ''}}}}}", (*location, "field"), problems, scopes)
    return {key: lift(value, (*location, key), problems, depth + 1, scopes) for key, value in raw.items()}


def _lift_text(
    source: str, location: tuple[str | int, ...], problems: Problems, scopes: frozenset[str]
) -> Template | None:
    try:
        _compiled(source, scopes)
    except Exception as error:  # what is nested too deeply fails in many ways: in Jinja, or in Python's compiler
        message = f"The template {source[:100]} cannot be read: {error or type(error).__name__}."
        problems.add(location, "bad_template", message)
        return None
    return Template(source, scopes)


def is_templated(value: Any) -> bool:
    """Whether a lifted structure holds a template."""
    return any(True for _ in _templates(value))


def input_names(value: Any) -> frozenset[str]:
    """The inputs that a lifted structure reads."""
    return frozenset[str]().union(*(_of(template).reads for template in _templates(value)))


def needed_names(value: Any) -> frozenset[str]:
    """The inputs that it cannot do without: all but those that `default` or `is defined` looks after."""
    return frozenset[str]().union(*(_of(template).needs for template in _templates(value)))


def scope_names(value: Any) -> frozenset[str]:
    """The scopes beside INPUT that it reads, in lower case; a secret is `secret.name`."""
    return frozenset[str]().union(*(_of(template).scopes for template in _templates(value)))


def named(name: str) -> Template:
    """The template that is this input alone."""
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return Template(f'{{{{INPUT["{escaped}"]}}}}')


def pieces(template: Template) -> tuple[tuple[Literal["text", "input"], str], ...] | None:
    """The texts and inputs that a template only puts together; None where it computes anything."""
    found: list[tuple[Literal["text", "input"], str]] = []
    for output in _ENV.parse(template.source).body:
        for node in output.nodes if isinstance(output, nodes.Output) else (None,):
            if isinstance(node, nodes.TemplateData):
                found.append(("text", node.data))
            elif node is not None and _is_read(node):
                found.append(("input", next(_reads(node))))
            else:
                return None
    return tuple(found)


def literal(raw: Any, location: tuple[str | int, ...], problems: Problems, depth: int = 0) -> Any:
    """A JSON structure in which nothing is a template, as it stands, if it is not nested too deep."""
    if isinstance(raw, dict | list):
        if depth == MAX_NESTING:
            problems.add(location, "too_deep", f"This may be nested {MAX_NESTING} deep, not deeper.")
            return None
        for key, value in raw.items() if isinstance(raw, dict) else enumerate(raw):
            literal(value, (*location, key), problems, depth + 1)
    return raw


def fill(value: Any, inputs: Mapping[str, Any], names: Mapping[str, Any] | None = None) -> Any:
    """A lifted structure with its templates filled in; one expression alone keeps its value's type.

    `names` are the values of the scopes beside INPUT, by their lower-case names. Raises `MissingInput`, or another
    `ValueError` with a message for the caller.
    """
    return _replaced(value, lambda template: _fill_template(template, inputs, names or {}))


def unlift(value: Any) -> Any:
    """The JSON structure that was lifted."""
    return _replaced(value, lambda template: template.source)


def _replaced(value: Any, replace: Callable[[Template], Any]) -> Any:
    if isinstance(value, Template):
        return replace(value)
    if isinstance(value, dict):
        return {key: _replaced(item, replace) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, replace) for item in value]
    return value


def _fill_template(template: Template, inputs: Mapping[str, Any], names: Mapping[str, Any]) -> Any:
    source, compiled = template.source, _of(template)
    if compiled.plain is not None and compiled.plain in inputs:
        return inputs[compiled.plain]
    try:
        return compiled.run({**names, "input": inputs})
    except _Absent as absent:
        name = str(absent)
        if compiled.scopes and (name in inputs or name not in compiled.reads):
            raise ValueError(f"{source} needs {name!r}, which is not there") from None
        raise MissingInput(name, source) from None
    except Exception as error:  # whatever an expression may meet in values that nobody has checked
        raise ValueError(f"{source} cannot be filled in: {error or type(error).__name__}") from error


def _templates(value: Any) -> Iterator[Template]:
    if isinstance(value, Template):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _templates(item)


# The environment


class _Absent(TemplateRuntimeError):
    """An undefined value was used; the message is its name."""


class _Environment(ImmutableSandboxedEnvironment):
    """Values are JSON: `a.b` is an item of `a`, never a Python attribute, and `INPUT.items` an input."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%"})

    def getitem(self, obj: Any, argument: Any) -> Any:
        try:
            return obj[argument]
        except (LookupError, TypeError):
            return self.undefined(str(argument), obj, argument, _Absent)

    def getattr(self, obj: Any, attribute: str) -> Any:
        return super().getattr(obj, attribute) if isinstance(obj, LoopContext) else self.getitem(obj, attribute)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        for operand in (left, right):
            if not isinstance(_checked(operand), int | float):
                raise TypeError(f"`{operator}` is for numbers")  # a text times a number would be a large text
        return super().call_binop(context, operator, left, right)


def _checked(value: Any) -> Any:
    """The value, if it is JSON and its text not too large: a list may hold one large input many times over."""
    size, rest = 0, [value]
    while rest:
        item = rest.pop()
        if isinstance(item, Undefined):
            item._fail_with_undefined_error()
        if isinstance(item, Iterator):
            raise TypeError("add `|list`")
        size += len(item) if isinstance(item, str) else 0
        size += 8  # which is about what an item of a list weighs
        if size > MAX_OUTPUT:
            raise ValueError("it makes too large a value")
        if isinstance(item, dict):
            rest.extend((*item.keys(), *item.values()))
        elif isinstance(item, list | tuple):
            rest.extend(item)
    return value


def _text(value: Any) -> str:
    return str(_checked(value))


def _tojson(value: Any) -> str:
    return json.dumps(_checked(value), ensure_ascii=False)


def _join(values: Iterable[Any], separator: str = "") -> str:
    texts = [_text(value) for value in values]
    _checked([texts, [separator] * len(texts)])
    return separator.join(texts)


@pass_context
def _finalize(_: Context, value: Any) -> str:
    """As `_text`; it asks for the context so that Jinja does not call it while compiling."""
    return _text(value)


# Not optimized: constants would be folded while compiling, again and again where that fails.
_ENV = _Environment(undefined=StrictUndefined, finalize=_finalize, keep_trailing_newline=True, optimized=False)
_ENV.globals.clear()
_ENV.filters = {
    **{name: FILTERS[name] for name in ("default", "d", "first", "items", "last", "length", "count", "list")},
    **{name: FILTERS[name] for name in ("map", "select", "selectattr", "reject", "rejectattr", "reverse")},
    **{name: FILTERS[name] for name in ("sort", "unique", "min", "max", "abs", "float", "int")},
    "capitalize": lambda value: _text(value).capitalize(),
    "join": _join,
    "lower": lambda value: _text(value).lower(),
    "string": _text,
    "title": lambda value: _text(value).title(),
    "tojson": _tojson,
    "trim": lambda value: _text(value).strip(),
    "upper": lambda value: _text(value).upper(),
    "urlencode": lambda value: quote(_text(value), safe=""),
}


# Compiling


@dataclass(frozen=True, slots=True)
class _Compiled:
    reads: frozenset[str]
    needs: frozenset[str]
    scopes: frozenset[str]
    plain: str | None  # the name, where the template is `{{INPUT.name}}` and no more: filled without Jinja
    run: Callable[[Mapping[str, Any]], Any]


def _of(template: Template) -> _Compiled:
    return _compiled(template.source, template.scopes)


@lru_cache(maxsize=4096)
def _compiled(source: str, scopes: frozenset[str]) -> _Compiled:
    if len(source) > MAX_SOURCE:
        raise ValueError(f"it is longer than {MAX_SOURCE} characters")
    tree = _ENV.parse(source)
    _check(tree, scopes)
    secrets = _secrets(tree) if "secret" in scopes else []
    guards = [node for node in tree.find_all((nodes.Filter, nodes.Test)) if node.name in _GUARDS]
    reads = frozenset(_reads(tree))
    spellings = {node.name: _scope(node.name) for node in tree.find_all(nodes.Name) if node.ctx == "load"}
    read_scopes = (scopes & set(spellings.values())) - {"secret"} | {f"secret.{name}" for name in secrets}
    match tree.body:
        case [nodes.Output(nodes=[nodes.TemplateData()])]:
            plain, run = None, _mixed(tree, spellings)
        case [nodes.Output(nodes=[expression])]:
            plain = next(_reads(expression), None) if _is_read(expression) else None
            run = _lone(expression, spellings)
        case _:
            plain, run = None, _mixed(tree, spellings)
    needs = reads - {name for guard in guards for name in _reads(guard.node)}
    return _Compiled(reads, needs, read_scopes, plain, run)


def _check(tree: nodes.Template, scopes: frozenset[str]) -> None:
    """Refuse what is not part of templates; an `if` without `else` gets its empty one."""
    names = list(tree.find_all(nodes.Name))
    known = {"loop"} | {name.name for name in names if name.ctx == "store"}
    for node in tree.find_all(nodes.Node):
        if type(node) not in _NODES:
            raise ValueError(f"{type(node).__name__} is not part of templates (line {node.lineno})")
        if isinstance(node, nodes.For) and (node.recursive or any(node.find_all(nodes.For))):
            raise ValueError("a loop within a loop is not part of templates")  # its time would have no bound
        if isinstance(node, nodes.CondExpr) and node.expr2 is None:
            node.expr2 = nodes.Const("", lineno=node.lineno, environment=node.environment)
    for name in names:
        scope = _scope(name.name)
        if (scope == "input" or scope in scopes) and name.ctx == "store":
            raise ValueError(f"{name.name!r} cannot be a loop's variable")
        if scope != "input" and scope not in scopes and name.name not in known:
            others = f", and there are {', '.join(sorted(scopes)).upper()}" if scopes else ""
            raise ValueError(f"{name.name!r} is not known here; inputs are read as INPUT.name{others}")
    if sum(_scope(name.name) == "input" for name in names) != len(list(_reads(tree))):
        raise ValueError("inputs are read one by one, by name: INPUT.name or INPUT['name']")


def _secrets(tree: nodes.Template) -> list[str]:
    """The names of the secrets; each stands by itself, so that no error of an expression can quote one."""
    printed = [node for output in tree.find_all(nodes.Output) for node in output.nodes if _is_read(node, "secret")]
    if len(printed) != sum(_scope(name.name) == "secret" for name in tree.find_all(nodes.Name)):
        raise ValueError("a secret stands by itself: {{SECRET.name}}")
    return [name for node in printed for name in _reads(node, "secret")]


def _scope(name: str) -> str:
    return _OTHER_NAMES.get(name.lower(), name.lower())


def _is_read(node: nodes.Node, scope: str = "input") -> bool:
    """Whether this is `INPUT.name` or `INPUT['name']`."""
    match node:
        case (
            nodes.Getattr(node=nodes.Name(name=name))
            | nodes.Getitem(node=nodes.Name(name=name), arg=nodes.Const(value=str()))
        ):
            return _scope(name) == scope
    return False


def _reads(tree: nodes.Node | None, scope: str = "input") -> Iterator[str]:
    """The names of the inputs that are read in this expression, itself included."""
    for node in () if tree is None else (tree, *tree.find_all((nodes.Getattr, nodes.Getitem))):
        if _is_read(node, scope):
            yield node.attr if isinstance(node, nodes.Getattr) else node.arg.value  # type: ignore[attr-defined]


def _lone(expression: nodes.Expr, spellings: Mapping[str, str]) -> Callable[[Mapping[str, Any]], Any]:
    body: list[nodes.Node] = [nodes.Assign(nodes.Name("result", "store"), expression, lineno=1)]
    evaluate = TemplateExpression(_ENV.from_string(nodes.Template(body, lineno=1)), undefined_to_none=False)

    def run(names: Mapping[str, Any]) -> Any:
        result = evaluate({spelled: names[name] for spelled, name in spellings.items() if name in names})
        return _checked(list(result) if isinstance(result, Iterator | tuple) else result)

    return run


def _mixed(tree: nodes.Template, spellings: Mapping[str, str]) -> Callable[[Mapping[str, Any]], str]:
    template = _ENV.from_string(tree)

    def run(names: Mapping[str, Any]) -> str:
        pieces: list[str] = []
        size = 0
        for piece in template.generate({spelled: names[name] for spelled, name in spellings.items() if name in names}):
            pieces.append(piece)
            size += len(piece)
            if size > MAX_OUTPUT:
                raise ValueError("it makes too large a text")
        return "".join(pieces)

    return run
