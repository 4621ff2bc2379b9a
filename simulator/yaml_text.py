"""YAML as scenarios are written in it: plain values only, and nothing that two readers could read differently.

Refused: a key twice, tags, aliases, more than one document. Only `true` and `false` are booleans (so a dataset may be
called `no`), dates and 007 stay text, and 1e5 is the number 100000.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from simulator.errors import ScenarioError


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the ambiguous implicit types taken out and mistakes collected."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self.mistakes: list[str] = []

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            self.get_event()
            self.mistakes.append(f"line {line}: '*{event.anchor}' is a YAML alias; write the value out")
            return yaml.ScalarNode("tag:yaml.org,2002:null", "null", event.start_mark, event.end_mark)
        tag = getattr(event, "tag", None)
        if tag is not None:
            self.mistakes.append(f"line {line}: '{tag}' is a YAML tag; leave it out and write a plain value")
            event.tag = None  # read on as if it were not there, so that further mistakes are found too
            if hasattr(event, "implicit"):
                event.implicit = (True, True) if isinstance(event, yaml.ScalarEvent) else True
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's own
        first: dict[Any, int] = {}
        for key_node, _ in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self.mistakes.append(f"line {line}: a key is a list or mapping; write a plain word")
                continue
            key = key_node.value
            if key in first:
                self.mistakes.append(f"line {line}: the key '{key}' stands twice, first in line {first[key]}; keep one")
            first.setdefault(key, line)
        pairs = [(key, value) for key, value in node.value if isinstance(key, yaml.ScalarNode)]
        return {str(key.value): self.construct_object(value, deep=True) for key, value in pairs}


def _construct_mapping(loader: _Loader, node: Any) -> dict[Any, Any]:
    return loader.construct_mapping(node)


def _construct_number(loader: _Loader, node: Any) -> int | float:
    number = float(node.value.replace("_", "").replace(".inf", "inf").replace(".Inf", "inf").replace(".nan", "nan"))
    # 1e5 is meant as a whole number wherever one is wanted, and serves as a float as well.
    return int(number) if "." not in node.value and number.is_integer() else number


_PREFIX = "tag:yaml.org,2002:"
_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("int", r"[-+]?(0|[1-9][0-9_]*)|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|(0|[1-9][0-9_]*)(\.[0-9_]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf)|\.(nan|NaN)",
        "-+.0123456789",
    ),
):
    _Loader.add_implicit_resolver(f"{_PREFIX}{_tag}", re.compile(f"^(?:{_pattern})$"), [*_first.replace("\0", ""), ""])
_Loader.add_constructor(f"{_PREFIX}map", _construct_mapping)
_Loader.add_constructor(f"{_PREFIX}float", _construct_number)


def parse_yaml(text: str, what: str) -> Any:
    """The value of a YAML text.

    Args:
        text: the text.
        what: how messages name it, e.g. the file's name.

    Raises:
        ScenarioError: it is no YAML, or uses something that is refused; one line for each mistake.
    """
    loader = _Loader(text)
    try:
        value = loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}:" if error.problem_mark is not None else ""
        raise ScenarioError([*_named(loader.mistakes, what), f"{what}:{line} {error.problem}; mend the YAML"]) from None
    except (yaml.YAMLError, RecursionError) as error:
        first = str(error).splitlines()[0] if str(error) else "nested too deeply"
        raise ScenarioError([f"{what}: {first}; mend the YAML"]) from None
    finally:
        loader.dispose()
    if loader.mistakes:
        raise ScenarioError(_named(loader.mistakes, what))
    return value


def _named(mistakes: list[str], what: str) -> list[str]:
    return [f"{what}: {line}" for line in mistakes]


class _Dumper(yaml.SafeDumper):
    """Short lists and mappings of plain values in one line, as scenarios are written by hand."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _short(value: Any) -> bool:
    values = value.values() if isinstance(value, dict) else value
    return not any(isinstance(part, dict | list) for part in values) and len(str(value)) <= 90


def _list(dumper: _Dumper, value: list[Any]) -> yaml.Node:
    return dumper.represent_sequence(f"{_PREFIX}seq", value, flow_style=_short(value))


def _mapping(dumper: _Dumper, value: dict[str, Any]) -> yaml.Node:
    return dumper.represent_mapping(f"{_PREFIX}map", value, flow_style=not value)


def _text(dumper: _Dumper, value: str) -> yaml.Node:
    """Quoted wherever the plain form would not come back as text."""
    kind = _Loader("").resolve(yaml.ScalarNode, value, (True, False))
    style = '"' if not value.isprintable() else None if kind == f"{_PREFIX}str" else "'"
    return dumper.represent_scalar(f"{_PREFIX}str", value, style=style)


_Dumper.add_representer(list, _list)
_Dumper.add_representer(dict, _mapping)
_Dumper.add_representer(str, _text)


def write_yaml(value: Any) -> str:
    """YAML text that `parse_yaml` reads back as an equal value."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
