"""`rules`: any agent under rules that are never broken: what is not shown to whom, and what each slate must hold."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from agents.base import Agent, AgentError, Observation, Training, said_by
from agents.settings import AgentSettings
from agents.wrapping import Wrapping, slates_of
from simulator.datasets.sources import named_file
from simulator.errors import InputError, ScenarioError, did_you_mean
from simulator.log import Catalogue
from simulator.yaml_text import parse_yaml

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_COMPARE: Mapping[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip
_COMPARISON = re.compile(r"\s*(<=|>=|==|!=|<|>)\s*(-?\d+(?:\.\d+)?)\s*")

Test = str | int | float | bool | list[str]


class Rule(BaseModel):
    """One rule."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    never: dict[str, Test] | None = Field(default=None, description="items that are not shown")
    only: dict[str, Test] | None = Field(
        default=None, description="the only items that are shown; what is unknown of an item does not pass"
    )
    must: dict[str, Test] | None = Field(default=None, description="items of which each slate holds some")
    at_least: int = Field(default=1, ge=1, description="must: how many of them, as far as there are candidates")
    when: dict[str, Test] = Field(default={}, description="users whom the rule is for; empty: all")

    @model_validator(mode="after")
    def _one_of_three(self) -> Rule:
        given = [name for name in ("never", "only", "must") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"a rule says one of never, only and must; this one says {' and '.join(given) or 'none'}")
        if not self.tests:
            raise ValueError(f"{given[0]}: is empty; name what it tests, e.g. {{category: Horror}}")
        if self.must is None and self.at_least != 1:
            raise ValueError(f"at_least: {self.at_least} belongs to must; {given[0]} holds for all items")
        return self

    @property
    def which(self) -> str:
        """Never, only or must."""
        return next(name for name in ("never", "only", "must") if getattr(self, name) is not None)

    @property
    def tests(self) -> dict[str, Test]:
        """Tests of the items that it is about."""
        tests: dict[str, Test] = getattr(self, self.which)
        return tests

    @field_validator("never", "only", "must", "when")
    @classmethod
    def _tests_can_be_read(cls, tests: dict[str, Test] | None) -> dict[str, Test] | None:
        for name, test in (tests or {}).items():
            if isinstance(test, str) and test.strip()[:1] in "<>=!" and not _COMPARISON.fullmatch(test):
                raise ValueError(f"{name}: '{test}' is no comparison; write e.g. \"< 18\"")
        return tests


