"""Off-policy estimates of many rounds, intervals and diagnostics included: seconds and memory, on one core.

python benchmarks/bench_off_policy.py [--rounds 1000000] [--actions 10] [--obp FOLDER]

With --obp, Open Bandit Pipeline estimates the same arrays beside it, with its own intervals (100 bootstrap resamples):
    pip install --no-deps --ignore-requires-python --target FOLDER obp==0.5.7 pyieoe
Both read the same memory-mapped files, each in a process of its own. Memory is the highest private memory (RssAnon)
over what the process held before it estimated, so the input files count for neither; seconds are processor seconds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from evaluators import off_policy
from simulator.streams import stream

COMMON = ("ips", "snips", "dm", "dr", "sndr")
MORE = ("ips(clip=10)", "switch_dr(lambda=5)", "dros(lambda=100)", "sgdr(lambda=0.1)", "tuned(dr, slope)")
PARTS = ("action", "reward", "pscore", "user", "pi_e", "q_hat")
CHUNK = 100_000
OBP = {
    "ips": "InverseProbabilityWeighting",
    "snips": "SelfNormalizedInverseProbabilityWeighting",
    "dm": "DirectMethod",
    "dr": "DoublyRobust",
    "sndr": "SelfNormalizedDoublyRobust",
}


def write_log(folder: Path, n: int, actions: int) -> None:
    """Policies with mild weights, five rounds a user; written a part at a time."""

    def column(name: str, dtype: type, *shape: int) -> np.ndarray:
        return np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=dtype, shape=(n, *shape))

    out = {
        "action": column("action", np.int64),
        "reward": column("reward", np.float64),
        "pscore": column("pscore", np.float64),
        "user": column("user", np.int64),
        "pi_e": column("pi_e", np.float64, actions),
        "q_hat": column("q_hat", np.float64, actions),
    }
    for start in range(0, n, CHUNK):
        part = slice(start, min(start + CHUNK, n))
        size = part.stop - start
        rng = stream(np.random.SeedSequence(1), "bench", start)
        pi_b, pi_e = (rng.gamma(8.0, size=(size, actions)) for _ in range(2))
        pi_b /= pi_b.sum(axis=1, keepdims=True)
        q_hat = rng.random((size, actions))
        taken = np.arange(size), (pi_b.cumsum(axis=1) > rng.random((size, 1))).argmax(axis=1)
        out["action"][part], out["pscore"][part] = taken[1], pi_b[taken]
        out["reward"][part] = rng.random(size) < q_hat[taken]
        out["user"][part] = np.arange(start, part.stop) // 5
        out["pi_e"][part], out["q_hat"][part] = pi_e / pi_e.sum(axis=1, keepdims=True), q_hat


def private_memory() -> int:
    """Bytes of this process that no file backs (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    return 0


@contextmanager
def highest_memory() -> Iterator[list[int]]:
    """A list whose one entry is, at the end, the highest private memory over that at the start."""
    before, found, over = private_memory(), [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.005):
            found[0] = max(found[0], private_memory() - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def measured(work: Callable[[], dict[str, float]]) -> dict[str, object]:
    """What the work found, its processor seconds and its memory."""
    with highest_memory() as memory:
        start = time.process_time()
        values = work()
        seconds = time.process_time() - start
    return {"values": values, "seconds": seconds, "bytes": memory[0]}


def ours(folder: Path, names: tuple[str, ...]) -> dict[str, object]:
    """Record, estimates, intervals and diagnostics."""
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in PARTS}

    def work() -> dict[str, float]:
        rounds = off_policy.Rounds(arrays["action"], arrays["reward"], arrays["pscore"], user=arrays["user"])
        found = off_policy.estimate(rounds, arrays["pi_e"], estimators=names, q_hat=arrays["q_hat"])
        return {name: float("nan") if e.value is None else e.value for name, e in found.items()}

    return measured(work)


def theirs(folder: Path, names: tuple[str, ...]) -> dict[str, object]:
    """Open Bandit Pipeline's estimates and intervals."""
    import sklearn.preprocessing

    plain = sklearn.preprocessing.OneHotEncoder

    def encoder(*args: object, sparse: bool = True, **options: object) -> object:
        return plain(*args, sparse_output=sparse, **options)

    sklearn.preprocessing.OneHotEncoder = encoder  # type: ignore[misc]  # the peer uses a keyword that is gone
    import obp.ope as peer

    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in PARTS}
    n = len(arrays["action"])
    feedback = {
        "n_rounds": n,
        "n_actions": arrays["pi_e"].shape[1],
        "action": arrays["action"],
        "reward": arrays["reward"],
        "pscore": arrays["pscore"],
        "context": np.zeros((n, 1)),
        "position": np.zeros(n, dtype=np.int64),
    }

    def work() -> dict[str, float]:
        estimators = [getattr(peer, OBP[name])(estimator_name=name) for name in names]
        evaluation = peer.OffPolicyEvaluation(bandit_feedback=feedback, ope_estimators=estimators)
        policy, model = arrays["pi_e"][:, :, None], arrays["q_hat"][:, :, None]
        values = evaluation.estimate_policy_values(action_dist=policy, estimated_rewards_by_reg_model=model)
        evaluation.estimate_intervals(
            action_dist=policy, estimated_rewards_by_reg_model=model, n_bootstrap_samples=100, random_state=1
        )
        return {name: float(value) for name, value in values.items()}

    return measured(work)


