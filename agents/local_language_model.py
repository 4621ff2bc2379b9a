"""A causal or seq2seq model of the Hugging Face format, run on one thread. Only `language_model` uses it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents.base import AgentError
from agents.language_model import Answer
from simulator.encoders.tuning import one_thread

BATCH = 16
"""Texts scored at a time."""


class LocalModel:
    """Tokenizer and model of a folder.

    Raises:
        AgentError: transformers reads neither a causal nor a seq2seq model from it.
    """

    def __init__(self, folder: str) -> None:
        import transformers
        from transformers.utils import logging

        shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
        logging.disable_progress_bar()
        logging.set_verbosity_error()
        try:
            config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
            self.seq2seq = bool(config.is_encoder_decoder)
            kind = transformers.AutoModelForSeq2SeqLM if self.seq2seq else transformers.AutoModelForCausalLM
            self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self.model: Any = kind.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()
        except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
            first = (str(error).strip().splitlines() or ["no reason given"])[0]
            raise AgentError(
                f"language_model: '{Path(folder).name}' cannot be loaded ({first[:160]}); name a causal or seq2seq one"
            ) from error
        finally:
            logging.set_verbosity(verbosity)
            if shown:
                logging.enable_progress_bar()
        most = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
        self.longest = int(most) if most else 4_096

    def by_likelihood(self, begin: str, texts: list[str]) -> Answer:
        """The texts by the mean log-likelihood of their tokens after the beginning."""
        scores, tokens = [], 0
        with one_thread(0), torch.inference_mode():
            for low in range(0, len(texts), BATCH):
                parts = [self._ids(text)[: self.longest // 2] or [0] for text in texts[low : low + BATCH]]
                # The newest likes stand at the end of the beginning, so a long one is cut in front.
                head = self._asked(begin, self.longest - max(map(len, parts)) - 1)
                tokens += sum(len(head) + len(part) for part in parts)
                scores += self._scores(head, parts)
        order = np.argsort(-np.array(scores), kind="stable")
        return Answer(tuple(int(place) for place in order), tokens, 0)

    def _scores(self, head: list[int], parts: list[list[int]]) -> list[float]:
        width = max(map(len, parts))
        wanted = torch.full((len(parts), width), -100)
        for row, part in enumerate(parts):
            wanted[row, : len(part)] = torch.tensor(part)
        if self.seq2seq:
            asked = torch.tensor([head]).expand(len(parts), -1)
            logits = self.model(input_ids=asked, labels=wanted).logits
        else:
            whole = torch.cat([torch.tensor([head]).expand(len(parts), -1), wanted.clamp(min=0)], dim=1)
            mask = torch.cat([torch.ones(len(parts), len(head)), (wanted >= 0).float()], dim=1).long()
            # The logits at a token are those of the next: the first of a text stands at the end of the beginning.
            logits = self.model(input_ids=whole, attention_mask=mask).logits[:, len(head) - 1 : -1]
        there = wanted >= 0
        chosen = logits.log_softmax(dim=-1).gather(2, wanted.clamp(min=0).unsqueeze(2)).squeeze(2)
        return [float(x) for x in (chosen * there).sum(1) / there.sum(1)]

    def generate(self, asked: str, most: int) -> tuple[str, int, int]:
        """What the model writes after the question, always its likeliest token; tokens of both."""
        most = min(most, self.longest // 2)
        ids = self._asked(asked, self.longest - most)
        with one_thread(0), torch.inference_mode():
            out = self.model.generate(
                torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                max_new_tokens=most,
                do_sample=False,
                num_beams=1,
                pad_token_id=self.tokenizer.pad_token_id or 0,
            )[0].tolist()
        new = out if self.seq2seq else out[len(ids) :]
        return str(self.tokenizer.decode(new, skip_special_tokens=True)), len(ids), len(new)

    def _asked(self, text: str, most: int) -> list[int]:
        """The newest tokens of a question, at most so many with those that its tokenizer puts around a text.

        Models were trained with a beginning, and a seq2seq model's encoder with an end; a causal one goes on writing.
        """
        bare, whole = self._ids(text), [int(token) for token in self.tokenizer(text)["input_ids"]]
        starts = range(len(whole) - len(bare) + 1)
        start = next((k for k in starts if whole[k : k + len(bare)] == bare), 0)
        before, after = whole[:start], whole[start + len(bare) :] if self.seq2seq else []
        room = max(1, most - len(before) - len(after))
        return [*before, *bare[-room:], *after] or [0]

    def _ids(self, text: str) -> list[int]:
        return [int(token) for token in self.tokenizer(text, add_special_tokens=False)["input_ids"]]
