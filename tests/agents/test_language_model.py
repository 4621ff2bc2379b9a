"""A language model as an agent: a tiny random model in a folder, and a stub of an endpoint.

Sabotaged once, each seen red: log-likelihoods shifted by a token, numbers counted from 0, a question too many.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agents.base import AgentError, AgentLimitError
from agents.contract import check_agent
from agents.language_model import LanguageModel, numbers_in, question
from agents.loading import resolve_kind, train
from agents.local_language_model import LocalModel
from agents.settings import AgentSettings
from agents.wrapping import Wrapping, best_of
from simulator.errors import InputError
from simulator.log import InteractionLog
from simulator.world import World
from tests.agents.taught_world import ITEMS, observed, taught_world, training_in
from tests.agents.test_remote import answering

WORDS = ["item", "Someone", "liked", "these", "oldest", "first", ":", ";", ".", ",", *map(str, range(ITEMS))]


@pytest.fixture(scope="module")
def world_and_log() -> tuple[World, InteractionLog]:
    return taught_world()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A causal and a seq2seq model with random weights and a vocabulary of whole words."""
    import tokenizers
    import transformers

    words = {word: at for at, word in enumerate(["[PAD]", "[UNK]", "[EOS]", *WORDS])}
    plain = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    plain.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="[PAD]", unk_token="[UNK]", eos_token="[EOS]"
    )
    folder = tmp_path_factory.mktemp("models")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        causal = transformers.GPT2Config(
            vocab_size=len(words), n_positions=128, n_embd=16, n_layer=1, n_head=2, eos_token_id=2, bos_token_id=2,
            initializer_range=0.5,
        )  # fmt: skip
        transformers.GPT2LMHeadModel(causal).save_pretrained(folder / "causal")
        seq2seq = transformers.T5Config(
            vocab_size=len(words), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0,
            initializer_factor=1.0,
        )  # fmt: skip
        transformers.T5ForConditionalGeneration(seq2seq).save_pretrained(folder / "seq2seq")
    for name in ("causal", "seq2seq"):
        tokenizer.save_pretrained(folder / name)
    return {name: folder / name for name in ("causal", "seq2seq")}


def made(world_and_log: tuple[World, InteractionLog], **params: Any) -> LanguageModel:
    entry = AgentSettings.model_validate({"name": "one", "kind": "language_model", "params": params})
    agent = train(entry, training_in(*world_and_log), Path()).agent
    assert isinstance(agent, LanguageModel)
    return agent


@pytest.mark.parametrize("name", ["causal", "seq2seq"])
def test_likelihoods_are_those_of_one_text_at_a_time(name: str, models: dict[str, Path]) -> None:
    model = LocalModel(str(models[name]))
    begin, texts = "Someone liked these : item 3 ; item 4 .", [
        "item 7", "item 8 , item 9", "item", "item 10 . item", *(f"item {k}" for k in range(20, 30)),
    ]  # fmt: skip

    def alone(text: str) -> float:
        head, part = (model.tokenizer(t)["input_ids"] for t in (begin, text))
        if name == "seq2seq":
            return -model.model(input_ids=torch.tensor([head]), labels=torch.tensor([part])).loss.item()
        logits = model.model(torch.tensor([head + part])).logits[0].log_softmax(-1)
        return float(np.mean([float(logits[len(head) - 1 + k, token].detach()) for k, token in enumerate(part)]))

    expected = np.argsort([-alone(text) for text in texts])
    assert model.by_likelihood(begin, texts).order == tuple(expected.tolist())
    assert model.by_likelihood(begin, texts[::-1]).order == tuple((len(texts) - 1 - expected).tolist())


def test_a_question_has_the_tokens_that_its_tokenizer_puts_around_a_text_also_where_it_is_cut(
    models: dict[str, Path],
) -> None:
    import tokenizers

    around = tokenizers.processors.TemplateProcessing(single="[EOS] $A [EOS]", special_tokens=[("[EOS]", 2)])
    for name, end in (("causal", []), ("seq2seq", [2])):
        model = LocalModel(str(models[name]))
        bare = model.tokenizer("item 3 ; item 4")["input_ids"]
        assert model._asked("item 3 ; item 4", 9) == bare
        model.tokenizer.backend_tokenizer.post_processor = around
        assert model._asked("item 3 ; item 4", 9) == [2, *bare, *end]
        assert model._asked("item 3 ; item 4", 4) == [2, *bare[-3 + len(end) :], *end]


@pytest.mark.parametrize(
    ("name", "ranking"), [("causal", "likelihood"), ("seq2seq", "generated"), ("causal", "generated")]
)
def test_a_model_in_a_folder_keeps_the_contract_and_orders_the_shortlist(
    name: str, ranking: str, models: dict[str, Path], world_and_log: tuple[World, InteractionLog]
) -> None:
    seen = observed(world_and_log[0], 4)
    agent = made(world_and_log, model=str(models[name]), ranking=ranking, max_new_tokens=8, pool=2)
    check_agent(agent, seen, ITEMS)
    shortlist = best_of(agent.agent, seen, np.random.default_rng(0), ITEMS, 2)
    slates = agent.act(seen, np.random.default_rng(0))
    assert all(set(slate) <= set(listed) for slate, listed in zip(slates.tolist(), shortlist.tolist(), strict=True))
    if ranking == "likelihood":
        assert slates.tolist() != shortlist[:, :4].tolist()
        assert agent.usage.cost == 0
        assert agent.usage.tokens_in > 0


