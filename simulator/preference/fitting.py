"""Fine-tune the item text encoder, and fit preference models on its vectors."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.encoders.text import encoder_for
from simulator.errors import InputError, did_you_mean
from simulator.log import Catalogue, InteractionLog, Split
from simulator.preference.architectures import ARCHITECTURES, WITHOUT_TEXT, Fit, Progress, Start
from simulator.preference.calibration import calibrate, platt
from simulator.preference.continual import SavedModel
from simulator.preference.debiasing import weigh
from simulator.preference.labels import with_few_labels
from simulator.preference.model import Member, PreferenceModel, row_hashes
from simulator.preference.problem import ROLE_NAMES, Problem, build_problem
from simulator.preference.rehearsal import Rehearsal, rehearse
from simulator.preference.searching import encoder_texts, queries_of, with_searches
from simulator.preference.settings import PreferenceSettings
from simulator.streams import stream, stream_word


def _silent(fraction: float, text: str) -> None:
    """Progress that goes nowhere."""


@dataclass(frozen=True, slots=True)
class Gain:
    """What fine-tuning moved: log-loss a row of the frozen control minus that of the tuned encoder.

    Both sides' best pass is chosen on one half of the tuning users and scored on the other, and the other way round:
    what chooses and what reports share no users.

    Attributes:
        difference: [T] summed log-loss difference of each tuning user (control minus tuned; above 0: tuning helps).
        rows: [T] target rows of each tuning user.
    """

    difference: NDArray[np.float64]
    rows: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TextTower:
    """Item text vectors of the encoder that was kept.

    Attributes:
        vectors: [I, p] float32, unit length (zero where an item has no text); p = 0 where no item has text.
        chosen: "pretrained" (frozen), "fine-tuned", or "ids only" (no text).
        gain: what fine-tuning moved against the frozen control; None where nothing was fine-tuned.
        curve: JSON-ready rows {"epoch", "control", "fine-tuned"}: tuning log-loss a row after each pass of stage 2.
        seconds: processor seconds of the stages.
        trained_parameters: weights of the encoder that the adaptation trains.
        peak_memory: MB that fine-tuning took on top of what the process held before.
        pretrained: the encoder's weights by name where it was pretrained on the log's texts and kept; else none.
        weights: its fine-tuned weights, in the order of those in training, where they were kept; else none.
        queries: [Q, p] vectors of the log's queries by the same encoder, where a joint fit learns them; else [0, 0].
    """

    vectors: NDArray[np.float32]
    chosen: str
    gain: Gain | None = None
    curve: tuple[dict[str, float], ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    trained_parameters: int = 0
    peak_memory: float = 0.0
    pretrained: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    weights: tuple[NDArray[np.float32], ...] = ()
    queries: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))


def standardised(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors [I, p] about their mean, scaled to a mean squared length of 1; rows of zeros (nothing known) stay zero.

    No columns come back where nothing tells two items apart.
    """
    known = np.any(vectors != 0, axis=1)
    if not known.any():
        return vectors[:, :0]
    centred = np.where(known[:, None], vectors - vectors[known].mean(0), 0.0)
    scale = np.sqrt(np.mean(np.sum(centred[known].astype(np.float64) ** 2, axis=1)))
    return (centred / scale).astype(np.float32) if scale > 1e-6 else vectors[:, :0].astype(np.float32)


