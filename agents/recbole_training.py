"""RecBole's own models, trained by RecBole on liked rows and contained while they are.

The one module that imports RecBole. Its traps are met here: names that NumPy 2 and SciPy dropped, its reading of the
command line and writing into the current folder, and the global state (random generators, threads, environment) that
it leaves changed.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import logging
import os
import random  # noqa: TID251  only to restore the state that RecBole's seeding changes
import re
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from scipy.sparse import csr_matrix

from agents.base import AgentError
from agents.needs import lacking
from simulator.errors import did_you_mean
from simulator.log import InteractionLog

F32 = NDArray[np.float32]

READS = {
    "general_recommender": (),
    "sequential_recommender": ("order",),
    "context_aware_recommender": ("categories",),
    "knowledge_aware_recommender": ("graph",),
}
"""What models of RecBole's families read beside the likes: their order, the items' categories as a feature, or a graph
of which item is in which category. A family that is not here cannot be served."""

FEATURED = ("DIEN", "DIN", "FDSA", "GRU4RecF", "S3Rec", "SASRecF")
"""Sequential models that read the categories of items, too."""

SIMILARITY = {
    "ADMMSLIM": "item_similarity",
    "EASE": "item_similarity",
    "ItemKNN": "w",
    "SLIMElastic": "item_similarity",
}
"""Models that score a user by their history times an item-item matrix, and RecBole's name of that matrix."""

AT_ONCE = (*SIMILARITY, "AsymKNN", "Pop")
"""Models that are computed in one pass and draw nothing."""

ENCODERS = ("DiffRec", "LDiffRec", "MacridVAE", "MultiDAE", "MultiVAE", "RaCT", "RecVAE")
"""Models that read a user's likes as one row and know no user by number."""

REG = {"EASE": 4000.0}
"""Penalties that differ from RecBole's own. Its 250 is for ranking what users will rate next; slates are shown items
from everywhere, of which the rare ones need more shrinking (chosen in the train world of ml-100k)."""

IN_SEQUENCE = {"MAX_ITEM_LIST_LENGTH": 20, "train_batch_size": 128}
"""How sequential models learn. RecBole makes a row of each like with the likes before it, and a transformer's time goes
by rows times places: with RecBole's 50 places and its batches of 2048, whose steps are too few to have learned by the
end, a pass of SASRec over ml-100k's train rows takes four times as long. Chosen on train users left out of training."""

ONE_NEGATIVE = {"distribution": "uniform", "sample_num": 1}
"""RecBole's own default, which it does not have for models that it means to be given ratings."""

DATASET, PART = "windtunnel", "rows"
"""Names of the atomic file that RecBole reads: DATASET.PART.inter."""

OURS = ("model", "dataset", "config_file", "data_path", "checkpoint_dir", "benchmark_filename", "load_col",
        "unload_col", "USER_ID_FIELD", "ITEM_ID_FIELD", "seed", "reproducibility", "device", "gpu_id", "use_gpu",
        "state", "show_progress", "log_wandb", "save_dataset", "save_dataloaders")  # fmt: skip
"""RecBole settings that are this module's business and no user's."""

UNUSED = ("eval_args", "metrics", "topk", "valid_metric", "valid_metric_bigger", "eval_batch_size", "eval_step",
          "stopping_step", "metric_decimal_place")  # fmt: skip
"""RecBole settings of an evaluation that does not take place."""

FILTERS = ("user_inter_num_interval", "item_inter_num_interval", "val_interval", "rm_dup_inter",
           "filter_inter_by_user_or_item")  # fmt: skip
"""RecBole settings that choose rows: it hears them only of some models, and what a model learns from is the run's."""


