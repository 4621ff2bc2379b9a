"""A ranking service as an agent, and a saved agent as a kind: served, refused in one line, and never trusted.

Sabotaged once, each seen red: no second try, excluded items not sent, the catalogue not compared.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cloudpickle
import numpy as np
import pytest

from agents.base import AgentError, AgentLimitError
from agents.contract import check_agent
from agents.loading import Trained, resolve_kind, train
from agents.saved import STATE, SavedAgent, save_agent
from agents.settings import AgentSettings, TuneSettings
from scenarios import rank_server
from simulator.errors import InputError
from simulator.log import InteractionLog
from simulator.world import World
from tests.agents.taught_world import ITEMS, observed, taught_world, training_in

Answer = Callable[[dict[str, Any]], tuple[int, bytes]]


@pytest.fixture(scope="module")
def world_and_log() -> tuple[World, InteractionLog]:
    return taught_world()


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """A server on a free port of this machine, for as long as the block runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/rank"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def answering(
    answer: Answer, headers: Mapping[str, str] = MappingProxyType({})
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server that answers so, and the questions that it was asked."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            question["authorization"] = self.headers["Authorization"]
            asked.append(question)
            status, content = answer(question)
            try:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)
            except OSError:
                pass  # whoever asked has given up

        def log_message(self, *args: Any) -> None:
            """Nothing on the tests' output."""

    with serving(Handler) as url:
        yield url, asked


def first_allowed(question: dict[str, Any]) -> tuple[int, bytes]:
    slates = []
    for user in question["users"]:
        names = user.get("candidates", [f"i{i}" for i in range(ITEMS)])
        slates.append([name for name in names if name not in set(user["excluded"])][: question["slate_size"]])
    return 200, json.dumps({"slates": slates}).encode()


def made(world_and_log: tuple[World, InteractionLog], kind: str, **params: Any) -> Trained:
    entry = AgentSettings.model_validate({"name": "one", "kind": kind, "params": params, "trained_on": "nothing"})
    return train(entry, training_in(*world_and_log), Path())


def test_a_service_is_asked_in_batches_by_the_logs_own_ids_and_its_slates_are_shown(
    world_and_log: tuple[World, InteractionLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK_TOKEN", "secret")
    seen = observed(world_and_log[0])
    with answering(first_allowed) as (url, asked):
        agent = made(world_and_log, url, batch_size=10, token_env="RANK_TOKEN").agent
        shown = np.asarray(agent.act(seen, np.random.default_rng(0)))
        check_agent(agent, seen, ITEMS)
    assert seen.candidates is not None
    assert shown.tolist() == [np.flatnonzero(row)[:4].tolist() for row in seen.candidates]
    assert [len(question["users"]) for question in asked[:3]] == [10, 10, 4]
    first, row = asked[0]["users"][0], seen.history_items[0]
    assert first["history"] == [f"i{i}" for i in row[row >= 0]]
    assert first["feedback"] == seen.history_feedback[0][row >= 0].tolist()
    assert first["excluded"] == [f"i{i}" for i in np.flatnonzero(~seen.candidates[0])]
    assert list(first["features"]) == ["age", "gender=F"]
    assert asked[0]["authorization"] == "Bearer secret"


def test_few_candidates_are_sent_as_such(world_and_log: tuple[World, InteractionLog]) -> None:
    seen = observed(world_and_log[0], 2)
    candidates = np.zeros((2, ITEMS), bool)
    candidates[:, [3, 9]] = True
    with answering(first_allowed) as (url, asked):
        shown = made(world_and_log, url).agent.act(replace(seen, candidates=candidates), np.random.default_rng(0))
    assert asked[0]["users"][0]["candidates"] == ["i3", "i9"]
    assert asked[0]["users"][0]["excluded"] == []
    assert np.asarray(shown).tolist() == [[3, 9, -1, -1]] * 2


def test_the_example_server_serves(
    world_and_log: tuple[World, InteractionLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_server, "ITEMS", [f"i{i}" for i in range(ITEMS)])
    monkeypatch.setattr(rank_server.Rank, "log_message", lambda *args: None)
    seen = observed(world_and_log[0])
    with serving(rank_server.Rank) as url:
        check_agent(made(world_and_log, url).agent, seen, ITEMS)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, b"<html>"), "the answer is no JSON: '<html>'"),
        ((200, b"[]"), "the service answered '[]'; answer {\"slates\": [[id, ...], ...]}"),
        ((200, b'{"slates": [["i1"]]}'), "1 slates for 2 users; the shape must be [2, 4]"),
        ((200, b'{"slates": [["i1", "i2", "i3", "i4", "i5"], []]}'), "slates[0] holds 5 items; the shape must be"),
        ((200, b'{"slates": [[1], []]}'), "slates[0][0] is '1', which is no item's id (ids are strings)"),
        ((200, b'{"slates": [["i1", "x"], []]}'), "slates[0][1] is 'x', which is no item's id"),
        ((404, b"no such page"), "status 404: 'no such page'"),
    ],
)
def test_nonsense_is_one_line(
    world_and_log: tuple[World, InteractionLog], answer: tuple[int, bytes], said: str
) -> None:
    seen = observed(world_and_log[0], 2)
    with answering(lambda question: answer) as (url, asked), pytest.raises(AgentError) as failed:
        made(world_and_log, url).agent.act(seen, np.random.default_rng(0))
    assert said in str(failed.value)
    assert len(str(failed.value).splitlines()) == 1
    assert len(asked) == 1  # nonsense is not asked for twice