def item_features(
    vectors: NDArray[np.float32], catalogue: Catalogue, settings: PreferenceSettings
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What is known of each item: text [I, p] and categories [I, C], each standardised, sharing a length of 1.

    Either has no columns where the log has none of it.
    """
    text = standardised(vectors)
    side = standardised(catalogue.item_categories) if settings.categories else text[:, :0]
    both = text.shape[1] > 0 and side.shape[1] > 0
    share = np.float32(np.sqrt(0.5) if both else 1.0)
    return text * share, side * share


def fine_tune(
    log: InteractionLog,
    split: Split,
    role: int,
    settings: PreferenceSettings,
    root: np.random.SeedSequence,
    *,
    cache: Path | None = None,
    folder: Path = Path(),
    progress: Progress = _silent,
) -> TextTower:
    """Item text vectors for a role's world: the pretrained encoder's, or the fine-tuned one's if it earns its place.

    Stage 1 trains heads on the frozen encoder. Stage 2 goes on from them twice for the same number of passes: with the
    encoder in training as `settings.adaptation` says, and frozen (the control). The better of the two by the tuning
    users is kept. An encoder pretrained on the log's texts first gets a stage 1 of its own, and stands on the tuned
    side even where its adaptation is frozen.

    Args:
        log: the log.
        split: who may see which rows; only this role's users are used.
        role: WORLD_A or JUDGE.
        settings: the scenario's `preference:`.
        root: root of the scenario's streams.
        cache: folder for the pretrained encoder's vectors, or None.
        folder: folder of the scenario, for an encoder named by a relative path.
        progress: told the fraction done and a few words.

    Raises:
        InputError: the encoder cannot be found or loaded, or the role has no rows to fit or to tune on.
    """
    from simulator.encoders.text import encode_texts

    began = time.process_time()
    texts, asked = log.catalogue.item_text, queries_of(log, settings)
    described = settings.architecture not in WITHOUT_TEXT and any(text.strip() for text in texts)
    if not described and not asked:
        return TextTower(np.zeros((log.catalogue.n_items, 0), np.float32), "ids only")
    encoder = encoder_for(
        settings.encoder, encoder_texts(log, settings), folder, cache=cache, own=settings.own, root=root
    )
    queries = np.zeros((0, 0), np.float32)
    if asked:
        queries = encode_texts(
            asked, encoder, cache=cache, max_tokens=settings.max_tokens, device=settings.tuning.device
        )
    if not described:
        return TextTower(np.zeros((log.catalogue.n_items, 0), np.float32), "ids only", queries=queries)
    pretrained = encode_texts(
        texts, encoder, cache=cache, max_tokens=settings.max_tokens, device=settings.tuning.device
    )
    seconds = {"encode": time.process_time() - began}
    if settings.architecture != "two_tower" or (settings.adaptation == "frozen" and settings.pretraining == "none"):
        return TextTower(pretrained, "pretrained", seconds=seconds, queries=queries)
    problem = weigh(build_problem(log, split, role), log, settings, stream(root, "preference", "exposure", role))
    return _tune_encoder(
        log, pretrained, queries, encoder, problem, settings, root, role, folder, progress, seconds
    )  # fmt: skip


def _tune_encoder(
    log: InteractionLog,
    pretrained: NDArray[np.float32],
    queries: NDArray[np.float32],
    encoder: str,
    problem: Problem,
    settings: PreferenceSettings,
    root: np.random.SeedSequence,
    role: int,
    folder: Path,
    progress: Progress,
    seconds: dict[str, float],
) -> TextTower:
    import torch

    from simulator.encoders.augmentation import build_augmenter
    from simulator.encoders.text import load_encoder
    from simulator.encoders.tuning import PeakMemory, one_thread
    from simulator.preference import _two_tower as towers
    from simulator.preference._encoder_tuning import TextInTraining, pretrain_on_log

    name = ("preference", "fine_tune", role)
    tuning, dim, label, asked = settings.tuning, settings.dims[0], Path(encoder).name, queries_of(log, settings)
    trained_parameters, memory = 0, 0.0
    on_log: dict[str, NDArray[np.float32]] = {}
    sides = {}
    with one_thread(stream_word(root, *name, "torch", bits=62), settings.tuning.device):
        # Both sides of stage 2 meet the same batches and masks, so that they differ by the encoder alone.
        for side, share in (("control", (0.1, 0.15)), ("fine-tuned", (0.15, 1.0))):
            tuned = side == "fine-tuned"

            def tell(done: float, words: str, side: str = side, share: tuple[float, float] = share) -> None:
                progress(share[0] + (share[1] - share[0]) * done, f"{side}, {words}")

            peak, model = PeakMemory(), None
            if tuned and settings.pretraining != "none":
                began = time.process_time()
                model, pretrained_here, queries_here = pretrain_on_log(
                    log.catalogue.item_text, asked, encoder, problem, settings, stream(root, *name, "pretraining"), tell
                )
                on_log = {path: weight.numpy().copy() for path, weight in model.state_dict().items()}
                seconds["pretraining"] = time.process_time() - began
            else:
                pretrained_here, queries_here = pretrained, queries
            if not tuned or model is not None:
                text, other = item_features(pretrained_here, log.catalogue, settings)
                features = torch.from_numpy(np.concatenate([text, other], axis=1))
                if asked:
                    problem = with_searches(problem, log, standardised(queries_here))
                began = time.process_time()
                first = towers.train(
                    problem,
                    features,
                    settings,
                    stream(root, *name, "heads"),
                    dim=dim,
                    learning_rate=settings.learning_rate,
                    epochs=settings.epochs,
                    patience=settings.patience,
                    progress=lambda done, words: progress(0.1 * done, f"heads on the frozen encoder, {words}"),
                )
                stage = "heads" if model is None else "heads on the pretrained encoder"
                seconds[stage] = time.process_time() - began
            began = time.process_time()
            tower = None
            if tuned and settings.adaptation != "frozen":
                tokenizer, loaded = load_encoder(encoder)
                model = loaded if model is None else model
                texts = log.catalogue.item_text
                distinct = sorted({text for text in texts if text.strip()})
                tower = TextInTraining(
                    texts, pretrained_here, text, other, tokenizer, model, label, problem, settings,
                    asked, queries_here,
                    build_augmenter(settings.robustness, distinct, tokenizer, model, folder),
                )  # fmt: skip
                trained_parameters = tower.encoder.trained_parameters
            sides[side] = towers.train(
                problem,
                features,
                settings,
                stream(root, *name, "stage 2"),
                dim=dim,
                start=first.heads,
                learning_rate=tuning.heads_learning_rate,
                epochs=tuning.epochs,
                heads_passes=tuning.heads_passes,
                patience=tuning.patience,
                encode=tower,
                progress=tell,
            )
            seconds[side] = time.process_time() - began
            memory = peak.megabytes()
    control, fine_tuned = sides["control"], sides["fine-tuned"]
    rows = np.bincount(problem.target_user, minlength=len(problem.tuning_users))
    # With patience one side may stop before the other.
    curve = tuple(
        {"epoch": epoch} | {side: float(one.losses[epoch].sum() / rows.sum()) for side, one in sides.items()
                            if epoch < len(one.losses)}
        for epoch in range(max(len(one.losses) for one in sides.values()))
    )  # fmt: skip
    better = fine_tuned.losses[fine_tuned.best].sum() < control.losses[control.best].sum()
    moved, moved_queries = (pretrained_here, queries_here) if fine_tuned.vectors is None else fine_tuned.vectors
    return TextTower(
        moved if better else pretrained,
        "fine-tuned" if better else "pretrained",
        Gain(crossed_difference(control.losses, fine_tuned.losses), rows),
        curve,
        {stage: round(spent, 2) for stage, spent in seconds.items()},
        trained_parameters,
        memory,
        on_log if better else {},
        fine_tuned.weights if better else (),
        moved_queries if better else queries,
    )


def crossed_difference(control: NDArray[np.float64], tuned: NDArray[np.float64]) -> NDArray[np.float64]:
    """[T] loss of the control minus that of the tuned side, each at the pass that is best on the *other* users.

    control, tuned: [passes, T] summed loss of each tuning user after each pass.
    """
    n_users = control.shape[1]
    out = np.zeros(n_users)
    for half in range(2):
        scored = np.arange(n_users) % 2 == half
        chooses = ~scored if n_users > 1 else scored
        a = np.argmin(control[:, chooses].sum(1))
        b = np.argmin(tuned[:, chooses].sum(1))
        out[scored] = control[a, scored] - tuned[b, scored]
    return out


def fit_preference(
    log: InteractionLog,
    split: Split,
    role: int,
    tower: TextTower,
    settings: PreferenceSettings,
    root: np.random.SeedSequence,
    *,
    architecture: str | None = None,
    bootstrap: int | None = None,
    saved: SavedModel | None = None,
    cache: Path | None = None,
    folder: Path = Path(),
    rehearsed: bool = True,
    progress: Progress = _silent,
) -> PreferenceModel:
    """Fit a calibrated preference model on a role's fitting users.

    Args:
        log: the log.
        split: who may see which rows; only this role's users are used.
        role: WORLD_A or JUDGE.
        tower: item text vectors of the same role.
        settings: the scenario's `preference:`.
        root: root of the scenario's streams.
        architecture: a key of `ARCHITECTURES`; the settings' own where left out.
        saved: model to go on from (`preference.update`); the references are fitted from nothing all the same.
        cache: folder for encoders made here, or None.
        folder: folder of the scenario, for an encoder named by a relative path.
        bootstrap: number of a refit: fit on the fitting users drawn with replacement, from other seeds.
        rehearsed: whether the calibration reads a rehearsal; not needed, nor paid for, where item vectors are all that
            is wanted.
        progress: told the fraction done and a few words.

    Raises:
        InputError: the architecture is not known, or the role has no rows to fit or to tune on.
    """
    return fit_with_pairs(
        log, split, role, tower, settings, root,
        architecture=architecture, bootstrap=bootstrap, saved=saved, cache=cache, folder=folder, rehearsed=rehearsed,
        progress=progress,
    )[0]  # fmt: skip


def fit_with_pairs(
    log: InteractionLog,
    split: Split,
    role: int,
    tower: TextTower,
    settings: PreferenceSettings,
    root: np.random.SeedSequence,
    *,
    architecture: str | None = None,
    bootstrap: int | None = None,
    saved: SavedModel | None = None,
    cache: Path | None = None,
    folder: Path = Path(),
    rehearsed: bool = True,
    progress: Progress = _silent,
) -> tuple[PreferenceModel, Any]:
    """As `fit_preference`, and the pair encoder that taught the model (for `predict_pairs`), or None."""
    architecture = architecture or settings.architecture
    if architecture not in ARCHITECTURES:
        raise InputError(
            f"preference.architecture: '{architecture}' is not known{did_you_mean(architecture, ARCHITECTURES)}; "
            f"use one of: {', '.join(ARCHITECTURES)}"
        )
    number = -1 if bootstrap is None else bootstrap
    resample = None if bootstrap is None else stream(root, "preference", "bootstrap", role, bootstrap)
    problem = build_problem(log, split, role, resample=resample)
    problem = weigh(problem, log, settings, stream(root, "preference", "exposure", role))
    name = ("preference", architecture, role, number)
    count = settings.members if bootstrap is None else min(settings.members, settings.refit_members)
    features = np.concatenate(item_features(tower.vectors, log.catalogue, settings), axis=1)
    labels: dict[str, Any] = {}

    def one_member(of: Problem, form: str, *what: str | int, start: Start | None = None) -> Member:
        few = Fit(of, features, settings, root, (*name, *what), 1, start, log.catalogue, cache, folder, _silent)
        return ARCHITECTURES[form](few).members[0]

    asked = queries_of(log, settings) if architecture == "two_tower" else ()
    if settings.label_budget is not None:

        def quick(few: Problem, number: int) -> Member:
            return one_member(few, "two_tower", "labels", number)

        problem, labels = with_few_labels(problem, settings, quick, stream(root, *name, "labels"))
        # Stopping and calibration need outcomes too: those of the tuning users, early rows and late.
        labels["labels_read_for_tuning"] = len(problem.tuning.item) + len(problem.target)
    if asked:
        problem = with_searches(problem, log, standardised(tower.queries))
        labels["queries"] = len(asked)
    start = None
    if saved is not None and settings.update is not None and architecture == "two_tower":
        start = Start.of(saved, problem, log, features, settings.update)
        problem = start.problem
    fit = Fit(problem, features, settings, root, name, count, start, log.catalogue, cache, folder, progress)
    made = ARCHITECTURES[architecture](fit)
    members = made.members
    logit = np.mean([problem.tuning_logit(member) for member in members], axis=0)
    if architecture == "two_tower" and settings.loss != "cross_entropy":
        calibration, said = platt(logit, problem.target, problem.target_user, loss=settings.loss), None
    else:
        # A pair encoder takes minutes, and what it taught has the form of a two-tower model.
        form = "two_tower" if made.pairs is not None else architecture

        def again(rehearsal: Rehearsal) -> Member:
            going_on = None if start is None else start.rehearsed(rehearsal)
            return one_member(rehearsal.problem, form, "rehearsal", start=going_on)

        said = None
        if rehearsed:
            known = None if start is None else start.seen
            said = rehearse(problem, log, again, stream(root, *name, "rehearsal"), seen=known)
        calibration = calibrate(
            logit,
            problem.target,
            problem.target_user,
            popularity=problem.popularity[problem.target_item],
            rehearsed=said,
            weight=problem.target_weight,
        )
    fitted = np.zeros(log.catalogue.n_users, bool)
    fitted[problem.fitted_users] = True
    tuned = np.zeros(log.catalogue.n_users, bool)
    tuned[problem.tuning_users] = True
    seen = (fitted[log.user] & ~split.late) | tuned[log.user]
    model = PreferenceModel.assemble(
        architecture,
        members,
        slope=calibration.slope,
        intercept=calibration.intercept,
        item_shift=np.float32(calibration.popularity) * problem.popularity,
        fitted_users=problem.fitted_users,
        tuning_users=problem.tuning_users,
        seen=row_hashes(log)[seen],
        measures={
            "role": ROLE_NAMES[role],
            "encoder": None if architecture in WITHOUT_TEXT else tower.chosen,
            "rows_fitted": len(problem.histories.item),
            "tuning_log_loss": float(problem.tuning_loss(logit).sum() / len(problem.target)),
            "popularity": calibration.popularity,
            "rows_rehearsed": 0 if said is None else len(said.outcome),
            **labels,
            **made.measures,
        },
    )
    return model, made.pairs
