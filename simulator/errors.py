"""What can go wrong, and whose fault it is.

    WindtunnelError
    └── InputError          the user can mend it: one line (field, value, mend), exit code 2, no traceback
        ├── LogError        a log, a dataset or logged rounds are not usable as they are
        ├── ScenarioError   a scenario file is wrong; carries every mistake found, one line each
        └── SeenRowsError   a model was asked to score rows that it was fitted on

Anything else is a fault of Windtunnel's own and keeps its traceback.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from difflib import get_close_matches


class WindtunnelError(Exception):
    """Base of all errors that this product raises on purpose."""


class InputError(WindtunnelError):
    """Something the user gave cannot be used; the message names the field, the value and the mend."""


class LogError(InputError):
    """A log, a dataset or logged rounds are not usable as they are."""


class ScenarioError(InputError):
    """A scenario is wrong; `mistakes` holds one line for each thing to mend."""

    def __init__(self, mistakes: Iterable[str]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(self.mistakes))


class SeenRowsError(InputError):
    """A model or world was asked to score rows that it was fitted on."""


def full_disk(error: BaseException) -> OSError | None:
    """What the system said of a full disk or a used-up quota, where an error is that or was raised over it.

    torch writes its files itself and says so as a RuntimeError.
    """
    cause: BaseException | None = error
    met: list[BaseException] = []  # one that is raised again while it is handled may be raised over itself
    while cause is not None and not any(cause is one for one in met):
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            return cause
        if isinstance(cause, RuntimeError) and "PytorchStreamWriter failed writing" in str(cause):
            return OSError(errno.ENOSPC, "torch could not write a file to its end")
        met.append(cause)
        cause = cause.__cause__ or cause.__context__
    return None


def did_you_mean(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Return "; did you mean 'x'?" for the nearest known word, or an empty string.

    Args:
        word: what was given.
        known: what there is.
        cutoff: likeness in [0, 1] under which none is near; names of files are alike by their endings already.
    """
    near = get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return f"; did you mean '{near[0]}'?" if near else ""
