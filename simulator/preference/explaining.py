"""Why a user's score of an item is what it is: which of the history moved it, and which words of the item's text."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
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
WORLD = "judge world 1"


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

    @property
    def probability(self) -> float:
        """That the user likes the item, given that it is examined."""
        return float(1 / (1 + np.exp(-self.logit)))

    def as_text(self, names: Mapping[str, str] | None = None, most: int = 3) -> str:
        """One paragraph: what moved the score most, in either direction.

        Args:
            names: item id -> what to call it; ids where left out.
            most: rows of the history, and words, that are named.
        """
        called = names or {}
        lines = [f"user {self.user}, {called.get(self.item, self.item)}: probability {self.probability:.2f}"]
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

    def as_lines(self, names: Mapping[str, str], most: int) -> list[str]:
        """A line for the score, and one for each of the rows of the history and words that moved it most.

        Args:
            names: item id -> what to call it.
            most: rows of the history, and words, that are named; the rest is summed in one line.
        """
        met = ", which stands in the history" if self.item in self.history_item else ""
        lines = [
            f"user {self.user}, {_called(self.item, names)}{met}: probability {self.probability:.2f}, "
            f"logit {self.logit:+.2f}"
        ]
        rows = [
            f"{'liked' if liked else 'did not like'} {_called(item, names)}"
            for item, liked in zip(self.history_item, self.history_liked, strict=True)
        ]
        lines.append(f"  history of {len(rows)}: {self.history.sum():+.2f} to {self.without_history:+.2f} without it")
        lines += _largest(rows, self.history, most)
        if self.word is None or self.without_words is None:
            return [*lines, "  words: play no part in this score"]
        lines.append(f"  words: {self.word.sum():+.2f} to {self.without_words:+.2f} with a text of padding")
        return [*lines, *_largest(self.words, self.word, most)]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready dictionary; rows of the history stand oldest first, words as in the text."""
        rows = zip(self.history_item, self.history_liked, self.history, strict=True)
        words = () if self.word is None else zip(self.words, self.word, strict=True)
        return {
            "user": self.user,
            "item": self.item,
            "in_history": self.item in self.history_item,
            "probability": self.probability,
            "logit": self.logit,
            "without_history": self.without_history,
            "history": [{"item": item, "liked": bool(liked), "added": float(added)} for item, liked, added in rows],
            "without_words": self.without_words,
            "words": [{"word": word, "added": float(added)} for word, added in words],
        }


def _called(item: str, names: Mapping[str, str]) -> str:
    return f"{names[item]} ({item})" if item in names else item


def _largest(what: Sequence[str], added: NDArray[np.float64], most: int) -> list[str]:
    order = np.argsort(-np.abs(added), kind="stable")
    lines = [f"    {added[k]:+.2f}  {what[k]}" for k in order[:most]]
    rest = order[most:]
    return [*lines, f"    {added[rest].sum():+.2f}  {len(rest)} more"] if len(rest) else lines


