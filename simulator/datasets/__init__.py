"""Interaction logs: built-in datasets, folders of RecBole atomic files, and the user's own csv or parquet."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path

from simulator.datasets.parts import Dataset
from simulator.datasets.published import DATASETS, log_of_policy
from simulator.datasets.settings import ColumnMap, DataSettings
from simulator.datasets.sources import FILE_ENDINGS, DatasetState, check_dataset, dataset, locate_dataset
from simulator.errors import LogError, did_you_mean
from simulator.known_worlds import WORLD_PREFIX, known_tables
from simulator.log import InteractionLog

__all__ = [
    "DATASETS",
    "ColumnMap",
    "DataSettings",
    "Dataset",
    "DatasetState",
    "check_dataset",
    "load_dataset",
    "locate_dataset",
    "log_of_policy",
    "read_dataset",
]


def read_dataset(name: str) -> Dataset:
    """All parts of a dataset known by name, as published: log, texts, judgements, rounds, whatever it has.

    Raises:
        LogError: there is none of that name, it is not there, or a file is missing or changed.
    """
    module, _, function = dataset(name).reader.partition(":")
    found: Dataset = getattr(import_module(module), function)(locate_dataset(name))
    return found


def load_dataset(settings: DataSettings, folder: Path, *, seed: int = 0) -> InteractionLog:
    """Read and check the log that the settings name.

    Args:
        settings: the `data:` key of a scenario.
        folder: where relative paths start: the scenario's folder.
        seed: the scenario's seed; it draws the users of `max_users` and nothing else.

    Raises:
        LogError: the log is not there or cannot be used as it is; one line says what to mend.
    """
    from simulator.datasets.atomic import read_atomic  # pyarrow is slow to import: only when a log is read
    from simulator.datasets.build import Tables, build_log, columns_asked_for
    from simulator.datasets.pairs import pairs_of
    from simulator.datasets.tables import read_table

    source, wanted = settings.source, columns_asked_for(settings)
    limits: tuple[str, ...] = ()
    friends = None
    if source in DATASETS:
        if DATASETS[source].instead:
            raise LogError(f"data.source: {DATASETS[source].refusal(source)}")
        found = read_dataset(source)
        tables, limits, friends = found.tables, found.limits, found.friends
        assert tables is not None  # a row without `instead` has a log
        tables = replace(tables, media=found.media, item_features=found.item_features)
    elif (named := log_of_policy(source)) is not None and not (folder / source).exists():
        found = read_dataset(named[0])
        tables, limits = found.logs[named[1]], found.limits
    elif source.startswith(WORLD_PREFIX):
        tables = known_tables(source.removeprefix(WORLD_PREFIX))
    else:
        path = folder / Path(source).expanduser()
        if path.is_dir():
            tables = read_atomic(path, wanted=wanted)
        elif source.lower().endswith(FILE_ENDINGS):
            tables = Tables(read_table(path, "data.source", wanted=wanted))
        elif path.exists():
            raise LogError(f"data.source: '{source}' is no kind of log known here; give {_KINDS_OF_LOG}")
        else:
            hint = did_you_mean(source, DATASETS) or f"; give {_KINDS_OF_LOG}"
            raise LogError(f"data.source: '{source}' is neither a known dataset nor a file or folder{hint}")
    tables = replace(
        tables,
        items=tables.items if settings.items is None else read_table(folder / settings.items, "data.items"),
        users=tables.users if settings.users is None else read_table(folder / settings.users, "data.users"),
        random=(
            tables.random
            if settings.random is None
            else read_table(folder / settings.random, "data.random", wanted=wanted)
        ),
        queries=None if settings.queries is None else read_table(folder / settings.queries, "data.queries"),
    )
    log = replace(build_log(tables, settings, seed=seed, folder=folder), limits=limits)
    return log if friends is None else replace(log, friends=pairs_of(friends, log.catalogue))


_KINDS_OF_LOG = "a name of `windtunnel list datasets`, a folder with an .inter file, or a .csv, .tsv or .parquet file"
