"""A scenario file to a `Scenario`: every mistake at once, overrides, digests, and the resolved text."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError

from scenarios.schema import Scenario, cross_check
from simulator.cache import digest_of
from simulator.datasets import DATASETS, log_of_policy
from simulator.errors import InputError, ScenarioError, did_you_mean
from simulator.yaml_text import parse_yaml, write_yaml

_LARGEST_FILE = 10_000_000
"""Bytes; a larger file is no scenario but a mistaken path."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A policy that is vetted: it joins the scenario as the agent `candidate`, and every gate is for it alone.

    Attributes:
        policy: its kind, as in `agents[].kind`; a file is looked for in the current folder, then in the scenario's.
        baseline: agent it is compared with, in place of the scenario's own; None keeps that.
        trained_on: what it has seen, as in `agents[].trained_on`; None where this run fits it.
    """

    policy: str
    baseline: str | None = None
    trained_on: str | None = None


CANDIDATE = "candidate"


def load_scenario(
    path: Path, *, overrides: Sequence[str] = (), seed: int | None = None, candidate: Candidate | None = None
) -> Scenario:
    """Read a scenario file. Agents, encoder and log are not looked up: `checking.prepare_scenario` does that.

    Args:
        path: the YAML file.
        overrides: `key.path=value` texts of `--set`, applied in order; lists are indexed, `agents[0].params.alpha=1`,
            or named, `agents[linucb].params.alpha=1`.
        seed: replaces the scenario's own seed.
        candidate: a policy to vet, added before the overrides are applied.

    Raises:
        ScenarioError: everything that is wrong, one line each.
    """
    parts = read_parts(path, overrides=overrides, seed=seed, candidate=candidate)
    if parts.mistakes:
        raise ScenarioError(parts.mistakes)
    return parts.whole()


@dataclass(frozen=True, slots=True)
class Parts:
    """A scenario that may be wrong in places.

    Attributes:
        raw: the mapping of the file, overrides applied.
        settings: top-level key -> settings of the parts that are right, or right but for single keys; `agents` and
            `gates` hold None for an entry that is wrong.
        mistakes: everything that is wrong, one line each.
    """

    raw: Mapping[str, Any]
    settings: Mapping[str, Any]
    mistakes: tuple[str, ...]

    def whole(self) -> Scenario:
        """The scenario, where there are no mistakes."""
        return Scenario.model_validate(dict(self.raw))


def read_parts(
    path: Path, *, overrides: Sequence[str] = (), seed: int | None = None, candidate: Candidate | None = None
) -> Parts:
    """Read a scenario file part by part, so that a mistake in one hides none in another.

    Args:
        path: as in `load_scenario`; so are `overrides`, `seed` and `candidate`.
        overrides: texts of `--set`.
        seed: replaces the scenario's own seed.
        candidate: a policy to vet.

    Raises:
        ScenarioError: the file cannot be read as a mapping at all.
    """
    raw = read_raw(path)
    mistakes: list[str] = []
    if candidate is not None:
        mistakes += _add_candidate(raw, candidate, path.parent)
    for override in overrides:
        try:
            set_value(raw, override)
        except InputError as error:
            mistakes.append(str(error))
    if seed is not None:
        raw["seed"] = seed
    settings, wrong = check_raw(raw)
    return Parts(raw, settings, tuple(dict.fromkeys([*mistakes, *wrong])))


def _add_candidate(raw: dict[str, Any], candidate: Candidate, folder: Path) -> list[str]:
    agents = raw.get("agents")
    if not isinstance(agents, list):
        return []  # `check_raw` says what is wrong with it
    if CANDIDATE in (_agent_names(agents) or ()):
        return [f"agents: the scenario has an agent '{CANDIDATE}' already; rename it, vet adds one of that name"]
    kind = candidate.policy
    place, colon, name = kind.rpartition(":")
    if colon and place.endswith(".py") and Path(place).is_file():
        # Relative to the scenario, so that the resolved scenario does not depend on where the command was typed.
        kind = f"{os.path.relpath(Path(place).resolve(), folder.resolve())}:{name}"
    entry = {"name": CANDIDATE, "kind": kind}
    if candidate.trained_on is not None:
        entry["trained_on"] = candidate.trained_on
    agents.append(entry)
    if candidate.baseline is not None:
        if not isinstance(raw.get("evaluate"), dict):
            raw["evaluate"] = {}
        raw["evaluate"]["baseline"] = candidate.baseline
    if isinstance(raw.get("gates"), list):
        raw["gates"] = [{**gate, "agents": [CANDIDATE]} if isinstance(gate, dict) else gate for gate in raw["gates"]]
    return []


def read_raw(path: Path) -> dict[str, Any]:
    """The mapping that a scenario file holds, unchecked.

    Raises:
        ScenarioError: the file is not there, not UTF-8, no YAML or no mapping.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise ScenarioError([f"scenario: '{path}' is larger than {_LARGEST_FILE:,} bytes; give a scenario file"])
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = did_you_mean(path.name, [other.name for other in path.parent.glob("*.yaml")], cutoff=0.8)
        raise ScenarioError([f"scenario: '{path}' is not there{near or '; give the path of a YAML file'}"]) from None
    except UnicodeDecodeError as error:
        raise ScenarioError([f"scenario: '{path}' is not UTF-8 text (byte {error.start}); save it as UTF-8"]) from None
    except OSError as error:
        raise ScenarioError([f"scenario: '{path}' cannot be read ({error.strerror}); give a YAML file"]) from None
    value = parse_yaml(text, path.name)
    if not isinstance(value, dict):
        found = "is empty" if value is None else f"holds a {_yaml_kind(value)}"
        raise ScenarioError([f"scenario: '{path.name}' {found}; a scenario is a mapping with name, data and agents"])
    return value