class RulesSettings(BaseModel):
    """Parameters of an agent under rules."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    agent: str = Field(default="popularity", min_length=1, description="kind of the agent that is kept to the rules")
    params: dict[str, Any] = Field(default_factory=dict, description="parameters of that agent")
    rules: tuple[Rule, ...] = Field(
        default=(), description='the rules, e.g. [{never: {category: Horror}, when: {age: "< 18"}}]'
    )
    file: str | None = Field(
        default=None, min_length=1, description="YAML file with a list of further rules, counted from the scenario"
    )

    def wrapped(self) -> tuple[AgentSettings, ...]:
        """The entry of the wrapped agent."""
        return (AgentSettings(name="wrapped", kind=self.agent, params=self.params),)

    def files(self, folder: Path) -> tuple[Path, ...]:
        """The files that are read beside the scenario."""
        return () if self.file is None else (named_file(folder, self.file),)

    def located(self, folder: Path, where: str) -> RulesSettings:
        """The settings with the rules of the file among them.

        Raises:
            InputError: it cannot be read, or a rule in it is none; one line each.
        """
        field = f"{where}.params.file"
        for path in self.files(folder):
            try:
                given = parse_yaml(path.read_text(encoding="utf-8"), f"'{self.file}'")
            except (OSError, UnicodeDecodeError) as error:
                said = f"{type(error).__name__}: {said_by(error)}"
                raise InputError(f"{field}: '{self.file}' cannot be read ({said}); name a text file") from error
            except ScenarioError as error:
                raise ScenarioError(f"{field}: {mistake}" for mistake in error.mistakes) from error
            if not isinstance(given, list):
                raise InputError(f"{field}: '{self.file}' is no list of rules; begin each with '- never:' or '- must:'")
            found, mistakes = [], []
            for number, rule in enumerate(given, 1):
                try:
                    found.append(Rule.model_validate(rule))
                except ValidationError as error:
                    first = error.errors()[0]
                    at = ".".join(["", *(str(part) for part in first["loc"])])
                    said = first["msg"].removeprefix("Value error, ")
                    mistakes.append(f"{field}: '{self.file}': rule {number}{at}: {said}")
            if mistakes:
                raise ScenarioError(mistakes)
            return self.model_copy(update={"rules": (*self.rules, *found), "file": None})
        return self

    def mistakes_in(self, catalogue: Catalogue) -> list[str]:
        """What rules name that the catalogue does not have, one line for each rule."""
        mistakes = []
        for at, rule in enumerate(self.rules):
            try:
                _items_of(rule.tests, catalogue, f"rules[{at}].{rule.which}")
                UserTest.of(rule.when, catalogue, f"rules[{at}].when")
            except InputError as error:
                mistakes.append(str(error))
        return mistakes


class Rules(Wrapping):
    """Shows the wrapped agent's slates among the items that the rules allow each user.

    never and only narrow the candidates that the wrapped agent is asked with, so its own order stands. A must takes the
    agent's best items of that kind into the last places of a slate that has too few. A rule is never broken to fill a
    slate: where fewer items than places are allowed, or musts leave no place for one another, the agent fails and says
    so.
    """

    def __init__(self, settings: RulesSettings, wrapped: Sequence[Agent]) -> None:
        super().__init__(wrapped)
        self.settings = settings
        self.agent = wrapped[0]
        self._items: list[Bools] = []  # of each rule, [I] the items that it names
        self._users: list[UserTest] = []
        self._n_items = 0

    def fit(self, training: Training) -> None:
        """Fit the wrapped agent and find what the rules name.

        Raises:
            InputError: a rule names what the catalogue does not have.
        """
        self._items, self._users = [], []
        for at, rule in enumerate(self.settings.rules):
            self._items.append(_items_of(rule.tests, training.catalogue, f"rules[{at}].{rule.which}"))
            self._users.append(UserTest.of(rule.when, training.catalogue, f"rules[{at}].when"))
        self._n_items = training.catalogue.n_items
        self.fit_wrapped(training)

    def act(self, observation: Observation, rng: np.random.Generator) -> Ints:
        """[n, K] slates that keep the rules.

        Raises:
            AgentError: the rules leave a user fewer items than the slate has places, or ask for more than it has.
        """
        n, size = len(observation), observation.slate_size
        given = observation.candidates
        allowed = np.ones((n, self._n_items), bool) if given is None else given.copy()
        kept = [test.holds(observation.user_features) for test in self._users]
        for rule, items, users in zip(self.settings.rules, self._items, kept, strict=True):
            if rule.must is None:
                allowed[users] &= ~items if rule.never is not None else items
        room = allowed.sum(axis=1)
        before = np.full(n, self._n_items) if given is None else given.sum(axis=1)
        short = room < np.minimum(size, before)
        if short.any():
            worst = int(np.argmin(np.where(short, room, self._n_items)))
            raise AgentError(
                f"rules: {room[worst]} of {before[worst]} candidates are left for user {worst}, and a slate has {size} "
                "places; loosen a rule or show shorter slates"
            )
        slates = slates_of(self.agent, replace(observation, candidates=allowed), rng).copy()
        needed = np.zeros((n, self._n_items), bool)  # what an earlier must has put there, or found and counts on
        for at, (rule, items, users) in enumerate(zip(self.settings.rules, self._items, kept, strict=True)):
            if rule.must is None:
                continue
            broken = self._put(slates, rule.at_least, items, users, allowed, needed, observation, rng)
            if broken.any():
                raise AgentError(
                    f"rules: rules[{at}].must asks for {rule.at_least} in each slate, and beside what earlier rules "
                    f"put there user {int(np.argmax(broken))} has no place for so many; a slate has {size} places, so "
                    "ask for fewer"
                )
        return slates

    def _put(
        self,
        slates: Ints,
        at_least: int,
        items: Bools,
        users: Bools,
        allowed: Bools,
        needed: Bools,
        observation: Observation,
        rng: np.random.Generator,
    ) -> Bools:
        """Bring `at_least` of the items into the slates [n, K] of the users, from the last place up.

        Returns:
            [n] users whose slate has no place for as many, though there are candidates.
        """
        rows = np.arange(len(slates))
        there = slates >= 0
        has = there & items[np.maximum(slates, 0)] & users[:, None]
        # Of those that it finds it counts on `at_least`, which a later must leaves there: on what an earlier one
        # counts on, then from the first place down.
        counted = needed[rows[:, None], np.maximum(slates, 0)] & has
        order = np.argsort(~has * 2 + ~counted, axis=1, kind="stable")
        first = np.zeros_like(has)
        np.put_along_axis(first, order, np.arange(slates.shape[1])[None, :] < at_least, axis=1)
        counted = has & first
        needed[np.nonzero(counted)[0], slates[counted]] = True
        missing = np.where(users, at_least - has.sum(axis=1), 0)
        if not (missing > 0).any():
            return np.zeros(len(slates), bool)
        candidates = allowed & items
        row, column = np.nonzero(there)
        candidates[row, slates[row, column]] = False
        more = slates_of(self.agent, replace(observation, candidates=candidates), rng)
        taken = np.zeros(len(slates), np.int64)
        for place in range(slates.shape[1] - 1, -1, -1):
            shown = slates[:, place]
            free = (shown < 0) | ~needed[rows, np.maximum(shown, 0)]
            new = more[rows, np.minimum(taken, more.shape[1] - 1)]
            swap = (missing > 0) & free & (new >= 0) & (taken < more.shape[1])
            slates[swap, place] = new[swap]
            needed[rows[swap], new[swap]] = True
            missing = missing - swap
            taken += swap
        broken = missing > 0
        broken[broken] = taken[broken] < candidates[broken].sum(axis=1)
        return broken


class UserTest:
    """Whom a rule is for, by the public user features."""

    def __init__(self) -> None:
        self.columns: list[tuple[int, Callable[[Any], Any]]] = []

    @classmethod
    def of(cls, tests: Mapping[str, Test], catalogue: Catalogue, where: str) -> UserTest:
        """From the tests of `when`.

        Raises:
            InputError: a feature is not among data.policy_inputs, or has no such value.
        """
        out = cls()
        names = catalogue.user_feature_names
        known = list(dict.fromkeys(name.partition("=")[0] for name in names))
        for name, test in tests.items():
            if name not in known:
                hint = did_you_mean(name, known) or f"; agents see {', '.join(known) or 'no feature of users'}"
                raise InputError(f"{where}.{name}: is not among data.policy_inputs{hint}")
            if name in names:
                at = names.index(name)
                scale = catalogue.user_feature_scale
                mean, spread = scale[at] if len(scale) else (0.0, 1.0)
                limit = _number_test(test, f"{where}.{name}")
                out.columns.append((at, _Scaled(limit, float(mean), float(spread))))
                continue
            for value in [test] if not isinstance(test, list) else test:
                if f"{name}={value}" not in names:
                    values = [one.partition("=")[2] for one in names if one.startswith(f"{name}=")]
                    hint = did_you_mean(str(value), values) or f"; there are {', '.join(values[:8])}"
                    raise InputError(f"{where}.{name}: no user has '{value}'{hint}")
            wanted = [f"{name}={value}" for value in ([test] if not isinstance(test, list) else test)]
            out.columns.append((-1, _AnyOf(tuple(names.index(one) for one in wanted))))
        return out

    def holds(self, features: NDArray[np.float32]) -> Bools:
        """[n] users who meet every test."""
        out = np.ones(len(features), bool)
        for at, test in self.columns:
            out &= np.asarray(test(features if at < 0 else features[:, at]), bool)
        return out


class _Scaled:
    """A comparison in the feature's own unit, on its standardised values."""

    def __init__(self, test: _Comparison, mean: float, spread: float) -> None:
        self.test, self.mean, self.spread = test, mean, spread

    def __call__(self, values: NDArray[np.float32]) -> Bools:
        # Standardising in single precision moved a value by up to 1e-6 of its spread: 18 must not become 17.999999, nor
        # 90210 be 90209.998. So many decimals are right, few of an income and many of a share.
        decimals = int(np.floor(-np.log10(2e-6 * self.spread)))
        own = np.round(values.astype(np.float64) * self.spread + self.mean, decimals)
        return self.test(own)


