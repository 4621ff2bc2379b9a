"""Amazon Shopping Queries (Reddy et al., 2022), 150 queries of the US: graded judgements of 6,764 products."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np

from simulator.datasets.parts import Dataset, Judgements

LIMITS = (
    "queries were picked by hand from one range of the alphabet, in lower case",
    "judged products only, 44.5 a query: the rest of the catalogue is unjudged, not irrelevant",
    "no users and no clicks: how far a searcher looks is assumed",
)
GRADES = {100: 3, 10: 2, 1: 1, 0: 0}
"""Published weight -> grade."""
GRADE_NAMES = {3: "exact", 2: "substitute", 1: "complement", 0: "irrelevant"}


def read_esci_sample(folder: Path) -> Dataset:
    """Queries, products with title, description, bullet points, brand, colour and category, and the grades."""
    products = [json.loads(line) for line in _text(folder / "ubi_ecommerce_products.json.gz").splitlines()]
    judged = json.loads(_text(folder / "esci_us_judgments.json.gz"))["judgmentRatings"]
    ids = tuple(product["asin"] for product in products)
    place = {asin: at for at, asin in enumerate(ids)}
    rows = np.array(
        [
            (query, place[one["docId"]], GRADES[round(float(one["rating"]))])
            for query, block in enumerate(judged)
            for one in block["ratings"]
        ],
        np.int64,
    )
    names = ("title", "description", "bullet_points", "brand", "color", "category")
    return Dataset(
        "esci-sample",
        limits=LIMITS,
        judgements=Judgements(
            query_text=tuple(block["query"] for block in judged),
            document_ids=ids,
            documents={name: tuple(_words(product[name]) for product in products) for name in names},
            query=rows[:, 0],
            document=rows[:, 1],
            grade=rows[:, 2],
            grade_names=GRADE_NAMES,
        ),
    )


def _text(path: Path) -> str:
    return gzip.decompress(path.read_bytes()).decode("utf-8")


def _words(value: Any) -> str:
    """Text of a field: a list (the category's path) joined, nothing where it is null."""
    if isinstance(value, list):
        return " > ".join(value)
    return value or ""