def check_raw(raw: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Settings of the parts of a raw mapping, as in `Parts`, and everything that is wrong with it, one line each."""
    mistakes = list(_not_finite(raw, ""))
    fields = Scenario.model_fields
    for key in raw:
        if key not in fields:
            mistakes.append(f"{key}: unknown key{did_you_mean(key, fields) or f'; known: {_listed(fields)}'}")
    parts: dict[str, Any] = {}
    for key, field in fields.items():
        if key not in raw:
            if field.is_required():
                mistakes.append(f"{key}: is missing; {_described(field.description)}")
            else:
                parts[key] = field.get_default(call_default_factory=True)
            continue
        value = raw[key]
        if key in ("agents", "gates") and isinstance(value, list):
            entry_type = _element(field.annotation)
            entries = [_checked(entry, entry_type, f"{key}[{at}]") for at, entry in enumerate(value)]
            parts[key] = tuple(part for part, _ in entries)
            mistakes += [line for _, wrong in entries for line in wrong]
            if key == "agents" and not value:
                mistakes.append("agents: is empty; name at least one, e.g. - {name: random, kind: random}")
        else:
            part, wrong = _checked(value, _annotated(field), key, field)
            mistakes += wrong
            if part is not None:
                parts[key] = part
    mistakes += cross_check(parts, _agent_names(raw.get("agents")))
    return parts, mistakes


def _agent_names(agents: Any) -> list[str | None] | None:
    """Names as they stand in the file, also of agents that are wrong otherwise; None where there is no list."""
    if not isinstance(agents, list):
        return None
    names = [entry.get("name") if isinstance(entry, dict) else None for entry in agents]
    return [name if isinstance(name, str) else None for name in names]


def resolved(scenario: Scenario) -> str:
    """The scenario as YAML with every default written out; reading it gives an equal scenario."""
    return write_yaml(scenario.model_dump(mode="json"))


def digest(scenario: Scenario, data_digest: str) -> str:
    """sha256 of the resolved scenario and the data.

    Args:
        scenario: the scenario.
        data_digest: digest of the log's content, `simulator.cache.digest_of(log)`.
    """
    return digest_of(without_folders(scenario), data_digest)


def world_digest(scenario: Scenario, data_digest: str, versions: Mapping[str, str]) -> str:
    """sha256 of what two runs must share to be comparable: all but the name, the agents, the gates.

    Args:
        scenario: the scenario.
        data_digest: digest of the log's content.
        versions: package -> version, as in the report.
    """
    shared = without_folders(scenario)
    return digest_of(
        {key: shared[key] for key in ("data", "task", "preference", "simulator", "evaluate", "seed")},
        data_digest,
        dict(versions),
    )


def kind_without_folder(kind: str) -> str:
    """A user's own class by its file's name alone; any other kind as it is."""
    place, colon, name = kind.rpartition(":")
    return f"{Path(place).name}:{name}" if colon and place.endswith(".py") else kind


def _name_of_absolute(place: str) -> str:
    """The last part of an absolute path; a relative one may be an id of a hub, which has a slash too."""
    path = Path(place).expanduser()
    return path.name if path.is_absolute() else place


def without_folders(scenario: Scenario) -> dict[str, Any]:
    """The resolved scenario without the folders in which files lie: the log's content is in the data's digest."""
    dump = scenario.model_dump(mode="json")
    for agent in dump["agents"]:
        agent["kind"] = kind_without_folder(agent["kind"])
    for key in ("source", "items", "users", "random", "queries"):
        value = dump["data"][key]
        if value is not None and value not in DATASETS and log_of_policy(value) is None:
            dump["data"][key] = Path(value).name
    for modality in dump["data"]["modalities"].values():
        modality["files"] = modality["files"] and Path(modality["files"]).name
    preference, robustness = dump["preference"], dump["preference"]["robustness"]
    preference["encoder"] = _name_of_absolute(preference["encoder"])
    robustness["synonyms"] = robustness["synonyms"] and Path(robustness["synonyms"]).name
    robustness["back_translation"] = robustness["back_translation"] and [
        _name_of_absolute(one) for one in robustness["back_translation"]
    ]
    if preference["update"] is not None:
        preference["update"]["model"] = Path(preference["update"]["model"]).name
    simulator = dump["simulator"]
    if simulator["behaviour"] is not None:
        simulator["behaviour"] = kind_without_folder(simulator["behaviour"])
    if simulator["friends"]["pairs"] is not None:
        simulator["friends"]["pairs"] = Path(simulator["friends"]["pairs"]).name
    others = dump["evaluate"]["other_logs"]
    dump["evaluate"]["other_logs"] = [one if log_of_policy(one) is not None else Path(one).name for one in others]
    return dump


# --------------------------------------------------------------------------------------------------- --set


_STEP = re.compile(r"(?:^|\.)([^.\[\]=]+)|\[([^\[\]]+)\]")


def set_value(raw: dict[str, Any], override: str) -> None:
    """Apply one `key.path=value` to the raw mapping; the value is read as YAML.

    Raises:
        InputError: the path cannot be followed; one line.
    """
    path, equals, text = override.partition("=")
    steps = _steps(path.strip())
    if not equals or not steps:
        raise InputError(f"--set: '{override}' is no key.path=value; write e.g. evaluate.users=200")
    value = parse_yaml(text, f"--set {path.strip()}")
    at: Any = raw
    for depth, step in enumerate(steps):
        last = depth == len(steps) - 1
        if isinstance(at, list):
            place = _place_in_list(at, step, override)
            if last:
                at[place : place + 1] = [value]
                return
            if place == len(at):
                at.append({})
            at = at[place]
        elif isinstance(at, dict):
            if last:
                at[step] = value
                return
            if at.get(step) is None:
                at[step] = {}
            at = at[step]
        else:
            inside = ".".join(steps[:depth])
            raise InputError(
                f"--set: '{path.strip()}' goes into {inside}, which is a {_yaml_kind(at)}; set {inside} itself"
            )


def _steps(path: str) -> list[str]:
    steps, at = [], 0
    while at < len(path):
        match = _STEP.match(path, at)
        if match is None:
            return []
        steps.append(match[1] if match[1] is not None else match[2])
        at = match.end()
    return steps


def _place_in_list(values: list[Any], step: str, override: str) -> int:
    if re.fullmatch(r"\d+", step):
        if int(step) > len(values):
            raise InputError(f"--set: '{override}' names entry {step} of {len(values)}; give 0 to {len(values)}")
        return int(step)
    names = [entry.get("name") for entry in values if isinstance(entry, dict)]
    if step in names:
        return next(at for at, entry in enumerate(values) if isinstance(entry, dict) and entry.get("name") == step)
    known = [name for name in names if isinstance(name, str)]
    raise InputError(
        f"--set: '{override}' names no entry{did_you_mean(step, known) or f'; there are {_listed(known)}'}"
    )


# --------------------------------------------------------------------------------------------------- mistakes


def _checked(value: Any, wanted: Any, where: str, field: Any = None) -> tuple[Any, list[str]]:
    """The settings of a raw value, and what is wrong with it.

    Where single keys are wrong, the settings are those of the right keys, so that these can be checked against other
    parts of the scenario; None where even that cannot be had.
    """
    adapter: TypeAdapter[Any] = TypeAdapter(wanted)
    try:
        part = adapter.validate_python(value)
    except ValidationError as error:
        mistakes = mistakes_of(error, wanted, where, field)
        wrong_keys = {mistake["loc"][0] for mistake in error.errors() if mistake["loc"]}
        if not isinstance(value, Mapping) or not wrong_keys:
            return None, mistakes
        try:
            return adapter.validate_python({key: v for key, v in value.items() if key not in wrong_keys}), mistakes
        except ValidationError:
            return None, mistakes
    return part, list(_booleans_for_numbers(value, part, where))


def mistakes_of(error: ValidationError, wanted: Any, where: str, field: Any = None) -> list[str]:
    """One line for each thing that pydantic found, in the words of a scenario.

    Args:
        error: what pydantic raised.
        wanted: the type that was validated, to name the nearest key and the default.
        where: path of the value in the scenario, e.g. "agents[2]".
        field: the pydantic field that the value is given for, if it is one.
    """
    lines: dict[str, str] = {}
    for mistake in error.errors(include_url=False):
        path, model, inner = _follow(wanted, mistake["loc"])
        place, asked = f"{where}{path}", inner if path else field
        if mistake["type"] == "finite_number" and isinstance(mistake["input"], float):
            continue  # `_not_finite` names them all
        if mistake["type"] == "default_factory_not_called":
            continue  # a default that hangs on what is wrong, and is named for itself
        if mistake["type"] == "extra_forbidden":
            key = str(mistake["loc"][-1])
            known = list(model.model_fields) if model is not None else []
            line = f"{place}: unknown key{did_you_mean(key, known) or f'; known: {_listed(known)}'}"
        elif mistake["type"] == "missing":
            line = f"{place}: is missing; {_described(asked.description if asked is not None else None)}"
        else:
            line = _said(place, mistake, asked)
        lines.setdefault(place, line)  # each branch of a union complains; the first is enough
    return list(lines.values())


_WANTED = {
    "int_type": "is no whole number",
    "int_parsing": "is no whole number",
    "int_from_float": "is no whole number",
    "float_type": "is no number",
    "float_parsing": "is no number",
    "bool_type": "is neither true nor false",
    "bool_parsing": "is neither true nor false",
    "string_type": "is no text",
    "list_type": "is no list",
    "tuple_type": "is no list",
    "dict_type": "is no mapping",
    "model_type": "is no mapping",
    "model_attributes_type": "is no mapping",
    "finite_number": "is not finite",
}


def _said(place: str, mistake: Mapping[str, Any], field: Any) -> str:
    value, kind = mistake.get("input"), mistake["type"]
    context: Mapping[str, Any] = mistake.get("ctx") or {}
    if kind == "value_error":
        said = str(context.get("error", mistake["msg"])).removeprefix("Value error, ")
        if isinstance(value, Mapping) or said.startswith(("'", '"')):
            return f"{place}: {said}"
        return f"{place}: {_quoted(value)}{':' if isinstance(value, list) else ''} {said}"
    if kind == "literal_error":
        allowed = re.findall(r"'([^']*)'", str(context.get("expected", "")))
        near = did_you_mean(str(value), allowed)
        return f"{place}: {_quoted(value)} is not one of {_listed(allowed)}{near or '; give one of these'}"
    if kind == "string_pattern_mismatch":
        if place.endswith(".name"):
            return f"{place}: {_quoted(value)} is no plain file name; use letters, digits, '.', '_', '-'"
        return (
            f"{place}: {_quoted(value)} cannot be used; {_described(field.description if field is not None else None)}"
        )
    if kind in ("too_short", "too_long") and isinstance(value, list):
        few, many = context.get("min_length"), context.get("max_length")
        wanted = f"at most {many}" if few is None else f"at least {few}"
        return f"{place}: {_quoted(value)} has {len(value)} entries; give {wanted}"
    if kind == "string_too_short" and not value:
        return f"{place}: '' is empty; {_mend(field)}"
    if kind == "none_required":
        return f"{place}: {_quoted(value)} is not built yet; leave it out"
    what = _WANTED.get(kind) or mistake["msg"].replace("Input should", "should").replace("String should", "should")
    return f"{place}: {_quoted(value)} {what[0].lower()}{what[1:]}; {_mend(field)}"


def _mend(field: Any) -> str:
    if field is not None and field.default_factory_takes_validated_data:
        return "leave it out, or " + _described(field.description)
    if field is not None and not field.is_required():
        default = field.get_default(call_default_factory=True)
        if default is None:
            return "leave it out, or give " + _described(field.description).removeprefix("give ")
        if not isinstance(default, BaseModel):
            shown = list(default) if isinstance(default, tuple) else repr(default) if default in ("", " ") else default
            return f"the default is {shown}"
    return _described(field.description if field is not None else None)


def _described(description: str | None) -> str:
    if not description:
        return "give a value"
    first = re.split(r"(?<=[a-z)])\. |; ", description)[0].rstrip(".")
    return f"give it ({first[0].lower()}{first[1:]})"


def _follow(wanted: Any, location: Sequence[str | int]) -> tuple[str, type[BaseModel] | None, Any]:
    """Path in a scenario's notation, the innermost model on the way, and the field it ends at, if it does.

    pydantic puts the tags of unions into a location; they are no keys of the scenario and are left out.
    """
    path, model, field = "", _model_in(wanted), None
    at = wanted
    for step in location:
        options = _models_in(at)
        inside = next((option for option in options if step in option.model_fields), None)
        if isinstance(step, int):
            path, at, field = f"{path}[{step}]", _element(at), None
        elif inside is not None:
            field = inside.model_fields[step]
            path, model, at = f"{path}.{step}", inside, _annotated(field)
        elif options and step == location[-1] and not _is_tag(step):
            path, model, field = f"{path}.{step}", options[0], None
        elif _mapping_value(at) is not None and not _is_tag(step):
            path, at, field = f"{path}.{step}", _mapping_value(at), None
    return path, model, field


def _is_tag(step: str) -> bool:
    return bool(re.search(r"[\[(]", step)) or step in ("str", "int", "float", "bool", "none")


def _annotated(field: Any) -> Any:
    """Type of a field together with its constraints, which pydantic keeps apart from it."""
    from typing import Annotated

    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


def _branches(kind: Any) -> Iterator[Any]:
    """A type, opened where it is a union or annotated."""
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        for option in get_args(kind):
            yield from _branches(option)
    elif hasattr(kind, "__metadata__"):
        yield from _branches(get_args(kind)[0])
    elif type(kind).__name__ == "TypeAliasType":
        yield from _branches(kind.__value__)
    else:
        yield kind


def _models_in(kind: Any) -> list[type[BaseModel]]:
    return [option for option in _branches(kind) if isinstance(option, type) and issubclass(option, BaseModel)]


def _model_in(kind: Any) -> type[BaseModel] | None:
    return next(iter(_models_in(kind)), None)


def _element(kind: Any) -> Any:
    return next((get_args(o)[0] for o in _branches(kind) if get_origin(o) in (list, tuple) and get_args(o)), Any)


def _mapping_value(kind: Any) -> Any:
    return next((get_args(o)[1] for o in _branches(kind) if get_origin(o) is dict), None)


def _booleans_for_numbers(raw: Any, part: Any, where: str) -> Iterator[str]:
    """Pydantic takes true for 1; in a scenario that is a slip."""
    if isinstance(part, BaseModel) and isinstance(raw, Mapping):
        for key, value in raw.items():
            yield from _booleans_for_numbers(value, getattr(part, key, None), f"{where}.{key}")
    elif isinstance(raw, list) and isinstance(part, list | tuple):
        for at, (value, inner) in enumerate(zip(raw, part, strict=False)):
            yield from _booleans_for_numbers(value, inner, f"{where}[{at}]")
    elif isinstance(raw, bool) and isinstance(part, int | float) and not isinstance(part, bool):
        yield f"{where}: '{str(raw).lower()}' is no number; give one"


def _not_finite(raw: Any, where: str) -> Iterator[str]:
    """Every NaN and infinity in the tree, also where settings take anything (`params`)."""
    if isinstance(raw, Mapping):
        for key, value in raw.items():
            yield from _not_finite(value, f"{where}.{key}" if where else str(key))
    elif isinstance(raw, list):
        for at, value in enumerate(raw):
            yield from _not_finite(value, f"{where}[{at}]")
    elif isinstance(raw, float) and not math.isfinite(raw):
        yield f"{where}: '{raw}' is not finite; give a finite number"


def _quoted(value: Any) -> str:
    if isinstance(value, list) and not any(isinstance(part, Mapping | list) for part in value):
        shown = f"[{', '.join(_scalar(part) for part in value)}]"
        if len(shown) <= 60:
            return shown
    if isinstance(value, Mapping | list):
        return f"a {_yaml_kind(value)}"
    return f"'{_scalar(value)[:60]}'"


def _scalar(value: Any) -> str:
    return {True: "true", False: "false", None: "null"}[value] if isinstance(value, bool | None) else str(value)


def _yaml_kind(value: Any) -> str:
    kinds = {dict: "mapping", list: "list", str: "text", bool: "yes/no", type(None): "null"}
    return kinds.get(type(value), "number")


def _listed(names: Iterable[str], most: int = 20) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "") if names else "none"
