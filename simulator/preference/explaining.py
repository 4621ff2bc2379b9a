"""Why a user's score of an item is what it is: which of the history moved it, and which words of the item's text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from simulator.log import Catalogue, Histories, InteractionLog, Split
from simulator.preference.model import Member, PreferenceModel
from simulator.preference.searching import encoder_texts, queries_of
from simulator.preference.settings import PreferenceSettings
from simulator.streams import stream

if TYPE_CHECKING:
    import torch

    from simulator.preference.fitting import TextTower

HISTORY_STEPS, WORD_STEPS = 32, 64
"""Points of the Gauss-Legendre rule along the path: the head's logit is smooth in a row's weight, words are less so."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Attribution of one user's calibrated logit of one item.

    Both parts are integrated gradients (Sundararajan et al., 2017), so each sums to a difference of scores: that of the
    history to `logit` minus the logit of a user without history, that of the words to the logit minus that of the same
    item with a text of padding.

    Attributes:
        user, item: the user's own ids.
        logit: the calibrated logit.
        without_history: logit of the same item for a user of the same features and no history.
        history_item: [h] ids of the history's items; history_liked: [h].
        history: [h] what each row of the history added.
        words: words of the item's text, empty where the text plays no part.
        word: [w] what each word added.
        without_words: logit of the item with a text of padding; None where the text plays no part.
    """

    user: str
    item: str
    logit: float
    without_history: float
    history_item: tuple[str, ...]
    history_liked: NDArray[np.float32]
    history: NDArray[np.float64]
    words: tuple[str, ...] = ()
    word: NDArray[np.float64] | None = None
    without_words: float | None = None

    def as_text(self, names: dict[str, str] | None = None, most: int = 3) -> str:
        """One paragraph: what moved the score most, in either direction.

        Args:
            names: item id -> what to call it; ids where left out.
            most: rows of the history, and words, that are named.
        """
        called = names or {}
        p = 1 / (1 + np.exp(-self.logit))
        lines = [f"user {self.user}, {called.get(self.item, self.item)}: probability {p:.2f}"]
        order = np.argsort(-np.abs(self.history), kind="stable")[:most]
        told = [
            f"{'liked' if self.history_liked[k] else 'did not like'} "
            f"{called.get(self.history_item[k], self.history_item[k])} ({self.history[k]:+.2f})"
            for k in order
        ]
        if told:
            lines.append(f"history ({self.logit - self.without_history:+.2f} in all): {', '.join(told)}")
        if self.word is not None:
            order = np.argsort(-np.abs(self.word), kind="stable")[:most]
            lines.append(f"words: {', '.join(f'{self.words[k]} ({self.word[k]:+.2f})' for k in order)}")
        return "; ".join(lines)


def examples(
    model: PreferenceModel,
    log: InteractionLog,
    split: Split,
    role: int,
    tower: TextTower,
    settings: PreferenceSettings,
    root: np.random.SeedSequence,
    *,
    cache: Path | None = None,
    folder: Path = Path(),
) -> tuple[str, ...]:
    """A few users of a role, each with the late item that the model thinks most likely, explained in words.

    Args:
        model: the role's model.
        log: the log.
        split: late rows are what is explained, early ones the history.
        role: WORLD_A or JUDGE.
        tower: the role's text vectors.
        settings: `examples` says how many, `encoder` by what.
        root: root of the scenario's streams.
        cache: folder for encoders made here, or None.
        folder: of the scenario.
    """
    from simulator.encoders.text import encoder_for

    rng = stream(root, "preference", "examples")
    rows = split.rows(log, split.users(role, tuning=False), late=True)
    users = np.unique(log.user[rows])
    catalogue = log.catalogue
    text = None
    if tower.chosen != "ids only" and model.members[0].item_map is not None:
        texts, asked = encoder_texts(log, settings), queries_of(log, settings)
        made = encoder_for(settings.encoder, texts, folder, cache=cache, own=settings.own, root=root)
        both = settings.categories and catalogue.item_categories.shape[1] > 0
        encoder = kept_encoder(tower, catalogue.item_text, made, settings, folder, queries=asked)
        text = TextScore(encoder, tower.vectors, np.sqrt(0.5) if both else 1.0, settings.max_tokens)
    names = {
        name: f"'{words.strip()[:60]}'"
        for name, words in zip(catalogue.item_ids, catalogue.item_text, strict=True)
        if words.strip()
    }
    told = []
    for user in np.sort(rng.choice(users, min(settings.examples, len(users)), replace=False)):
        mine = rows[log.user[rows] == user]
        best = mine[np.argmax(model.predict(log, split, mine))]
        history = split.histories(log, np.array([user]))
        told.append(explain(model, catalogue, history, int(user), int(log.item[best]), text=text).as_text(names))
    return tuple(told)


def explain(
    model: PreferenceModel,
    catalogue: Catalogue,
    history: Histories,
    user: int,
    item: int,
    *,
    text: TextScore | None = None,
) -> Explanation:
    """Attribute one user's score of an item to the user's history, and to the words of the item's text.

    Args:
        model: the fitted model.
        catalogue: of the log.
        history: of this one user.
        user: index into the catalogue.
        item: index into the catalogue.
        text: the encoder as the model's features were made with it; None leaves the words out.
    """
    features = catalogue.user_features[[user]]
    state = model.user_states(history, features)
    nothing = Histories(np.array([0, 0]), history.item[:0], history.primary[:0])
    bare = model.user_states(nothing, features)
    where = np.array([item])
    logit, without = (float(model.logits(s, np.array([0]), where)[0]) for s in (state, bare))
    scale = model.slope / len(model.members)
    of_history = scale * np.sum([_history_of(m, history, features, item) for m in model.members], axis=0)
    explanation = Explanation(
        user=catalogue.user_ids[user],
        item=catalogue.item_ids[item],
        logit=logit,
        without_history=without,
        history_item=tuple(catalogue.item_ids[k] for k in history.item),
        history_liked=history.primary,
        history=np.asarray(of_history, np.float64).reshape(-1),
    )
    if text is None or not catalogue.item_text[item].strip() or model.members[0].item_map is None:
        return explanation
    direction = np.zeros(text.width)
    column = 0
    for member in model.members:
        assert member.item_map is not None
        width = member.item_vectors.shape[1]
        theta = state.vector[0, column : column + width].astype(np.float64)
        column += width
        direction += scale * (member.item_map.vector[: text.width] @ theta + member.item_map.offset[: text.width])
    words, word, moved = text.attribute(catalogue.item_text[item], direction)
    return replace(explanation, words=words, word=word, without_words=logit - moved)


def _history_of(member: Member, history: Histories, features: NDArray[np.float32], item: int) -> NDArray[np.float64]:
    """[h] integrated gradients of the score in the weights of the history's rows, from none to all of them."""
    import torch
    from captum.attr import IntegratedGradients

    from simulator.preference._two_tower import map_head

    if len(history.item) == 0:
        return np.zeros(0)
    vectors = torch.from_numpy(member.item_vectors)
    known = torch.from_numpy(member.item_offset[history.item]) + float((features @ member.feature_weights)[0])
    row = torch.cat([torch.ones(len(history.item), 1), vectors[torch.from_numpy(history.item)]], dim=1)
    outcome, precision = torch.from_numpy(history.primary), torch.from_numpy(member.precision)
    target = torch.cat([torch.ones(1), vectors[item]])

    def score(weight: torch.Tensor) -> torch.Tensor:
        b = len(weight)
        theta = map_head(row.expand(b, -1, -1), known.expand(b, -1), outcome.expand(b, -1), weight, precision)
        return theta @ target

    whole = torch.ones(1, len(history.item))
    found = IntegratedGradients(score).attribute(
        whole, torch.zeros_like(whole), n_steps=HISTORY_STEPS, method="gausslegendre"
    )
    return np.asarray(found[0].detach().numpy(), np.float64)