class _AnyOf:
    """One of some one-hot columns."""

    def __init__(self, columns: tuple[int, ...]) -> None:
        self.columns = columns

    def __call__(self, features: NDArray[np.float32]) -> Bools:
        return np.asarray(features[:, list(self.columns)].max(axis=1) > 0)


class _Comparison:
    """`< 18` and its like; what is not a number meets none."""

    def __init__(self, sign: str, limit: float) -> None:
        self.sign, self.limit = sign, limit

    def __call__(self, values: NDArray[np.floating]) -> Bools:
        return np.asarray(_COMPARE[self.sign](values, self.limit) & np.isfinite(values), bool)


def _number_test(test: Test, where: str) -> _Comparison:
    if isinstance(test, int | float):
        return _Comparison("==", float(test))
    match = _COMPARISON.fullmatch(test) if isinstance(test, str) else None
    if match is None:
        raise InputError(f'{where}: {test!r} is no comparison with a number; write e.g. "< 18"')
    return _Comparison(match[1], float(match[2]))


def _items_of(tests: Mapping[str, Test], catalogue: Catalogue, where: str) -> Bools:
    """[I] items that meet every test: `id`, `category`, or a number of data.modalities.

    Raises:
        InputError: there is no such thing in the catalogue.
    """
    numbers = {name: values[:, 0] for name, values in catalogue.modalities.items() if values.shape[1] == 1}
    out = np.ones(catalogue.n_items, bool)
    for name, test in tests.items():
        wanted = [str(one) for one in test] if isinstance(test, list) else [str(test)]
        if name in numbers:
            out &= _number_test(test, f"{where}.{name}")(numbers[name])
        elif name in ("id", "category"):
            there = catalogue.item_ids if name == "id" else catalogue.category_names
            for value in wanted:
                if value not in there:
                    hint = did_you_mean(value, there) or (f"; there are {', '.join(there[:12])}" if there else "")
                    raise InputError(f"{where}.{name}: no item has '{value}'{hint}")
            if name == "id":
                out &= np.isin(np.array(catalogue.item_ids), wanted)
            else:
                columns = [catalogue.category_names.index(value) for value in wanted]
                out &= catalogue.item_categories[:, columns].max(axis=1) > 0
        else:
            known = ["id", "category", *numbers]
            hint = did_you_mean(name, known) or f"; known: {', '.join(known)} (data.modalities adds numbers)"
            raise InputError(f"{where}.{name}: is nothing known of items{hint}")
    return out