class RecBoleSettings(BaseModel):
    """Parameters of a RecBole model; what is left empty is RecBole's own default."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: str = Field(description="RecBole's name of the model, from the agent's kind")
    epochs: int = Field(default=12, ge=0, description="passes over the liked rows, for models that learn by passes")
    embedding_size: int = Field(default=32, ge=1, description="dimensions of user and item vectors")
    learning_rate: float = Field(default=0.002, gt=0, description="step size of RecBole's optimiser")
    reg: float | None = Field(
        default=None, ge=0, description="RecBole's reg_weight (EASE: rows added to the diagonal, 4000 where empty)"
    )
    negatives: int = Field(default=128, ge=1, description="items that a folded-in user's likes are held against")
    options: dict[str, Any] = Field(default_factory=dict, description="further settings of RecBole by their own names")

    @model_validator(mode="before")
    @classmethod
    def _own_by_either_name(cls, given: Any) -> Any:
        """Options that are parameters of ours become these; one that is given under both names stays, to be refused."""
        options = given.get("options") if isinstance(given, Mapping) else None
        if not isinstance(options, Mapping) or (model := _published_as(str(given.get("model")))) is None:
            return given
        own = {name: ours for name, ours in own_names(model).items() if name in options}
        moved = {ours: options[name] for name, ours in own.items() if given.get(ours) in (None, options[name])}
        rest = {name: value for name, value in options.items() if own.get(name) not in moved}
        return {**given, **moved, "options": rest}

    @field_validator("model")
    @classmethod
    def _known(cls, model: str) -> str:
        name = _published_as(model)
        if name is None:
            raise ValueError(f"no model of RecBole has that name{did_you_mean(model, published())}")
        if published()[name] not in READS:
            raise ValueError(
                "boosted trees learn from rows of both outcomes, some of them held back, and the likes are of one "
                "outcome; take DeepFM or another of RecBole's context-aware models"
            )
        return name

    @field_validator("embedding_size", "reg")
    @classmethod
    def _is_read(cls, value: float | None, info: ValidationInfo) -> float | None:
        model, field = info.data.get("model"), str(info.field_name)
        if model and value != cls.model_fields[field].default and field not in own_names(model).values():
            raise ValueError(f"it is no setting of RecBole's {model}; those of its own go into options")
        return value

    @field_validator("options")
    @classmethod
    def _free(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        model = info.data.get("model")
        known = () if model is None else sorted(_defaults(model).keys() - {*OURS, *UNUSED, *FILTERS})
        for name in options:
            if name in OURS:
                raise ValueError(f"'{name}' is set by this program; leave it out")
            if name in UNUSED:
                raise ValueError(f"'{name}' would change nothing, as RecBole evaluates nothing here; leave it out")
            if name in FILTERS:
                raise ValueError(f"'{name}' filters rows, which the scenario's data does; leave it out")
            if model and name in own_names(model):
                raise ValueError(f"'{name}' is params.{own_names(model)[name]}, which is another; leave one out")
            if model and name not in known:
                hint = did_you_mean(name, known) or "; leave it out"
                raise ValueError(f"'{name}' is no setting of RecBole's {model}{hint}")
        return options

    @property
    def needs(self) -> str:
        """What the log must hold, see `agents.needs`."""
        return "item categories" if {"categories", "graph"} & set(reads(self.model)) else ""

    @property
    def deterministic(self) -> bool:
        """Whether training draws nothing, so that one training is enough."""
        return self.model in AT_ONCE


@cache
def published() -> dict[str, str]:
    """RecBole's models, each with the folder of its family: read from file names, as `get_model` looks for them.

    Nothing of RecBole is imported, which would take seconds.
    """
    found: dict[str, str] = {}
    for path in sorted((_root() / "model").glob("*_recommender/*.py")):
        classes = re.findall(r"^class (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        found |= {name: path.parent.name for name in classes if name.lower() == path.stem}
    return found


def _published_as(model: str) -> str | None:
    """RecBole's own spelling of a model's name, in any case of letters."""
    return next((name for name in published() if name.lower() == model.lower()), None)


@cache
def _root() -> Path:
    """The folder of the installed RecBole, which is not imported."""
    package = importlib.util.find_spec("recbole")
    assert package is not None
    assert package.submodule_search_locations is not None
    (root,) = package.submodule_search_locations
    return Path(root)


@cache
def _defaults(model: str) -> dict[str, Any]:
    """RecBole's own settings of a model, None for those without a default, as they stand in its files."""
    listed = ast.parse((_root() / "utils" / "argument_list.py").read_text(encoding="utf-8")).body
    found = {name: None for part in listed if isinstance(part, ast.Assign) for name in ast.literal_eval(part.value)}
    code = (_root() / "model" / published()[model] / f"{model.lower()}.py").read_text(encoding="utf-8")
    found |= dict.fromkeys(re.findall(r"""config\[\s*["'](\w+)["']""", code))
    for name in ("overall", "dataset/sample", f"model/{model}"):
        path = _root() / "properties" / f"{name}.yaml"
        found |= (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.is_file() else {}
    return found


@cache
def own_names(model: str) -> dict[str, str]:
    """Settings of RecBole that are parameters of ours, with our names; only those that the model reads so."""
    known = _defaults(model)
    embedded = "embedding_size" in known and model not in ENCODERS  # whose sizes that name does not mean
    weighted = "reg_weight" in known and not isinstance(known["reg_weight"], list)
    return {
        "epochs": "epochs",
        "learning_rate": "learning_rate",
        **({"embedding_size": "embedding_size"} if embedded else {}),
        **({"reg_weight": "reg"} if weighted else {}),
    }


def reads(model: str) -> tuple[str, ...]:
    """What a model reads beside the likes, of `order`, `categories` and `graph`."""
    return (*READS[published()[model]], *(["categories"] if model in FEATURED else []))


@dataclass(slots=True)
class Fitted:
    """A RecBole model with its data, valid inside `recbole_model` alone.

    Attributes:
        model, trainer, rows: RecBole's own objects.
        known: [m] catalogue indices of the items RecBole knows, known_rows: [m] its own numbers for them.
        users: RecBole's own number of each of our users who liked something.
        likes: [u, I] 1 for the likes of these users, in the order of their numbers, which begin at 1.
        n_rows: liked rows.
        dataset: RecBole's own, with what is known of items.
        passes: made so far.
    """

    model: Any
    trainer: Any
    rows: Any
    known: NDArray[np.int64]
    known_rows: NDArray[np.int64]
    users: dict[int, int]
    likes: csr_matrix
    n_rows: int
    dataset: Any
    passes: int = 0


@contextlib.contextmanager
def recbole_model(log: InteractionLog, settings: RecBoleSettings, seed: int) -> Iterator[Fitted]:
    """Give the model, not yet trained, on the liked rows of a log; all global state is restored afterwards.

    Raises:
        AgentError: RecBole refuses the settings or the rows.
    """
    model = settings.model
    if lack := lacking(settings.needs, log):
        raise AgentError(f"RecBole's {model} reads the categories of items: {lack}")
    with contained() as folder:
        _write_rows(log, folder, model)
        with refusals(model):
            fitted = _build(settings, log, folder, seed)
        yield fitted


def train_passes(fitted: Fitted, passes: int) -> None:
    """Let RecBole's trainer do so many passes, going on from where it is; the weights are those of the last."""
    trainer = fitted.trainer
    trainer.start_epoch = fitted.passes
    trainer.epochs = fitted.passes = fitted.passes + passes
    with refusals(type(fitted.model).__name__):
        trainer.fit(fitted.rows, None, verbose=False, saved=False, show_progress=False)
    fitted.model.eval()


def full_scores(fitted: Fitted, users: NDArray[np.int64]) -> F32:
    """[n, 1 + m] scores of all items for trained users, by RecBole's numbers of both."""
    import torch
    from recbole.data.interaction import Interaction

    found = []
    items = fitted.dataset.get_item_feature()
    with asking():
        for user in users:
            asked = fitted.dataset.join(Interaction({"user_id": torch.as_tensor([user])}))
            try:
                scores = fitted.model.full_sort_predict(asked)
            except NotImplementedError:  # then RecBole asks for every pair
                pairs = asked.repeat_interleave(len(items))
                pairs.update(items)
                scores = fitted.model.predict(pairs)
            found.append(np.asarray(scores, np.float32).reshape(-1))
    return np.stack(found)


@contextlib.contextmanager
def asking() -> Iterator[None]:
    """Ask a model without gradients; what some draw even then is the same each time, and no draw of a training."""
    import torch

    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@contextlib.contextmanager
def refusals(model: str) -> Iterator[None]:
    """Make one line of what RecBole raises.

    Raises:
        AgentError: RecBole raised something.
    """
    try:
        yield
    except AgentError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())
        raise AgentError(f"RecBole cannot train {model}: {type(error).__name__}: {said}") from error