@dataclass(frozen=True, slots=True)
class WordEncoder:
    """A text encoder that can be followed back to its words.

    Attributes:
        tokenizer: its tokenizer.
        embedding: the layer that looks word embeddings up.
        last_hidden: token ids and mask [b, T] to the last hidden states [b, T, p].
    """

    tokenizer: Any
    embedding: Any
    last_hidden: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def kept_encoder(
    tower: TextTower,
    texts: Sequence[str],
    encoder: str,
    settings: PreferenceSettings,
    folder: Path,
    *,
    queries: Sequence[str] = (),
) -> WordEncoder:
    """The encoder that made a tower's vectors, put together again from what the tower keeps of it.

    Args:
        tower: the text vectors of a role.
        texts: [I] text of each item.
        encoder: folder of the encoder as it was published.
        settings: those that the tower was made with.
        folder: of the scenario.
        queries: [Q] those of a joint fit, whose word pieces training met too.
    """
    import torch

    from simulator.encoders.augmentation import build_augmenter
    from simulator.encoders.text import load_encoder
    from simulator.encoders.tuning import TunableEncoder

    tokenizer, model = load_encoder(encoder)
    if tower.pretrained:
        model.load_state_dict(
            {name: torch.from_numpy(weight) for name, weight in tower.pretrained.items()}, strict=False
        )
    if not tower.weights:

        def plain(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            hidden: torch.Tensor = model(input_ids=tokens, attention_mask=mask).last_hidden_state
            return hidden

        return WordEncoder(tokenizer, model.get_input_embeddings(), plain)
    distinct, augmenter = sorted({text for text in texts if text.strip()}), None
    if settings.adaptation == "full":  # its embedding table holds the word pieces that training met
        augmenter = build_augmenter(settings.robustness, distinct, tokenizer, model, folder)
        distinct += queries
    else:
        distinct = distinct[:1]
    tunable = TunableEncoder(
        distinct, tokenizer, model, Path(encoder).name, settings.adaptation,
        settings.tuning.model_copy(update={"compile": False}), 1,
        max_tokens=settings.max_tokens, augmenter=augmenter,
    )  # fmt: skip
    tunable.take(tower.weights)
    return WordEncoder(tokenizer, tunable.embedding, tunable.last_hidden)


class TextScore:
    """The text encoder with the scaling that made features of its vectors: attributes a linear score to words.

    Args:
        encoder: the encoder, as the features were made with it.
        vectors: [I, p] unit-length vectors of the items (zero without text).
        share: what the standardised vectors were multiplied by beside other features.
        max_tokens: word pieces kept of a text.
    """

    def __init__(self, encoder: WordEncoder, vectors: NDArray[np.float32], share: float, max_tokens: int) -> None:
        self._encoder, self._tokenizer, self._max_tokens = encoder, encoder.tokenizer, max_tokens
        known = vectors[np.any(vectors != 0, axis=1)]
        centred = (known - known.mean(0)).astype(np.float64)
        self._factor = share / float(np.sqrt(np.mean(np.sum(centred**2, axis=1))))
        self.width = vectors.shape[1]

    def attribute(
        self, text: str, direction: NDArray[np.float64]
    ) -> tuple[tuple[str, ...], NDArray[np.float64], float]:
        """Words, what each adds to <direction, features of the text>, and the score minus that of a padded text.

        Word pieces are joined to words, and the encoder's own marks at the ends are left in, so that the sum is whole.
        """
        import torch
        from captum.attr import LayerIntegratedGradients

        from simulator.encoders.text import mean_pool

        encoded = self._tokenizer(text, truncation=True, max_length=self._max_tokens, return_tensors="pt")
        ids, mask = encoded["input_ids"], encoded["attention_mask"]
        towards = torch.from_numpy((direction * self._factor).astype(np.float32))
        special = self._tokenizer.get_special_tokens_mask(ids[0].tolist(), already_has_special_tokens=True)
        marks = torch.tensor(special, dtype=torch.bool)[None]
        baseline = torch.where(marks, ids, torch.full_like(ids, self._tokenizer.pad_token_id or 0))

        def score(tokens: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
            there = there.expand(len(tokens), -1)
            return mean_pool(self._encoder.last_hidden(tokens, there), there) @ towards

        with torch.no_grad():
            moved = float((score(ids, mask) - score(baseline, mask))[0])
        method = LayerIntegratedGradients(score, self._encoder.embedding)
        found = method.attribute(
            ids,
            baseline,
            additional_forward_args=(mask,),
            n_steps=WORD_STEPS,
            method="gausslegendre",
            internal_batch_size=32,
        )
        piece = found.sum(dim=2)[0].detach().numpy().astype(np.float64)
        pieces = self._tokenizer.convert_ids_to_tokens(ids[0].tolist())
        words, value = _joined(pieces, piece, special, encoded.word_ids(0))
        return words, value, moved


def _joined(
    pieces: Sequence[str], value: NDArray[np.float64], special: Sequence[int], word_of: Sequence[int | None]
) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Word pieces joined to words, their values summed; what falls on the encoder's marks is shared by all words."""
    words: list[str] = []
    sums: list[float] = []
    last: int | None = None
    rest = 0.0
    for piece, one, mark, number in zip(pieces, value, special, word_of, strict=True):
        if mark or number is None:
            rest += float(one)
            continue
        if number == last:
            words[-1] += piece.removeprefix("##")
            sums[-1] += float(one)
        else:
            words.append(piece)
            sums.append(float(one))
        last = number
    return tuple(words), np.array(sums) + (rest / len(sums) if sums else 0.0)
