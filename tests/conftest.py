"""Fixtures that every test may use: no network, a cache of its own, one thread, named randomness."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")  # a busy one, or the first call of a compiled kernel, is no fault of an example

os.environ.update({"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"})
os.environ.setdefault("WINDTUNNEL_DATA", str(Path(__file__).resolve().parents[2] / "shared" / "data"))

SLOW_FIXTURES = ("flown", "fitted", "saved")
"""Names of fixtures that take seconds, for their whole module or for all tests."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of one kind of agent, or of one slow fixture of a module, go to one worker, so that it is made once."""
    for item in items:
        if not isinstance(item, pytest.Function):
            continue
        shared = next((name for name in SLOW_FIXTURES if name in item.fixturenames), None)
        if shared is not None:
            item.add_marker(pytest.mark.xdist_group(f"{item.module.__name__}, {shared}"))
        elif hasattr(item, "callspec") and "trained" in item.fixturenames:
            item.add_marker(pytest.mark.xdist_group(str(item.callspec.params.get("kind", "trained"))))


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing is read from or left in the user's own cache."""
    before = os.environ.get("WINDTUNNEL_CACHE")
    os.environ["WINDTUNNEL_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["WINDTUNNEL_CACHE"]
    else:
        os.environ["WINDTUNNEL_CACHE"] = before


@pytest.fixture(autouse=True, scope="session")
def _compiled_once(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Of many tests each worker compiles one half of the simulator into numba's cache and waits for the other half.

    Where the cache is cold (a fresh clone) all workers would compile all of it at the same time.
    """
    worker = getattr(request.config, "workerinput", {"workercount": 1})
    if worker["workercount"] < 2 or len(request.session.items) < 300:
        return
    number, folder = int(worker["workerid"].removeprefix("gw")), tmp_path_factory.getbasetemp().parent
    if number > 1:
        return
    try:
        _step_users(boredom=float(number))
    finally:
        (folder / f"compiled-{number}").touch()
    end = time.monotonic() + 120
    while not (folder / f"compiled-{1 - number}").exists() and time.monotonic() < end:
        time.sleep(0.1)


def _step_users(boredom: float) -> None:
    """Call what tests need of the kernel: for users without further parts (boredom 0), or with them."""
    from simulator.env import WindtunnelVectorEnv
    from simulator.users import SimulatedUsers
    from tests.simulator.small_world import small_world

    world = small_world(1, users=12, items=70, boredom={"depth": boredom})
    users = SimulatedUsers(world, 8, seed=1)
    users.start(np.arange(8))
    slate = np.zeros((8, world.slate_size), np.int64)
    users.step(slate)
    env = WindtunnelVectorEnv(world, 8)
    env.reset(seed=1)
    env.step(slate)
    if boredom:
        users.observe().candidates()
        users.appeal()


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only this machine may be reached: a test that downloads is a test that fails elsewhere."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "localhost", "::1"):
            raise OSError(f"tests may not reach the network: {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with a fixed seed."""
    return np.random.default_rng(20261125)


@pytest.fixture
def root() -> np.random.SeedSequence:
    """The root of the named streams of a test."""
    return np.random.SeedSequence(7)