@contextlib.contextmanager
def contained() -> Iterator[Path]:
    """A temporary current folder in which RecBole finds what it needs; nothing of it outlasts the block."""
    import scipy.sparse
    import torch

    argv, here, environment = sys.argv, Path.cwd(), os.environ.get("CUDA_VISIBLE_DEVICES")
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002  to restore it
    threads, flags = torch.get_num_threads(), (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic)
    numpy_names, disabled = set(np.__dict__), logging.root.manager.disable
    anomaly = torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()
    for name, to in (("float_", np.float64), ("complex_", np.complex128), ("unicode_", np.str_)):
        if name not in np.__dict__:
            setattr(np, name, to)
    patched = not hasattr(scipy.sparse.dok_matrix, "_update")
    if patched:
        scipy.sparse.dok_matrix._update = lambda self, entries: self._dict.update(entries)
    with tempfile.TemporaryDirectory(prefix="windtunnel-recbole-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        sys.argv = sys.argv[:1] or [""]
        torch.set_num_threads(1)
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(here)
            sys.argv = argv
            torch.set_num_threads(threads)
            torch.autograd.set_detect_anomaly(*anomaly)
            torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = flags
            logging.disable(disabled)
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002
            torch.set_rng_state(states[2])
            if environment is None:
                os.environ.pop("CUDA_VISIBLE_DEVICES", None)
            else:
                os.environ["CUDA_VISIBLE_DEVICES"] = environment
            for name in set(np.__dict__) - numpy_names:
                delattr(np, name)
            if patched:
                del scipy.sparse.dok_matrix._update


def _build(settings: RecBoleSettings, log: InteractionLog, folder: Path, seed: int) -> Fitted:
    import torch
    from recbole.config import Config
    from recbole.data import create_dataset
    from recbole.data.utils import get_dataloader
    from recbole.sampler import KGSampler
    from recbole.utils import get_model, get_trainer, init_seed

    model = settings.model
    reg = REG.get(model) if settings.reg is None else settings.reg
    values: dict[str, Any] = {
        "data_path": str(folder),
        "checkpoint_dir": str(folder / "saved"),
        # One named part, so that RecBole does not split: users are judged elsewhere, and every row trains.
        "benchmark_filename": None if "order" in reads(model) else [PART],
        "load_col": _columns(model),
        "USER_ID_FIELD": "user_id",
        "ITEM_ID_FIELD": "item_id",
        "seed": seed % 2**31,
        "reproducibility": True,
        "use_gpu": False,
        "gpu_id": "",
        "state": "CRITICAL",
        "show_progress": False,
        "epochs": settings.epochs,
        # Sizes of encoders have other names, or that name another meaning.
        **({"embedding_size": settings.embedding_size} if "embedding_size" in own_names(model) else {}),
        "learning_rate": settings.learning_rate,
        "train_batch_size": 2048,
        **({} if reg is None else {"reg_weight": reg}),
        **_way_of_learning(model),
        **settings.options,
    }
    if "order" in reads(model) and "train_neg_sample_args" not in settings.options:
        values["train_neg_sample_args"] = None
        if Config(model=model, dataset=DATASET, config_dict=values)["loss_type"] != "CE":  # that loss has all items
            values["train_neg_sample_args"] = dict(ONE_NEGATIVE)
    config = Config(model=model, dataset=DATASET, config_dict=values)
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    (rows,) = dataset.build()
    samplers = [_negative_sampler(config, dataset, rows)]
    if "graph" in reads(model):
        arguments = config["train_neg_sample_args"]
        samplers.append(KGSampler(dataset, arguments["distribution"], arguments["alpha"]))
    loader = get_dataloader(config, "train")(config, rows, *samplers, shuffle=config["shuffle"])
    of_that_name = get_model(config["model"])
    # RecBole's SINE turns it on for everyone when the sequential models are imported: ten times the time of a step.
    torch.autograd.set_detect_anomaly(False)
    network = of_that_name(config, rows).to(config["device"]).eval()  # it may be asked before it learns
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, network)
    trainer.tensorboard.close()
    trainer.tensorboard = _NoCurves()
    tokens = dataset.field2id_token["item_id"][1:]
    known = np.array([int(token) for token in tokens], np.int64)
    users = {int(token): row for row, token in enumerate(dataset.field2id_token["user_id"]) if row}
    places = np.arange(1, len(known) + 1)
    pairs, _ = _likes_in(log)
    place = np.array([users[user] for user in pairs[:, 0].tolist()], np.int64) - 1
    shape = (len(users), log.catalogue.n_items)
    likes = csr_matrix((np.ones(len(pairs), np.float32), (place, pairs[:, 1])), shape=shape)
    return Fitted(network, trainer, loader, known, places, users, likes, len(rows.inter_feat), rows)


