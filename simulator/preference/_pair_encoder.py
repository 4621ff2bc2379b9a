"""A BERT that reads a user and an item as one text: cross-encoder, or prompt with the label as a masked word.

Only `simulator.preference.fitting` imports this module, inside its functions. The encoder's own training loop does the
work (`simulator.encoders.tuning`); what is said here is how a pair becomes a text, and a hidden state a logit.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from simulator.encoders.text import load_encoder, tokenize
from simulator.encoders.tuning import EncoderTraining, TunableEncoder, batches_of_like_length, planned_steps
from simulator.errors import InputError
from simulator.log import Catalogue, Histories
from simulator.preference._two_tower import keep_best
from simulator.preference.model import Member
from simulator.preference.problem import Problem, log_loss
from simulator.preference.settings import PreferenceSettings

READ_BATCH = 64
LIKED, OTHER = "liked", "did not like"


class PairTexts:
    """How a user and an item become one text.

    Args:
        catalogue: texts of the items, and names of the public user features.
        tokenizer: of the encoder.
        settings: how many titles, and which architecture.
    """

    def __init__(self, catalogue: Catalogue, tokenizer: Any, settings: PreferenceSettings) -> None:
        self.catalogue, self.titles = catalogue, settings.pairs.titles
        self.between = f" {tokenizer.sep_token} "
        self.prompt = settings.architecture == "prompt"
        # The mask stands first, so that cutting a long pair never loses it.
        self.question = f"it is {tokenizer.mask_token}: " if self.prompt else ""

    def of(
        self,
        history: Histories,
        features: NDArray[np.float32],
        who: NDArray[np.int64],
        item: NDArray[np.int64],
    ) -> list[str]:
        """[m] texts of pairs: rows `who` of the histories and features, and items.

        Item and question stand first, for a text is cut at its end: what is lost of a long one is the oldest title.
        """
        texts = self.catalogue.item_text
        profile: dict[int, str] = {}
        for u in np.unique(who):
            rows = slice(history.start[u], history.start[u + 1])
            latest = list(zip(history.item[rows][::-1], history.primary[rows][::-1], strict=True))[: self.titles]
            parts = [
                f"{word}: {'; '.join(texts[i] for i, y in latest if bool(y) == liked)}"
                for word, liked in ((LIKED, True), (OTHER, False))
                if any(bool(y) == liked for _, y in latest)
            ]
            known = zip(self.catalogue.user_feature_names, features[u], strict=True)
            parts += [name for name, value in known if value > 0]
            profile[int(u)] = "; ".join(parts)
        return [f"{self.question}{texts[i]}{self.between}{profile[int(u)]}" for u, i in zip(who, item, strict=True)]


class Readout(torch.nn.Module):
    """Last hidden states to a logit: a linear map of their mean, or the masked word's, decoded by the word embeddings.

    The encoder in the package has no masked-language head, so its own embeddings are the decoder (tied weights).

    Args:
        width: of the hidden states.
        words: [2, p] embeddings of the words for liked and not liked; None for a linear map.
        place: token that is the mask.
    """

    def __init__(self, width: int, words: torch.Tensor | None, place: int) -> None:
        super().__init__()
        self.place = place
        self.masked = words is not None
        start = torch.zeros(width) if words is None else 0.1 * functional.normalize(words[0] - words[1], dim=0)
        self.direction = torch.nn.Parameter(start)
        self.norm = torch.nn.LayerNorm(width)
        self.level = torch.nn.Parameter(torch.tensor(0.0))

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """[b] what the text adds to the logit."""
        if self.masked:
            state = hidden[:, self.place]
        else:
            state = (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        out: torch.Tensor = self.norm(state) @ self.direction + self.level
        return out


class PairEncoder:
    """A pair encoder in training, on top of the user and item biases: it starts as the bias model.

    Args:
        problem: rows to fit; a fitting user's second half is what is learned, from the first.
        catalogue: of the log.
        offset: the bias model, whose logit each pair's text adds to.
        encoder: folder of the encoder.
        settings: `pairs`, `adaptation`, `tuning` and `robustness`.
        rng: draws rows and batches.

    Raises:
        InputError: no item has text, or the encoder cannot be adapted, or has no mask.
    """

    def __init__(
        self,
        problem: Problem,
        catalogue: Catalogue,
        offset: Member,
        encoder: str,
        settings: PreferenceSettings,
        rng: np.random.Generator,
    ) -> None:
        if not any(text.strip() for text in catalogue.item_text):
            raise InputError(
                f"preference.architecture: '{settings.architecture}' reads item texts, and no item has one; set "
                "data.item_text, or use two_tower"
            )
        tokenizer, model = load_encoder(encoder)
        if tokenizer.mask_token is None or tokenizer.sep_token is None:
            raise InputError(
                f"preference.architecture: '{settings.architecture}' needs an encoder with a mask and a separator, "
                f"which '{Path(encoder).name}' lacks; use two_tower"
            )
        self.problem, self.offset, self.settings, self.rng = problem, offset, settings, rng
        pairs = settings.pairs
        self.texts = PairTexts(catalogue, tokenizer, settings)
        self.past, who, rows = halves(problem)
        draw = rng.permutation(len(who))[: pairs.rows]
        self.who, self.rows = who[draw], rows[draw]
        item = problem.histories.item[self.rows]
        self.outcome = torch.from_numpy(problem.histories.primary[self.rows])
        self.known = torch.from_numpy(self._bias(self.past, problem.features, self.who, item).astype(np.float32))
        # A frozen encoder is one whose top layers are looked at and not moved.
        frozen = settings.adaptation == "frozen"
        tuning = settings.tuning.model_copy(update={"learning_rate": pairs.learning_rate})
        batches = -(-len(self.rows) // pairs.batch_pairs)
        self._tokenizer = tokenizer
        words, place = None, 0
        if settings.architecture == "prompt":  # read now: training all of it cuts the table to the pieces in use
            table = model.get_input_embeddings().weight.detach()
            words = torch.stack([table[self._word(word)] for word in pairs.words])
            marked = tokenize([self.texts.question], tokenizer, pairs.max_tokens)[0]
            place = marked.index(tokenizer.mask_token_id)
        self.encoder = TunableEncoder(
            self.texts.of(self.past, problem.features, self.who, item),
            tokenizer,
            model,
            Path(encoder).name,
            "top_layers" if frozen else settings.adaptation,
            tuning,
            planned_steps(tuning, batches, pairs.passes),
            max_tokens=pairs.max_tokens,
            dropout=settings.robustness.dropout,
        )
        if frozen:
            self.encoder.adapted.trained.requires_grad_(requires_grad=False)
        self.readout = Readout(int(model.config.hidden_size), words, place)
        self.training = EncoderTraining(self.encoder, tuning, batches, pairs.passes, settings.robustness, self.readout)
        chosen = rng.permutation(len(problem.target))[: pairs.tuning_rows]
        self.tuning_rows = np.sort(chosen)

    @property
    def trained_parameters(self) -> int:
        """Number of weights in training."""
        moved = [*self.encoder.adapted.trained.parameters(), *self.readout.parameters()]
        return sum(weight.numel() for weight in moved if weight.requires_grad)

    def train(self, progress: Callable[[float, str], None] | None = None) -> tuple[int, NDArray[np.float64]]:
        """Train to the best pass by the tuning users; its number, and their losses after each pass."""
        problem, rows = self.problem, self.tuning_rows

        def tuning_losses() -> NDArray[np.float64]:
            loss = log_loss(self.tuning_logit(), problem.target[rows])
            return np.bincount(problem.target_user[rows], loss, len(problem.tuning_users)).astype(np.float64)

        def keep() -> Any:
            return copy.deepcopy((self.encoder.adapted.trained.state_dict(), self.readout.state_dict()))

        found = keep_best(
            self._one_pass,
            tuning_losses,
            keep,
            epochs=self.settings.pairs.passes,
            patience=self.settings.tuning.patience,
            targets=len(rows),
            progress=progress,
        )
        encoder, readout = found.kept
        self.encoder.adapted.trained.load_state_dict(encoder)
        self.readout.load_state_dict(readout)
        return found.best, found.losses

    def tuning_logit(self) -> NDArray[np.float64]:
        """[k] logit of the drawn targets of the tuning users."""
        problem, rows = self.problem, self.tuning_rows
        return self.logit(problem.tuning, problem.tuning_features, problem.target_user[rows], problem.target_item[rows])

    def logit(
        self,
        history: Histories,
        features: NDArray[np.float32],
        who: NDArray[np.int64],
        item: NDArray[np.int64],
    ) -> NDArray[np.float64]:
        """[m] logit of pairs: rows `who` of the histories and features, and items."""
        out = self._bias(history, features, who, item)
        ids = tokenize(self.texts.of(history, features, who, item), self._tokenizer, self.settings.pairs.max_tokens)
        order = np.argsort([len(row) for row in ids], kind="stable")
        self.encoder.adapted.trained.eval()
        with torch.inference_mode():
            for low in range(0, len(order), READ_BATCH):
                part = order[low : low + READ_BATCH]
                source, mask = self.encoder.inputs_of([ids[k] for k in part])
                out[part] += self.readout(self.encoder.run(source, mask), mask).numpy()
        return out

    def _one_pass(self) -> float:
        total, count = 0.0, 0
        self.training.train_mode()
        for part in batches_of_like_length(self.encoder.length, self.settings.pairs.batch_pairs, self.rng):
            outcome, known = self.outcome[part], self.known[part]

            def objective(
                hidden: torch.Tensor,
                mask: torch.Tensor,
                outcome: torch.Tensor = outcome,
                known: torch.Tensor = known,
            ) -> tuple[torch.Tensor, torch.Tensor]:
                logit = known + self.readout(hidden, mask)
                return functional.binary_cross_entropy_with_logits(logit, outcome), logit

            total += self.training.step(part, objective, self.rng) * len(part)
            count += len(part)
        self.training.end_pass()
        return total / count

    def _bias(
        self,
        history: Histories,
        features: NDArray[np.float32],
        who: NDArray[np.int64],
        item: NDArray[np.int64],
    ) -> NDArray[np.float64]:
        state = self.offset.fold_in(history, features)
        return state[who, 0].astype(np.float64) + self.offset.item_offset[item]

    def _word(self, word: str) -> int:
        ids: Sequence[int] = self._tokenizer(word, add_special_tokens=False)["input_ids"]
        if len(ids) != 1 or ids[0] == self._tokenizer.unk_token_id:
            raise InputError(
                f"preference.pairs.words: '{word}' is not one piece of this encoder's vocabulary; give a commoner word"
            )
        return int(ids[0])


def halves(problem: Problem) -> tuple[Histories, NDArray[np.int64], NDArray[np.int64]]:
    """First halves of the fitting users' rows as histories; user and place of each row of the second halves."""
    past = problem.histories
    length = np.diff(past.start)
    user = np.repeat(np.arange(len(past)), length)
    first = np.arange(len(user)) - past.start[user] < np.maximum(1, length // 2)[user]
    start = np.concatenate([[0], np.cumsum(np.bincount(user[first], minlength=len(past)))])
    return Histories(start, past.item[first], past.primary[first]), user[~first], np.flatnonzero(~first)