def test_a_service_that_is_down_for_a_moment_is_asked_again_and_one_that_stays_down_is_one_line(
    world_and_log: tuple[World, InteractionLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.remote.PAUSE", 0.0)
    seen = observed(world_and_log[0], 2)
    states = iter([503, 429, 200])

    def recovering(question: dict[str, Any]) -> tuple[int, bytes]:
        status = next(states)
        return (status, b"") if status != 200 else first_allowed(question)

    with answering(recovering) as (url, asked):
        made(world_and_log, url).agent.act(seen, np.random.default_rng(0))
        assert len(asked) == 3
    with (
        answering(lambda question: (500, b"")) as (url, asked),
        pytest.raises(AgentLimitError, match="status 500, in 3"),
    ):
        made(world_and_log, url).agent.act(seen, np.random.default_rng(0))
    with pytest.raises(AgentLimitError, match=r"cannot be reached \(ConnectError\), in 1 try"):  # its server is gone
        made(world_and_log, url, retries=0).agent.act(seen, np.random.default_rng(0))


def test_a_service_that_hangs_costs_its_seconds_and_no_more(world_and_log: tuple[World, InteractionLog]) -> None:
    woken = threading.Event()

    def hanging(question: dict[str, Any]) -> tuple[int, bytes]:
        woken.wait(20)
        return 200, b"{}"

    with answering(hanging) as (url, _):
        agent = made(world_and_log, url, seconds=0.3, retries=0).agent
        began = time.monotonic()
        with pytest.raises(AgentLimitError, match=r"no answer within 0.3 s, in 1 try"):
            agent.act(observed(world_and_log[0], 2), np.random.default_rng(0))
        woken.set()
        assert time.monotonic() - began < 15


def test_a_drip_of_headers_is_no_answer_in_time(world_and_log: tuple[World, InteractionLog]) -> None:
    """Each line comes within the seconds, and for ever; no limit of a read ends that."""
    woken = threading.Event()

    class Dripping(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            try:
                while not woken.wait(0.1):
                    self.wfile.write(b"X-More: 1\r\n")
            except OSError:
                pass  # whoever asked has given up

    with serving(Dripping) as url:
        agent = made(world_and_log, url, seconds=0.3, retries=0).agent
        stop = threading.Timer(10, woken.set)
        stop.start()
        began = time.monotonic()
        with pytest.raises(AgentLimitError, match=r"no answer within 0.3 s, in 1 try"):
            agent.act(observed(world_and_log[0], 2), np.random.default_rng(0))
        woken.set()
        stop.cancel()
        assert time.monotonic() - began < 5


def test_a_token_or_an_address_that_cannot_be_sent_is_one_line(
    world_and_log: tuple[World, InteractionLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = observed(world_and_log[0], 2)
    monkeypatch.setenv("RANK_TOKEN", "caf\u00e9")
    with pytest.raises(AgentError, match="variable RANK_TOKEN holds no token; it must be printable ASCII") as failed:
        made(world_and_log, "http://127.0.0.1:1/rank", token_env="RANK_TOKEN").agent.act(seen, np.random.default_rng(0))
    assert "caf" not in str(failed.value)
    with pytest.raises(AgentError, match=r"^xn--/rank: is no address \(Malformed A-label"):
        made(world_and_log, "http://xn--/rank").agent.act(seen, np.random.default_rng(0))


def test_what_the_service_has_seen_must_be_said_and_an_address_without_host_is_refused() -> None:
    spec = resolve_kind(AgentSettings(name="one", kind="http://127.0.0.1:1/rank"), Path())
    assert not spec.fitted_here
    assert not spec.fits
    for kind, said in (
        ("http://", "names no host"),
        ("http://a:b/", "is no address"),
        ("http://me:secret@host/rank", "holds a name or password, which the report would show"),
    ):
        with pytest.raises(InputError, match=said):
            resolve_kind(AgentSettings(name="one", kind=kind), Path())


# ---------------------------------------------------------------------------------------------------- saved agents


def saved(folder: Path, world_and_log: tuple[World, InteractionLog], kind: str = "popularity") -> Any:
    entry = AgentSettings(name="old", kind=kind)
    spec = resolve_kind(entry, folder.parent)
    agent = train(spec, training_in(*world_and_log), folder.parent).agent
    save_agent(folder, agent, spec, world_and_log[1].catalogue)
    return agent


OWN = """
import numpy as np
from parts.order import Order
class Own:
    def fit(self, training):
        self.order = Order(training).items
    def act(self, observation, rng):
        return np.stack([self.order[row[self.order]][: observation.slate_size] for row in observation.candidates])
"""


ORDER = """
import numpy as np
class Order:
    def __init__(self, training):
        self.items = np.argsort(-np.bincount(training.log.item, minlength=training.catalogue.n_items), kind="stable")
"""


@pytest.mark.parametrize("kind", ["popularity", "own.py:Own"])
def test_a_saved_agent_acts_as_it_did_in_a_process_of_its_own(
    kind: str, tmp_path: Path, world_and_log: tuple[World, InteractionLog]
) -> None:
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "order.py").write_text(ORDER)
    seen = observed(world_and_log[0])
    before = np.asarray(saved(tmp_path / "kept", world_and_log, kind).act(seen, np.random.default_rng(0)))
    (tmp_path / "own.py").unlink()  # the folder is all that is needed
    (tmp_path / "parts" / "order.py").unlink()
    spec = resolve_kind(AgentSettings(name="again", kind="kept"), tmp_path)
    assert not spec.fitted_here
    agent = train(spec, training_in(*world_and_log), tmp_path).agent
    try:
        assert np.array_equal(agent.act(seen, np.random.default_rng(0)), before)
    finally:
        agent.close()  # type: ignore[attr-defined]


class Trap:
    """Runs code when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return exec, (f"import os; open({str(self.file)!r}, 'w').write(str(os.getpid()))",)


def test_a_saved_agent_is_never_opened_in_this_process(
    tmp_path: Path, world_and_log: tuple[World, InteractionLog]
) -> None:
    import hashlib

    saved(tmp_path / "kept", world_and_log)
    state = cloudpickle.dumps(Trap(tmp_path / "who"))
    (tmp_path / "kept" / STATE).write_bytes(state)
    manifest = SavedAgent.model_validate_json((tmp_path / "kept" / "agent.json").read_text())
    changed = manifest.model_copy(update={"sha256": hashlib.sha256(state).hexdigest()})
    (tmp_path / "kept" / "agent.json").write_text(changed.model_dump_json())
    agent = train(AgentSettings(name="again", kind="kept"), training_in(*world_and_log), tmp_path).agent
    with pytest.raises(AgentError):  # what came out of the trap has no act
        agent.act(observed(world_and_log[0]), np.random.default_rng(0))
    assert int((tmp_path / "who").read_text()) != os.getpid()


def test_a_folder_that_is_none_is_damaged_or_knows_other_items_is_one_line(
    tmp_path: Path, world_and_log: tuple[World, InteractionLog]
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"agents\[0\].kind: 'empty' is no folder of a saved agent"):
        resolve_kind(AgentSettings(name="x", kind="empty"), tmp_path, where="agents[0]")
    saved(tmp_path / "kept", world_and_log)
    with pytest.raises(InputError, match=r"params.alpha: a saved agent keeps its own"):
        resolve_kind(AgentSettings(name="x", kind="kept", params={"alpha": 1}), tmp_path)
    tune = TuneSettings.model_validate({"space": {"alpha": [0.1, 0.2]}})
    with pytest.raises(InputError, match=r"agents\[x\].tune: a saved agent is not trained again; leave tune out"):
        resolve_kind(AgentSettings(name="x", kind="kept", tune=tune), tmp_path)
    world, log = world_and_log
    other = replace(log, catalogue=replace(log.catalogue, item_ids=log.catalogue.item_ids[::-1]))
    with pytest.raises(AgentError, match="knows another catalogue"):
        train(AgentSettings(name="x", kind="kept"), training_in(world, other), tmp_path)
    (tmp_path / "kept" / STATE).write_bytes(b"else")
    with pytest.raises(InputError, match="is damaged"):
        resolve_kind(AgentSettings(name="x", kind="kept"), tmp_path)
