"""A trained agent as a folder: written by every run, read as an agent's `kind`, and opened in a child process only.

The folder holds `agent.json` (what it is), `agent.pickle` (what it learned) and, of a user's own class, `agent.py` with
the modules beside it that it imports.
"""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import cloudpickle
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agents.base import Agent, AgentError
from simulator.cache import write_atomically
from simulator.errors import InputError
from simulator.log import Catalogue

if TYPE_CHECKING:
    from agents.loading import AgentSpec

MANIFEST, STATE, SOURCE = "agent.json", "agent.pickle", "agent.py"


class SavedAgent(BaseModel):
    """What `agent.json` says of a saved agent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = Field(default=1, ge=1, le=1, description="of this folder")
    name: str = Field(description="of the agent in the run that trained it")
    kind: str = Field(description="of the agent there")
    source: str = Field(default="", description="class in agent.py, or package.module:Class; empty for a built-in kind")
    has_probabilities: bool = Field(description="it can say its action probabilities")
    catalogue: str = Field(description="sha256 of the item ids in their order, and of the user features' names")
    n_items: int = Field(ge=0, description="items of that catalogue")
    sha256: str = Field(description="of agent.pickle")


def catalogue_digest(catalogue: Catalogue) -> str:
    """What a saved agent's numbers stand for: the items in their order, and the features of users."""
    named = json.dumps([catalogue.item_ids, catalogue.user_feature_names])
    return hashlib.sha256(named.encode()).hexdigest()


def save_agent(folder: Path, agent: Agent, spec: AgentSpec, catalogue: Catalogue) -> None:
    """Write a trained agent's folder; other processes read all of it or nothing."""
    from agents.user_code import UserAgent

    source, content = "", dict[Path, bytes]()
    if isinstance(agent, UserAgent):
        place, _, name = agent.target.rpartition(":")
        if place.endswith(".py"):
            home = Path(place).parent
            beside = [path for path in spec.read if path.is_relative_to(home) and path != home / SOURCE]
            content = {path.relative_to(home): path.read_bytes() for path in beside}
            content[Path(SOURCE)] = Path(place).read_bytes()
            source = f"{SOURCE}:{name}"
        else:
            source = agent.target
        state = agent.saved_state()
    else:
        state = cloudpickle.dumps(agent)
    manifest = SavedAgent(
        name=spec.settings.name,
        kind=spec.settings.kind if spec.kind is not None else "user",
        source=source,
        has_probabilities=spec.has_probabilities,
        catalogue=catalogue_digest(catalogue),
        n_items=catalogue.n_items,
        sha256=hashlib.sha256(state).hexdigest(),
    )
    for path, text in content.items():
        write_atomically(folder / path, partial(_write, content=text))
    write_atomically(folder / STATE, lambda part: _write(part, state))
    write_atomically(folder / MANIFEST, lambda part: _write(part, manifest.model_dump_json(indent=1).encode()))


def read_saved(folder: Path, where: str) -> SavedAgent:
    """What a folder says that it holds; nothing of the agent itself is opened.

    Raises:
        InputError: it is no folder of a saved agent, or damaged.
    """
    try:
        found = SavedAgent.model_validate_json((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        said = error.errors()[0]["msg"] if isinstance(error, ValidationError) else type(error).__name__
        raise InputError(
            f"{where}.kind: '{folder.name}' is no folder of a saved agent ({MANIFEST}: {said}); a run writes them to "
            "agents/NAME/SEED in its folder"
        ) from error
    try:
        digest = hashlib.sha256((folder / STATE).read_bytes()).hexdigest()
    except OSError:
        digest = ""
    if digest != found.sha256 or (found.source.startswith(SOURCE) and not (folder / SOURCE).is_file()):
        raise InputError(f"{where}.kind: '{folder.name}' is damaged ({STATE} is not what was written); train it again")
    return found


def check_catalogue(saved: SavedAgent, catalogue: Catalogue) -> None:
    """Do nothing if the agent was trained on this catalogue.

    Raises:
        AgentError: its item numbers stand for other items, or its users have other features.
    """
    if saved.catalogue != catalogue_digest(catalogue):
        raise AgentError(
            f"saved agent '{saved.name}' knows another catalogue ({saved.n_items} items; this one has "
            f"{catalogue.n_items}, or other ids, order or policy_inputs); train it on this data"
        )


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
