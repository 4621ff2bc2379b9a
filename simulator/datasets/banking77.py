"""Banking77 (Casanueva et al., 2020): 13,083 customer-service queries in 77 intents, CC BY 4.0."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from simulator.datasets.parts import Dataset, LabelledTexts


def read_banking77(folder: Path) -> Dataset:
    """Utterances of the published train and test part; ten train queries hold line breaks, so quoting matters."""
    import pandas as pd

    classes = tuple(json.loads((folder / "categories.json").read_text(encoding="utf-8")))
    number = {name: at for at, name in enumerate(classes)}
    texts = {}
    for split in ("train", "test"):
        frame = pd.read_csv(folder / f"{split}.csv", dtype=str, keep_default_na=False)
        texts[split] = LabelledTexts(
            tuple(frame["text"]), np.array([number[name] for name in frame["category"]], np.int64), classes
        )
    return Dataset("banking77", limits=("no users and no answers: what a customer does next is assumed",), texts=texts)
