"""Cranfield 1400 (Cleverdon, 1967): 1,400 abstracts on aerodynamics, 225 queries and their graded judgements."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from simulator.datasets.parts import Dataset, Judgements

LIMITS = (
    "the document that prompted a query (code -1, one a query) has no grade and is left out: 1,612 of 1,837 remain",
    "only relevant documents are judged: what is not judged counts as irrelevant",
    "documents 471 and 995 are empty",
    "no users and no clicks: how far a searcher looks is assumed",
)
GRADES = {1: 4, 2: 3, 3: 2, 4: 1}
"""Published code, 1 the best, -> grade, 4 the best."""
GRADE_NAMES = {4: "complete answer", 3: "high relevance", 2: "useful background", 1: "minimum interest"}
PROMPTED = -1


def read_cranfield(folder: Path) -> Dataset:
    """Abstracts, queries in the order of their appearance, and grades.

    The judgements number the queries 1 to 225 in that order, not by the number that stands at the query (which
    goes up to 365).
    """
    documents = _records(folder / "cran.all.1400")
    queries = _records(folder / "cran.qry")
    judged = np.loadtxt(folder / "cranqrel", dtype=np.int64)
    judged = judged[judged[:, 2] != PROMPTED]
    ids = tuple(number for number, _ in documents)
    return Dataset(
        "cranfield",
        limits=LIMITS,
        judgements=Judgements(
            query_text=tuple(fields["W"] for _, fields in queries),
            document_ids=ids,
            documents={
                "title": tuple(fields["T"] for _, fields in documents),
                "author": tuple(fields["A"] for _, fields in documents),
                "text": tuple(fields["W"] for _, fields in documents),
            },
            query=judged[:, 0] - 1,
            document=judged[:, 1] - 1,
            grade=np.array([GRADES[int(code)] for code in judged[:, 2]], np.int64),
            grade_names=GRADE_NAMES,
        ),
    )


def _records(path: Path) -> list[tuple[str, dict[str, str]]]:
    """Number and fields of each record; a field that occurs twice (three documents) is joined."""
    found = []
    for record in re.split(r"^\.I ", path.read_text(encoding="latin-1"), flags=re.MULTILINE)[1:]:
        number, *parts = re.split(r"^\.([TABW])\s*\n", record, flags=re.MULTILINE)
        fields = dict.fromkeys("TABW", "")
        for name, text in zip(parts[::2], parts[1::2], strict=True):
            fields[name] = " ".join((fields[name] + " " + text).split())
        found.append((number.strip(), fields))
    return found
