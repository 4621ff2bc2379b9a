"""Every kind of agent on one log: a scenario's own log, worlds and users, with its agents replaced by one of each kind.

    python benchmarks/bench_every_agent.py scenarios/movielens.yaml --out runs

Kinds run with their defaults. A kind that the log cannot serve (no text, no times, no exposure) has a row that says
why. Prints a table for docs/agents.md: the first metric, its paired difference to the first baseline with 95 %
intervals (users crossed with training seeds and worlds), and processor seconds of one training.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from agents.kinds import KINDS, SERVICE, family_of
from evaluators.report import EstimateModel, Report
from pipeline import run
from scenarios.checking import check_scenario
from scenarios.loading import read_raw
from simulator.yaml_text import write_yaml

NO_ROW = {
    "language_model": "needs a model's folder or an endpoint",
    "rules": "an agent under rules of the user's own",
    SERVICE: "a service of the user's own",
    "recbole:MODEL": "written with a model, see BESIDE",
    "rerank:AGENT": "written with an agent, see BESIDE",
    "fine_tuned": "a reference of the adaptation section",
    "from_scratch": "a reference of the adaptation section",
}
"""Kinds that need something of the user's own, or are only flown beside others."""

BESIDE = (
    *(f"recbole:{model}" for model in ("Pop", "ItemKNN", "EASE", "BPR", "LightGCN", "NeuMF", "MultiVAE", "DeepFM")),
    *(f"recbole:{model}" for model in ("SASRec", "GRU4Rec", "BERT4Rec")),
    "rerank:linucb",
)
"""Kinds that are written with a model or an agent behind the prefix."""

PARAMS: dict[str, dict[str, Any]] = {
    "mixture": {"agents": [{"kind": "popularity"}, {"kind": "linucb"}]},
    "mmr": {"agent": "linucb"},
    "dpp": {"agent": "linucb"},
    "rerank:linucb": {"constraint": "exposure_parity"},
}
"""What an agent that is made of others is made of, where the default is not the strongest."""


def entries(seeds: int, without: list[str]) -> list[dict[str, Any]]:
    """One agent of each kind, as a scenario's `agents` lists them."""
    return [
        {"name": kind.replace(":", " "), "kind": kind, "params": PARAMS.get(kind, {}), "train": {"seeds": seeds}}
        for kind in (*KINDS, *BESIDE)
        if kind not in NO_ROW and kind not in without
    ]


def with_interval(estimate: EstimateModel) -> str:
    if estimate.value is None:
        return "withheld"
    return f"{estimate.value:+.2f} [{estimate.low:+.2f}, {estimate.high:+.2f}]"


def table(report: Report, refused: dict[str, str]) -> str:
    """The report's agents, best first, as markdown."""
    metric, baseline = report.comparisons[0].metric, report.comparisons[0].baseline
    over = {(c.agent, c.baseline): c.difference for c in report.comparisons if c.metric == metric}
    lines = [
        f"| agent | family | {metric} | over `{baseline}` | over `random` | cpu s a training |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    flown = [agent for agent in report.agents if not agent.failed]
    for agent in sorted(flown, key=lambda one: -(one.simulated[metric].value or 0.0)):
        cells = [with_interval(over[agent.name, o]) if (agent.name, o) in over else "" for o in (baseline, "random")]
        value = f"{agent.simulated[metric].value:.2f}"
        taken = [
            seconds
            for task, seconds in report.seconds.items()
            if task.startswith(f"train/{agent.name}, seed ") and task.endswith("(cpu)")
        ]
        cells.append(f"{sum(taken) / len(taken):.1f}" if taken else "")
        lines.append(f"| `{agent.kind}` | {family_of(agent.kind)} | {value} | {' | '.join(cells)} |")
    refused = refused | {agent.kind: agent.failed for agent in report.agents if agent.failed}
    lines += [f"| `{kind}` | {family_of(kind)} | none: {why} | | | |" for kind, why in refused.items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", type=Path, help="the scenario whose log, worlds and users are taken")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each agent that draws")
    parser.add_argument("--worlds", type=int, default=3, help="judge worlds")
    parser.add_argument("--without", nargs="*", default=[], help="kinds that are left out")
    parser.add_argument("--only", nargs="*", help="kinds that are flown beside random and the baseline")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder of runs")
    chosen = parser.parse_args()

    raw = read_raw(chosen.scenario)
    raw["name"] = f"{raw['name']}-every-agent"
    raw.pop("gates", None)
    evaluate = raw.setdefault("evaluate", {})
    evaluate.update({"worlds": chosen.worlds, "baseline": "popularity", "adaptation": {"agents": []}})
    evaluate.pop("fairness", None)
    agents = entries(chosen.seeds, chosen.without)
    if chosen.only is not None:
        agents = [agent for agent in agents if agent["kind"] in {"random", "popularity", *chosen.only}]
    refused: dict[str, str] = {}
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", dir=chosen.scenario.parent, encoding="utf-8") as written:

        def write(listed: list[dict[str, Any]]) -> Path:
            written.seek(0)
            written.truncate()
            written.write(write_yaml({**raw, "agents": listed}))
            written.flush()
            return Path(written.name)

        kept = [agent for agent in agents if agent["kind"] in {"random", "popularity"}]
        for agent in agents:
            if agent in kept:
                continue
            mistakes = check_scenario(write([kept[0], kept[1], agent]))
            if mistakes:
                refused[agent["kind"]] = mistakes[0].rpartition(": ")[2]
            else:
                kept.append(agent)
        began = time.monotonic()
        report = run(write(kept), out=chosen.out)
    print(table(report, refused))
    print(f"\n{len(kept)} agents in {time.monotonic() - began:.0f} s; {report.data.source}, seed {report.seed}")


if __name__ == "__main__":
    main()
