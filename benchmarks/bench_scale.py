"""How far a log may grow: rows a second and peak memory of every stage, for generated logs of 10^6 rows and more.

Rows stand in order of time, users mixed, as a production log has them; items are skewed by popularity; clicks follow
hidden factors. For each size the log is written in chunks by one process and used by another: read and checked, split
by user, histories laid out, matrix factorisation fitted, the world built, and 1,000 steps of 1,024 users taken in it.
The memory beside a stage is the process's peak up to its end. Rates are by processor time, so that a busy machine does
not lower them; what numba compiles at the first run on a machine is in them. Last, the kernel alone in a catalogue of a
million items.

Run: python benchmarks/bench_scale.py [--rows N ...] [--items N] [--text 384] [--kind url] [--suffix csv]
         [--stages read ... world] [--folder DIR]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CHUNK = 2_000_000
ROWS_A_USER, ROWS_AN_ITEM, FACTORS = 200, 100, 16
STAGES = ("read", "split", "histories", "fit", "world", "steps")


def generate(path: Path, rows: int, items: int, more: str = "plain", seed: int = 0) -> None:
    """Write a log of so many rows, chunk by chunk: plain, with a `url` that nobody reads, or with slates and dwell."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    users = max(1_000, rows // ROWS_A_USER)
    rng = np.random.default_rng(seed)
    taste = rng.standard_normal((users, 8)).astype(np.float32) / 2
    kind = rng.standard_normal((items, 8)).astype(np.float32) / 2
    liked = rng.standard_normal(items).astype(np.float32) / 2 - 0.5
    schema = pa.schema([("user", pa.int32()), ("item", pa.int32()), ("time", pa.int64()), ("click", pa.int8())])
    if more == "url":
        schema = schema.append(pa.field("url", pa.string()))
    if more == "slates":
        for name, form in (("position", pa.int8()), ("impression", pa.int64()), ("dwell", pa.float64())):
            schema = schema.append(pa.field(name, form))
    with pq.ParquetWriter(path, schema) as file:
        for first in range(0, rows, CHUNK):
            n = min(CHUNK, rows - first)
            user = rng.integers(0, users, n)
            if more == "slates":
                user = np.repeat(user, 10)[:n]
            item = (items * rng.random(n) ** 3).astype(
                np.int64
            )  # the first tenth of the items has almost half the rows
            logit = np.einsum("kd,kd->k", taste[user], kind[item]) + liked[item]
            click = rng.random(n) * (1 + np.exp(-logit)) < 1
            stamp = 1_600_000_000 + (first + np.arange(n)) // 16
            columns: list[Any] = [user, item, stamp, click.astype(np.int8)]
            if more == "url":
                start, visit = pa.scalar("https://shop.example/items/"), pa.scalar("?from=home&visit=")
                end = pa.array(rng.integers(10**17, 10**18, n)).cast(pa.string())
                columns.append(pc.binary_join_element_wise(start, pa.array(item).cast(pa.string()), visit, end, ""))
            if more == "slates":
                columns += [np.arange(n) % 10, (first + np.arange(n)) // 10, rng.exponential(30, n)]
            file.write_table(pa.table(columns, schema=schema))


def as_csv(path: Path) -> Path:
    """The same log as text."""
    import pyarrow.csv
    import pyarrow.parquet as pq

    out = path.with_suffix(".csv")
    with pq.ParquetFile(path) as file, pyarrow.csv.CSVWriter(out, file.schema_arrow) as writer:
        for batch in file.iter_batches():
            writer.write_batch(batch)
    return out


def peak() -> float:
    """Gigabytes that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def use(path: Path, stages: tuple[str, ...], text: int, kind: str = "plain") -> list[dict[str, Any]]:
    """Take a log through the stages; seconds, processor seconds and peak memory of each.

    Where `text` is not 0, the two-tower model is fitted (one member, two passes) on as many dimensions of frozen text
    vectors, drawn at random: encoding texts takes as long as there are texts and is left out.
    """
    from simulator.behaviour import SimulatorSettings
    from simulator.datasets import ColumnMap, DataSettings, load_dataset
    from simulator.log import WORLD_A, split_users
    from simulator.preference.fitting import TextTower, fit_preference
    from simulator.preference.settings import PreferenceSettings
    from simulator.users import SimulatedUsers
    from simulator.world import World

    found: list[dict[str, Any]] = []

    def stage(name: str, job: Callable[[], Any]) -> Any:
        began, used = time.perf_counter(), time.process_time()
        out = job()
        taken = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - used}
        found.append({"stage": name, **taken, "peak_gb": peak()})
        print(f"{name}: {taken['cpu_seconds']:.1f} processor s, peak {peak():.1f} GB", file=sys.stderr, flush=True)
        return out

    root = np.random.SeedSequence(0)
    settings = DataSettings(source=path.name, positive="click == 1")
    if kind == "slates":
        columns = ColumnMap(position="position", impression="impression")
        settings = settings.model_copy(update={"columns": columns, "behaviours": ["dwell"]})
    log = stage("read", lambda: load_dataset(settings, path.parent))
    if "split" not in stages:
        return found
    split = stage("split", lambda: split_users(log, root))
    users = split.users(WORLD_A, tuning=False)
    stage("histories", lambda: split.histories(log, users).last(50))
    if "fit" not in stages:
        return found
    vectors = np.random.default_rng(1).standard_normal((log.catalogue.n_items, text), np.float32)
    tower = TextTower(vectors / np.float32(max(text, 1)) ** 0.5, "pretrained" if text else "ids only")
    fitted = PreferenceSettings(architecture="matrix_factorisation", factors=FACTORS)
    if text:
        fitted = PreferenceSettings(adaptation="frozen", members=1, epochs=2, batch_users=256)
    model = stage("fit", lambda: fit_preference(log, split, WORLD_A, tower, fitted, root))
    found[-1]["log_loss_on_tuning_users"] = float(model.measures["tuning_log_loss"])
    world = stage("world", lambda: World.build(model, log, split, users, SimulatorSettings(), name="scale"))

    lanes = 1_024
    simulated = SimulatedUsers(world, lanes, seed=1)
    simulated.start(np.arange(lanes) % len(world.starts))
    slates = np.random.default_rng(0).integers(0, world.n_items, (20, lanes, world.slate_size))
    episode, observation, last = np.zeros(lanes, np.int64), simulated.new_observation(lanes), simulated.new_last(lanes)

    def fly(steps: int) -> None:
        for turn in range(steps):
            simulated.advance(slates[turn % 20], episode, observation, last)

    fly(1)  # compiles
    stage("steps", lambda: fly(1_000))
    found[-1]["user_steps"] = 1_024_000
    return found


def bench_large_catalogue(items: int = 1_000_000, seconds: float = 4.0) -> list[dict[str, float]]:
    """User-steps a processor second of the kernel alone, 64 dimensions, in a large catalogue; bytes a user holds."""
    from bench_kernel import STARTS, slates, synthetic_world

    from simulator import kernel
    from simulator.users import SimulatedUsers

    rng = np.random.default_rng(0)
    world = synthetic_world(items, rng).with_parameter("leave", "base_rate", 1e-9)
    rows = []
    for users in (64, 1_024, 16_384):
        simulated = SimulatedUsers(world, users, seed=1)
        shown = slates(rng, 20, users, items)
        spent: list[float] = []
        kernel.step_users(shown[0], *simulated._step_arguments)  # compiles
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            simulated.start(np.arange(users) % STARTS)
            began = time.thread_time()
            for turn in range(20):
                kernel.step_users(shown[turn], *simulated._step_arguments)
            spent.append(time.thread_time() - began)
        rate = 20 * users / float(np.quantile(spent, 0.2))
        rows.append({"users": users, "rate": rate, "bytes_a_user": simulated.bytes_a_lane})
    return rows


def in_child(function: Callable[..., Any], *arguments: Any) -> Any:
    """Result of a call in a process of its own, whose memory starts from nothing."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", default=[1_000_000, 10_000_000], help="sizes of the logs")
    parser.add_argument("--items", type=int, help="items of each log; one for every hundred rows where left out")
    parser.add_argument("--text", type=int, default=0, help="dimensions of frozen text vectors; 0: no text")
    parser.add_argument("--stages", nargs="*", default=STAGES, choices=STAGES, help="stop before the first left out")
    parser.add_argument("--kind", default="plain", choices=("plain", "url", "slates"), help="further columns")
    parser.add_argument("--suffix", default="parquet", choices=("parquet", "csv"), help="kind of file")
    parser.add_argument("--folder", type=Path, help="where the logs are written; a temporary one where left out")
    parser.add_argument("--json", action="store_true", help="print one JSON document only")
    asked = parser.parse_args()
    found: dict[str, Any] = {}
    for rows in asked.rows:
        with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
            path = Path(folder) / "log.parquet"
            in_child(generate, path, rows, asked.items or max(1_000, rows // ROWS_AN_ITEM), asked.kind)
            if asked.suffix == "csv":
                path = in_child(as_csv, path)
            found[str(rows)] = stages = in_child(use, path, tuple(asked.stages), asked.text, asked.kind)
        if not asked.json:
            print(f"{rows:,} rows")
            for row in stages:
                of = row.get("user_steps", rows)
                print(
                    f"  {row['stage']:10s} {row['seconds']:8.1f} s  {row['cpu_seconds']:8.1f} processor s  "
                    f"{of / row['cpu_seconds'] / 1e6:7.2f} million a processor second  peak {row['peak_gb']:5.1f} GB",
                    flush=True,
                )
    if "steps" in asked.stages:
        found["large_catalogue"] = in_child(bench_large_catalogue)
    if asked.json:
        print(json.dumps(found, indent=1))
        return
    for row in found.get("large_catalogue", ()):
        print(
            f"1,000,000 items, {row['users']:,} users: {row['rate'] / 1e6:.2f} million user-steps a processor second, "
            f"{row['bytes_a_user']:,} bytes a user"
        )


if __name__ == "__main__":
    main()