@dataclass(frozen=True, slots=True)
class Explanations:
    """Why a scenario's first judge world scores pairs of a user and an item as it does.

    Attributes:
        name: of the scenario.
        pairs: one explanation each.
        names: item id -> what to call it, for items that have a text.
    """

    name: str
    pairs: tuple[Explanation, ...]
    names: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready dictionary."""
        return {"name": self.name, "world": WORLD, "pairs": [one.to_json() for one in self.pairs]}

    def as_text(self, most: int = 10) -> str:
        """For people: of each history and text the `most` parts that moved the score most, in either direction."""
        about = f"{self.name}: what moved the log-odds of liking an item, by {WORLD}; each list sums to its difference"
        return "\n".join([about, *("\n".join(["", *one.as_lines(self.names, most)]) for one in self.pairs)])


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
    rng = stream(root, "preference", "examples")
    rows = split.rows(log, split.users(role, tuning=False), late=True)
    users = np.unique(log.user[rows])
    catalogue = log.catalogue
    text = text_score(model, log, tower, settings, root, cache=cache, folder=folder)
    names = names_of(catalogue)
    told = []
    for user in np.sort(rng.choice(users, min(settings.examples, len(users)), replace=False)):
        mine = rows[log.user[rows] == user]
        best = mine[np.argmax(model.predict(log, split, mine))]
        history = split.histories(log, np.array([user]))
        told.append(explain(model, catalogue, history, int(user), int(log.item[best]), text=text).as_text(names))
    return tuple(told)


def explain_pairs(
    model: PreferenceModel,
    log: InteractionLog,
    split: Split,
    tower: TextTower,
    settings: PreferenceSettings,
    root: np.random.SeedSequence,
    pairs: Sequence[tuple[int, int]],
    *,
    cache: Path | None = None,
    folder: Path = Path(),
    progress: Callable[[float, str], None] = lambda done, words: None,
) -> tuple[Explanation, ...]:
    """Any users' scores of any items, explained; a user's early rows are the history, as in a world.

    Args:
        model: the model of a role.
        log: the log.
        split: tells early rows from late ones.
        tower: the role's text vectors.
        settings: those that both were fitted with.
        root: root of the scenario's streams.
        pairs: indices of a user and an item, each.
        cache: folder for encoders made here, or None.
        folder: of the scenario.
        progress: told the fraction done and a few words.
    """
    text = text_score(model, log, tower, settings, root, cache=cache, folder=folder)
    found = []
    for k, (user, item) in enumerate(pairs):
        progress(k / len(pairs), f"user {log.catalogue.user_ids[user]}, item {log.catalogue.item_ids[item]}")
        history = split.histories(log, np.array([user]))
        found.append(explain(model, log.catalogue, history, user, item, text=text))
    return tuple(found)


def names_of(catalogue: Catalogue) -> dict[str, str]:
    """What to call each item that has a text: its beginning."""
    return {
        name: f"'{words.strip()[:60]}'"
        for name, words in zip(catalogue.item_ids, catalogue.item_text, strict=True)
        if words.strip()
    }


def text_score(
    model: PreferenceModel,
    log: InteractionLog,
    tower: TextTower,
    settings: PreferenceSettings,
    root: np.random.SeedSequence,
    *,
    cache: Path | None,
    folder: Path,
) -> TextScore | None:
    """The encoder as a role's features were made with it; None where the model reads no text."""
    from simulator.encoders.text import encoder_for
    from simulator.preference.fitting import item_features

    if tower.chosen == "ids only" or model.members[0].item_map is None:
        return None
    texts, asked = encoder_texts(log, settings), queries_of(log, settings)
    made = encoder_for(settings.encoder, texts, folder, cache=cache, own=settings.own, root=root)
    text, side = item_features(tower.vectors, log.catalogue, settings)
    both = text.shape[1] > 0 and side.shape[1] > 0  # categories that are the same of all items take no share
    encoder = kept_encoder(tower, log.catalogue.item_text, made, settings, folder, queries=asked)
    return TextScore(encoder, tower.vectors, np.sqrt(0.5) if both else 1.0, settings.max_tokens)


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
        settings.tuning.model_copy(update={"compile": False, "device": "cpu"}), 1,
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

        Word pieces are joined to words. What falls on punctuation and on the encoder's own marks, which are left in, is
        shared by all words, so that the sum is whole.
        """
        import torch
        from captum.attr import LayerIntegratedGradients

        from simulator.encoders.text import mean_pool

        encoded = self._tokenizer(
            text, truncation=True, max_length=self._max_tokens, return_tensors="pt", return_offsets_mapping=True
        )
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
        words, of = words_of(text, encoded["offset_mapping"][0].tolist(), encoded.word_ids(0))
        sums = np.bincount(of[of >= 0], piece[of >= 0], len(words))
        return words, sums + piece[of < 0].sum() / len(words), moved


def words_of(
    text: str, spans: Sequence[Sequence[int]], number: Sequence[int | None]
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Words of a text as they stand there, and to which of them each word piece belongs [T], -1: to none.

    Punctuation belongs to none, nor do marks of the encoder, nor what the tokenizer writes before the text, whose
    pieces are said to stand where the first word stands. Chinese characters are joined no further than the pieces do.
    A text of nothing but punctuation is one word.

    Args:
        text: the text.
        spans: [T] characters of the text, from and to, that a piece stands for.
        number: [T] the tokenizer's number of the word that a piece is part of; None for a mark.
    """
    first = {w: spans[k][0] for k, w in reversed(list(enumerate(number))) if w is not None}
    of = np.full(len(spans), -1)
    found: list[list[int]] = []
    for k, (w, (low, high)) in enumerate(zip(number, spans, strict=True)):
        if w is None or first.get(w + 1, high) < high or all(map(_is_between_words, text[low:high])):
            continue
        joins = k > 0 and of[k - 1] >= 0 and number[k - 1] == w
        if joins and (low < found[-1][1] or not (_stands_alone(text[low]) or _stands_alone(text[low - 1]))):
            found[-1][1] = high
        else:
            found.append([low, high])
        of[k] = len(found) - 1
    if not found:
        return (text.strip(),), np.zeros(len(spans), np.int64)
    return tuple(text[low:high].strip() for low, high in found), of


def _is_between_words(character: str) -> bool:
    """Whether it is a blank or punctuation; ASCII's signs are (as BERT has it), other symbols say something."""
    kind = unicodedata.category(character)
    return kind[0] in "PZ" or kind in ("Cc", "Cf") or (character.isascii() and not character.isalnum())


def _stands_alone(character: str) -> bool:
    """Whether it is written without blanks around words: Chinese characters and kana."""
    return unicodedata.name(character, "").startswith(("CJK", "HIRAGANA", "KATAKANA"))