def in_a_process(who: str, folder: Path, names: tuple[str, ...], obp: Path | None) -> dict[str, object]:
    """Run one side alone, so that nothing of the other is held or loaded."""
    project = Path(__file__).resolve().parents[1]
    path = ":".join(str(part) for part in (project, project / "benchmarks", *([obp] if obp else [])))
    code = (
        "import json, sys, warnings; from pathlib import Path; import bench_off_policy; "
        "warnings.simplefilter('ignore'); "
        f"print(json.dumps(bench_off_policy.{who}(Path(sys.argv[1]), tuple(sys.argv[2:]))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), *names], capture_output=True, text=True, check=False,
        env={"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{who}: {done.stderr.strip().splitlines()[-1]}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1_000_000)
    parser.add_argument("--actions", type=int, default=10)
    parser.add_argument("--obp", type=Path, help="folder that holds Open Bandit Pipeline; left out where it is missing")
    options = parser.parse_args()
    n = options.rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_log(folder, n, options.actions)
        held = sum((folder / f"{part}.npy").stat().st_size for part in PARTS)
        print(f"{n:,} rounds, {options.actions} actions, {-(-n // 5):,} users, {held / 1e9:.2f} GB of input")
        lines = [("ips, snips, dm, dr, sndr", COMMON)]
        if options.obp is None:
            alone = [(one, (one,)) for one in (*COMMON, *MORE)]
            lines = [*alone, ("all of these in one call", (*COMMON, *MORE)), *lines]
        for label, names in lines:
            mine = in_a_process("ours", folder, names, None)
            print(_line(label, mine, n))
        if options.obp is None or not (options.obp / "obp").is_dir():
            print("Open Bandit Pipeline: not measured; see --help")
            return
        peer = in_a_process("theirs", folder, COMMON, options.obp)
        print(_line("the same by its peer", peer, n))
        gap = max(abs(mine["values"][k] - peer["values"][k]) for k in COMMON)  # type: ignore[index]
        print(
            f"{peer['seconds'] / mine['seconds']:.1f} times faster, "  # type: ignore[operator]
            f"{mine['bytes'] / peer['bytes']:.3f} of its memory, "  # type: ignore[operator]
            f"values apart by at most {gap:.1e}"
        )


def _line(label: str, found: dict[str, object], n: int) -> str:
    seconds, size = float(found["seconds"]), float(found["bytes"])  # type: ignore[arg-type]
    return f"{label:26} {seconds:7.2f} s {n / seconds / 1e6:7.2f} M rounds/s {size / 1e6:9.0f} MB over the input"


if __name__ == "__main__":
    main()