class _NoCurves:
    """In the place of RecBole's TensorBoard, which nobody reads.

    Its thread writes every two minutes to a path that is relative to the current folder, and fails the training where
    that is another for a moment, as it is while a network is unpickled to be measured.
    """

    def add_scalar(self, *_: Any) -> None: ...

    def add_hparams(self, *_: Any) -> None: ...


def _way_of_learning(model: str) -> dict[str, Any]:
    """What RecBole leaves to the user for a kind of model, and where its own defaults serve one badly."""
    family = reads(model)
    if "order" in family:
        everything = {"order": "TO", "split": {"RS": [1.0]}, "group_by": None, "mode": "full"}
        # Nothing is evaluated, but those that are meant for labels name metrics that such an evaluation refuses.
        values = {"eval_args": everything, "metrics": ["Recall"], "valid_metric": "Recall@10", **IN_SEQUENCE}
        return values | ({"selected_features": ["categories"]} if model in FEATURED else {})
    if model == "Pop":
        # It counts an item once a batch, and what is drawn as if it were liked.
        return {"train_batch_size": 1, "train_neg_sample_args": None}
    if "categories" in family:
        return {"train_neg_sample_args": dict(ONE_NEGATIVE)}
    return {}


def _negative_sampler(config: Any, dataset: Any, rows: Any) -> Any:
    from recbole.sampler import RepeatableSampler, Sampler

    arguments = config["train_neg_sample_args"]
    if arguments["distribution"] == "none":
        return None
    if config["repeatable"]:
        sampler = RepeatableSampler(["train"], dataset, arguments["distribution"], arguments["alpha"])
    else:
        sampler = Sampler(["train"], [rows], arguments["distribution"], arguments["alpha"])
    return sampler.set_phase("train")


