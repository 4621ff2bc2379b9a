"""Restaurant & consumer data (Medellin et al., 2012): 138 people in Mexico, 130 restaurants, and 19 profile columns."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

from simulator.datasets.build import SELF_SELECTED, Tables
from simulator.datasets.parts import Dataset
from simulator.datasets.tables import table_of

LIMITS = (
    "1,161 ratings of 138 people: small; intervals will be wide and most group differences undecided",
    "no times, positions or propensities: order, examination, drift and leaving are not identified",
    "people chose where they ate",
)
ARCHIVE = "restaurant-data-with-consumer-ratings.zip"
_PLACE = ("name", "city", "alcohol", "smoking_area", "dress_code", "accessibility", "price", "Rambience", "area")


def read_restaurant_consumer(folder: Path) -> Dataset:
    """Ratings as the log (overall, food, service: 0 to 2), restaurants with their cuisines, people with their profile.

    The files write "?" for what is missing; it is empty here. Cuisine, payment and parking files list hundreds of
    restaurants that nobody rated; only the 130 rated ones are kept.
    """
    import pandas as pd

    with zipfile.ZipFile(folder / ARCHIVE) as archive:

        def read(name: str) -> Any:
            content = io.BytesIO(archive.read(f"{name}.csv"))
            return pd.read_csv(content, dtype=str, keep_default_na=False).replace("?", "")

        ratings, places, people = read("rating_final"), read("geoplaces2"), read("userprofile")
        cuisines, parking = read("chefmozcuisine"), read("chefmozparking")
    path = folder / ARCHIVE
    return Dataset(
        "restaurant-consumer",
        limits=LIMITS,
        tables=Tables(
            log=table_of(
                path,
                user_id=ratings["userID"],
                item_id=ratings["placeID"],
                **{name: ratings[name].astype(int) for name in ("rating", "food_rating", "service_rating")},
            ),
            items=table_of(
                path,
                item_id=places["placeID"],
                cuisine=_joined(cuisines, places["placeID"]),
                parking=_joined(parking, places["placeID"]),
                **{name: places[name] for name in _PLACE},
            ),
            users=table_of(
                path, user_id=people["userID"], **{name: people[name] for name in people.columns if name != "userID"}
            ),
            exposure=SELF_SELECTED,
        ),
    )


def _joined(pairs: Any, places: Any) -> Any:
    """All values of each place, separated by spaces; "" where it has none."""
    key, value = pairs.columns
    return places.map(pairs.groupby(key)[value].agg(" ".join)).fillna("")
