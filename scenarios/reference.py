"""Writes the reference tables of docs/scenario.md from the settings models, so that no page lags behind the code.

python -m scenarios.reference          # rewrite docs/scenario.md
python -m scenarios.reference --check  # exit 1 if it is not up to date
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from scenarios.schema import Scenario

PAGE = Path(__file__).resolve().parent.parent / "docs" / "scenario.md"
BEGIN, END = "<!-- reference: written by scenarios/reference.py, do not edit -->", "<!-- end of reference -->"


def reference() -> str:
    """A table for the scenario itself and one for each settings model in it, in the order of the scenario."""
    return "\n".join(_sections(Scenario, ""))


def up_to_date(page: str) -> str:
    """The page with its tables as they are now."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"docs/scenario.md lacks the marks {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{reference()}\n{END}{after}"


def _sections(model: type[BaseModel], path: str) -> Iterator[str]:
    yield f"### {f'`{path}`' if path else 'Top level'}\n"
    about = (model.__doc__ or "").strip().partition("\n")[0]
    if about and path:
        yield f"{about}\n"
    yield "| key | takes | default | what |\n| --- | --- | --- | --- |"
    for name, field in model.model_fields.items():
        yield f"| `{name}` | {_escaped(_takes(field))} | {_escaped(_default(field))} | {_escaped(_what(field))} |"
    yield ""
    for name, field in model.model_fields.items():
        for inner, suffix in _models(field.annotation):
            yield from _sections(inner, f"{path}.{name}{suffix}".lstrip("."))


def _models(kind: Any) -> Iterator[tuple[type[BaseModel], str]]:
    """Settings models inside a type, and how a path goes on into them."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind, ""
    else:
        many = "[]" if get_origin(kind) in (list, tuple) else ""
        for part in get_args(kind):
            for model, suffix in _models(part):
                yield model, many + suffix


def _takes(field: FieldInfo) -> str:
    limits = [text for rule in field.metadata for text in _limit(rule)]
    return ", ".join([_type(field.annotation), *limits])


_SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def _limit(rule: Any) -> Iterator[str]:
    for inner in getattr(rule, "metadata", ()):  # a Field inside Annotated keeps its own rules
        yield from _limit(inner)
    for name, sign in _SIGNS.items():
        bound = getattr(rule, name, None)
        if bound is not None and bound != 2**63:
            yield f"{sign} {bound:g}"


_PLAIN = {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "null", Any: "anything"}


def _type(kind: Any) -> str:
    if kind in _PLAIN:
        return _PLAIN[kind]
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "mapping, below"
    if hasattr(kind, "__metadata__"):
        limits = [text for rule in kind.__metadata__ for text in _limit(rule)]
        return " ".join([_type(get_args(kind)[0]), *limits])
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (list, tuple):
        inner = [part for part in arguments if part is not Ellipsis]
        if origin is tuple and Ellipsis not in arguments:
            return f"list of {len(inner)}: {_type(inner[0])}"
        return f"list: {_type(inner[0])}"
    if origin is dict:
        return f"mapping: {_type(arguments[1])}"
    if str(origin) == "typing.Literal":
        return " or ".join(f"`{value}`" for value in arguments)
    return " or ".join(_type(part) for part in arguments if part is not type(None))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**needed**"
    if field.default_factory_takes_validated_data:
        return "by the keys above"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "below"
    if value is None:
        return "none"
    shown = list(value) if isinstance(value, tuple) else value
    return f"`{shown}`" if str(shown).strip() else f"`'{shown}'`"


def _what(field: FieldInfo) -> str:
    text = " ".join((field.description or "").split())
    return text[:1].upper() + text[1:]


def _escaped(text: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\\|", text)


def main() -> int:
    """Rewrite the page, or check it with `--check`."""
    page = PAGE.read_text(encoding="utf-8")
    fresh = up_to_date(page)
    if "--check" in sys.argv[1:]:
        return int(fresh != page)
    PAGE.write_text(fresh, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