def _columns(model: str) -> dict[str, list[str]]:
    """The columns that RecBole is to load for a model, by file."""
    family = reads(model)
    times = ["timestamp"] if "order" in family else []
    columns = {"inter": ["user_id", "item_id", *times]}
    if "categories" in family:
        columns["item"] = ["item_id", "categories"]
    if "graph" in family:
        columns |= {"kg": ["head_id", "relation_id", "tail_id"], "link": ["item_id", "entity_id"]}
    return columns


def _likes_in(log: InteractionLog) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """[n, 2] users and the items they liked, each pair once, and [n] the first row of the log that says so."""
    liked = np.flatnonzero(log.primary > 0)
    pairs, first = np.unique(np.stack([log.user[liked], log.item[liked]], axis=1), axis=0, return_index=True)
    return pairs, liked[first]


def _write_rows(log: InteractionLog, folder: Path, model: str) -> None:
    """Liked rows, and what the model reads beside them, as atomic files; tokens are the catalogue's own indices."""
    place = folder / DATASET
    place.mkdir()

    def write(suffix: str, header: str, lines: Iterable[str]) -> None:
        (place / f"{DATASET}.{suffix}").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")

    family = reads(model)
    pairs, first = _likes_in(log)
    if "order" in family:
        # The order of a user's rows is all that is read of their times, which may be equal.
        rows = (f"{user}\t{item}\t{at}" for (user, item), at in zip(pairs.tolist(), first.tolist(), strict=True))
        write("inter", "user_id:token\titem_id:token\ttimestamp:float", rows)
    else:
        write(f"{PART}.inter", "user_id:token\titem_id:token", (f"{user}\t{item}" for user, item in pairs.tolist()))
    met = np.unique(pairs[:, 1])
    categories = {item: np.flatnonzero(log.catalogue.item_categories[item]).tolist() for item in met.tolist()}
    if "categories" in family:
        rows = (f"{item}\t{' '.join(map(str, of))}" for item, of in categories.items())
        write("item", "item_id:token\tcategories:token_seq", rows)
    if "graph" in family:
        triples = (f"i{item}\tin\tc{one}" for item, of in categories.items() for one in of)
        write("kg", "head_id:token\trelation_id:token\ttail_id:token", triples)
        write("link", "item_id:token\tentity_id:token", (f"{item}\ti{item}" for item, of in categories.items() if of))
