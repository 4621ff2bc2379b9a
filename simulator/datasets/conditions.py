"""The condition of `data.positive`: a tiny language of comparisons, parsed here and never evaluated as Python."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.errors import LogError

_TOKEN = re.compile(
    r"\s*(?:(?P<number>-?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<compare>>=|<=|==|!=|>|<)|(?P<paren>[()])"
    r"|`(?P<quoted_name>[^`]+)`|'(?P<single>[^']*)'|\"(?P<double>[^\"]*)\"|(?P<name>[^\W\d][\w.]*))"
)
_COMPARE: Mapping[str, Callable[[Any, Any], Any]] = {
    ">": np.greater,
    ">=": np.greater_equal,
    "<": np.less,
    "<=": np.less_equal,
    "==": np.equal,
    "!=": np.not_equal,
}
_YES, _NO = ("1", "1.0", "true", "yes", "y", "t"), ("0", "0.0", "false", "no", "n", "f", "")
_EXAMPLE = "give e.g. 'rating >= 4', 'click == 1', or the name of a yes/no column"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One column against a constant, or a yes/no column alone (then `operator` is "")."""

    column: str
    operator: str = ""
    constant: float | str = 1.0


@dataclass(frozen=True, slots=True)
class Condition:
    """Comparisons joined by `and` and `or`.

    Attributes:
        parts: a Comparison, or ("and" | "or" | "not", Condition, ...).
        text: as the user wrote it.
    """

    parts: Comparison | tuple[Any, ...]
    text: str

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Condition of a text.

        Raises:
            ValueError: it is no condition; the message says where.
        """
        return cls(_Parser(text).whole(), text)

    def columns(self) -> dict[str, bool]:
        """Columns that it reads, and whether each must hold numbers (True) or may hold text."""
        found: dict[str, bool] = {}

        def walk(part: Comparison | tuple[Any, ...]) -> None:
            if isinstance(part, Comparison):
                number = bool(part.operator) and not isinstance(part.constant, str)
                found[part.column] = found.get(part.column, False) or number
            else:
                for child in part[1:]:
                    walk(child)

        walk(self.parts)
        return found

    def holds(self, numbers: Mapping[str, NDArray[np.float64]], texts: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
        """Where the condition holds: [n] from columns by name, numbers or text as `columns` says.

        Raises:
            LogError: a column that stands alone has values other than yes and no.
        """

        def walk(part: Comparison | tuple[Any, ...]) -> NDArray[np.bool_]:
            if isinstance(part, Comparison):
                if not part.operator:
                    return yes_or_no(part.column, numbers, texts)
                side = texts if isinstance(part.constant, str) else numbers
                return np.asarray(_COMPARE[part.operator](side[part.column], part.constant), bool)
            values = [walk(child) for child in part[1:]]
            if part[0] == "not":
                return ~values[0]
            return np.logical_and.reduce(values) if part[0] == "and" else np.logical_or.reduce(values)

        return walk(self.parts)


def yes_or_no(
    column: str, numbers: Mapping[str, NDArray[np.float64]], texts: Mapping[str, NDArray[Any]]
) -> NDArray[np.bool_]:
    """[n] truth of a yes/no column, read as 0/1, true/false or yes/no."""
    if column in numbers:
        values = numbers[column]
        bad = np.flatnonzero((values != 0) & (values != 1))
        if bad.size:
            raise LogError(
                f"data.positive: '{column}' has {values[bad[0]]:g}, which is neither yes nor no; compare it, e.g. "
                f"'{column} >= {values[bad[0]]:g}'"
            )
        return values == 1
    words, inverse = np.unique(texts[column], return_inverse=True)
    lower = np.array([str(word).strip().lower() for word in words])
    known = np.isin(lower, (*_YES, *_NO))
    if not known.all():
        odd = words[~known][0]
        raise LogError(
            f"data.positive: '{column}' has '{odd}', which is neither yes nor no; compare it, e.g. '{column} == 1'"
        )
    return np.isin(lower, _YES)[inverse]


class _Parser:
    """Recursive descent: or < and < not < comparison."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[tuple[str, str]] = []
        at = 0
        text = text.rstrip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                odd = f"cannot read {text[at:].strip()[:20]!r}"
                raise ValueError(f"{odd}; put a column's name with blanks or signs in backquotes, or {_EXAMPLE}")
            self.tokens.append((str(match.lastgroup), match[match.lastgroup or 0]))
            at = match.end()
        self.at = 0

    def whole(self) -> Comparison | tuple[Any, ...]:
        if not self.tokens:
            raise ValueError(f"is empty; {_EXAMPLE}")
        parts = self._any()
        if self.at < len(self.tokens):
            raise ValueError(f"does not go on with {self.tokens[self.at][1]!r}; {_EXAMPLE}")
        return parts

    def _next_is(self, kind: str, *words: str) -> bool:
        return self.at < len(self.tokens) and self.tokens[self.at][0] == kind and self.tokens[self.at][1] in words

    def _joined(self, word: str, inner: Callable[[], Any]) -> Any:
        parts = [inner()]
        while self._next_is("name", word):
            self.at += 1
            parts.append(inner())
        return parts[0] if len(parts) == 1 else (word, *parts)

    def _any(self) -> Any:
        return self._joined("or", self._all)

    def _all(self) -> Any:
        return self._joined("and", self._not)

    def _not(self) -> Any:
        if self._next_is("name", "not"):
            self.at += 1
            return ("not", self._not())
        if self._next_is("paren", "("):
            self.at += 1
            parts = self._any()
            if not self._next_is("paren", ")"):
                raise ValueError(f"has no closing parenthesis; {_EXAMPLE}")
            self.at += 1
            return parts
        return self._comparison()

    def _comparison(self) -> Comparison:
        if self.at >= len(self.tokens):
            raise ValueError(f"ends too early; {_EXAMPLE}")
        kind, column = self.tokens[self.at]
        if kind not in ("name", "quoted_name") or (kind == "name" and column in ("and", "or", "not")):
            raise ValueError(f"needs a column's name where {column!r} stands; {_EXAMPLE}")
        self.at += 1
        if self.at >= len(self.tokens) or self.tokens[self.at][0] != "compare":
            return Comparison(column)
        operator = self.tokens[self.at][1]
        self.at += 1
        if self.at >= len(self.tokens):
            raise ValueError(f"ends after {operator!r}; {_EXAMPLE}")
        kind, value = self.tokens[self.at]
        self.at += 1
        if kind == "number":
            return Comparison(column, operator, float(value))
        if kind in ("single", "double"):
            if operator not in ("==", "!="):
                raise ValueError(f"text can be compared by == and != only, not {operator!r}; {_EXAMPLE}")
            return Comparison(column, operator, value)
        if kind == "name" and value.lower() in ("true", "false"):
            if operator not in ("==", "!="):
                raise ValueError(f"{value!r} can be compared by == and != only; {_EXAMPLE}")
            alone = Comparison(column)
            wanted = (value.lower() == "true") == (operator == "==")
            return alone if wanted else ("not", alone)  # type: ignore[return-value]
        raise ValueError(f"needs a number or quoted text after {operator!r}, not {value!r}; {_EXAMPLE}")
