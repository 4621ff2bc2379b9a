"""Hillstrom's e-mail challenge (MineThatData, 2008): 64,000 customers, two e-mails and none, given at random."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from simulator.datasets.parts import Dataset, Treatments

ARMS = ("No E-Mail", "Mens E-Mail", "Womens E-Mail")
OUTCOMES = ("visit", "conversion", "spend")


def read_hillstrom(folder: Path) -> Dataset:
    """The experiment: each customer got one of three arms with probability 1/3; the control comes first."""
    import pandas as pd

    rows = pd.read_csv(folder / "hillstrom.csv.gz")
    before = [name for name in rows.columns if name not in ("segment", *OUTCOMES)]
    return Dataset(
        "hillstrom",
        limits=("one e-mail each, two weeks of outcomes: nothing about repeated mail or about items",),
        treatments=Treatments(
            arm=pd.Index(ARMS).get_indexer(rows["segment"]).astype(np.int64),
            arms=ARMS,
            propensity=np.full(len(rows), 1 / len(ARMS)),
            covariates={name: rows[name].to_numpy() for name in before},
            outcomes={name: rows[name].to_numpy(np.float64) for name in OUTCOMES},
        ),
    )