def replying(said: str, status: int = 200) -> Any:
    body = {"choices": [{"message": {"content": said}}], "usage": {"prompt_tokens": 100, "completion_tokens": 10}}
    return lambda asked: (status, json.dumps(body).encode())


def test_an_endpoint_is_asked_once_for_equal_questions_and_what_it_costs_is_counted(
    world_and_log: tuple[World, InteractionLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_TOKEN", "secret")
    seen = observed(world_and_log[0], 3)
    with answering(replying("3, 1 and then 99")) as (url, asked):
        agent = made(
            world_and_log, model="stub", endpoint=url.replace("/rank", "/v1"), price_in=2.0, price_out=6.0, pool=2,
            token_env="MODEL_TOKEN",
        )  # fmt: skip
        slates = agent.act(seen, np.random.default_rng(0))
        again = agent.act(seen, np.random.default_rng(0))
    shortlist = best_of(agent.agent, seen, np.random.default_rng(0), ITEMS, 2)
    assert slates.tolist() == [[row[2], row[0], row[1], row[3]] for row in shortlist.tolist()]
    assert np.array_equal(slates, again)
    usage = agent.usage
    assert (usage.requests, usage.cached, len(asked)) == (3, 3, 3)
    assert (usage.tokens_in, usage.tokens_out) == (300, 30)
    assert usage.cost == pytest.approx(3 * (0.2 + 0.06))
    assert agent.account() == ("6 questions, 600 tokens in and 60 out, 1.56 by its prices where no answer was kept")
    assert Wrapping([Wrapping([agent]), object()]).account() == agent.account()  # type: ignore[list-item]
    assert asked[0]["authorization"] == "Bearer secret"
    assert asked[0]["temperature"] == 0
    row = seen.history_items[0][(seen.history_items[0] >= 0) & (seen.history_feedback[0] > 0)]
    liked = "; ".join(f"item {i}" for i in row[-10:]) or "nothing yet"
    begin = f"Someone liked these, oldest first: {liked}.\n"
    assert asked[0]["messages"][0]["content"] == question(begin, [f"item {i}" for i in shortlist[0]])


def test_a_budget_of_questions_ends_the_agent_and_a_rate_makes_it_wait(
    world_and_log: tuple[World, InteractionLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("agents.language_model.time.sleep", slept.append)
    seen = observed(world_and_log[0], 3)
    with answering(replying("1")) as (url, asked):
        agent = made(world_and_log, model="budget", endpoint=url, most_requests=2, requests_per_minute=6)
        with pytest.raises(AgentLimitError, match=r"2 questions are used up \(params.most_requests\)"):
            agent.act(seen, np.random.default_rng(0))
    assert len(asked) == 2
    assert len(slept) == 1
    assert 5 < slept[0] <= 10


def test_a_rate_holds_for_all_processes_and_for_tries_and_a_service_that_asks_for_time_gets_it(
    world_and_log: tuple[World, InteractionLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("agents.language_model.time.sleep", slept.append)
    states = iter([200, 429, 200])
    seen = observed(world_and_log[0], 1)
    with answering(lambda asked: replying("1", next(states))(asked), {"Retry-After": "7"}) as (url, asked):
        for pool in (2, 3):
            agent = made(world_and_log, model="rate", endpoint=url, requests_per_minute=6, pool=pool)
            pickle.loads(pickle.dumps(agent)).act(seen, np.random.default_rng(0))  # as in another process
    assert len(asked) == 3
    turns = [seconds for seconds in slept if seconds != 7]
    assert len(slept) - len(turns) == 1
    assert len(turns) == 2
    assert all(5 < seconds <= 10 for seconds in turns)


def test_answers_that_name_no_item_are_counted(world_and_log: tuple[World, InteractionLog]) -> None:
    seen = observed(world_and_log[0], 2)
    with answering(replying("I would rather not")) as (url, _):
        agent = made(world_and_log, model="mute", endpoint=url)
        slates = agent.act(seen, np.random.default_rng(0))
    np.testing.assert_array_equal(slates, agent.agent.act(seen, np.random.default_rng(0)))
    assert agent.account().endswith("out; 2 answers named no item, so that the shortlist's order stood")


def test_an_answer_without_text_is_one_line(world_and_log: tuple[World, InteractionLog]) -> None:
    with answering(lambda asked: (200, b'{"error": "busy"}')) as (url, _):
        agent = made(world_and_log, model="nonsense", endpoint=url)
        with pytest.raises(AgentError, match=r"has no choices\[0\].message.content"):
            agent.act(observed(world_and_log[0], 1), np.random.default_rng(0))


def test_numbers_of_an_answer_are_places_once_each() -> None:
    assert numbers_in("2, 1, 2, 9, 0, 3", 3) == (1, 0, 2)
    assert numbers_in("none of them", 3) == ()


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({}, "model: missing"),
        ({"model": "x", "endpoint": "http://a/v1", "ranking": "likelihood"}, "an endpoint gives no likelihood"),
        ({"model": "x", "endpoint": "http://a/v1", "prompt": "Hello"}, "has no {liked}"),
        ({"model": "./nowhere"}, "agents[0].params.model: './nowhere' is neither a known name nor a folder"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_trains(params: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as refused:
        resolve_kind(AgentSettings(name="x", kind="language_model", params=params), Path(), where="agents[0]")
    assert said in str(refused.value)


def test_what_the_model_has_seen_must_be_said(models: dict[str, Path]) -> None:
    entry = AgentSettings(name="x", kind="language_model", params={"model": str(models["causal"])})
    assert not resolve_kind(entry, Path()).fitted_here
