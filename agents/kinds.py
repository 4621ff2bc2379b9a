"""The built-in kinds of agent, by name: the one table that lists, scenarios and loading read."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["KINDS", "Kind", "family_of", "known_families"]


@dataclass(frozen=True, slots=True)
class Kind:
    """A built-in kind of agent, named by strings so that nothing is imported before a scenario asks for it.

    Attributes:
        agent: "module:Class" of the agent; it is built from its settings model.
        settings: "module:Class" of that model: the known `params`.
        about: one line for people.
        family: for grouping in lists: bound, baseline, bandit, value_rl, deep_rl, offline_rl, recbole, causal, fair,
            multimodal, ensemble, meta.
        learns: training depends on draws, so it is repeated with several seeds.
        fits: it reads the train rows (all that learn do).
        needs: what the log must hold beside users, items and the primary behaviour, a key of `agents.needs.NEEDS`;
            empty: nothing.
        paper: authors and year of the algorithm; empty for what needs none.
        online: it can go on learning while it is judged (`params.online`).
        steps: it learns in steps, along a learning curve, so that it can be stopped early (`train.early_stopping`).
        elsewhere: what it knows was learned outside this run, so the scenario must say from what (`trained_on`).
        rewarded: what it learns from is the reward, whatever `simulator.reward` is; others that learn do from clicks.
    """

    agent: str
    settings: str
    about: str
    family: str
    learns: bool = False
    fits: bool = True
    needs: str = ""
    paper: str = ""
    online: bool = False
    steps: bool = False
    elsewhere: bool = False
    rewarded: bool = False

    @property
    def line(self) -> str:
        """All of it for people: family, what it is, what it needs, its paper."""
        more = [f"needs {self.needs}"] if self.needs else []
        more += ["can learn online"] if self.online else []
        more += [self.paper] if self.paper else []
        return f"[{self.family}] {self.about}" + (f" ({'; '.join(more)})" if more else "")


SERVICE = "http://HOST"
"""The row of the agents whose kind is the address of a service."""

USERS_OWN = "user"
"""Family of the agents that are no built-in kind."""

KINDS: dict[str, Kind] = {
    "random": Kind(
        "agents.baselines:Random", "agents.baselines:NoSettings", "any candidates in any order", "baseline", fits=False
    ),
    "popularity": Kind(
        "agents.baselines:Popularity",
        "agents.baselines:PopularitySettings",
        "the items that most users of the train rows liked",
        "baseline",
    ),
    "recent": Kind(
        "agents.rankings:Recent",
        "agents.rankings:RecentSettings",
        "what was liked lately in the train rows",
        "baseline",
        needs="times",
    ),
    "segment_popularity": Kind(
        "agents.rankings:SegmentPopularity",
        "agents.rankings:SegmentPopularitySettings",
        "what users with alike public features liked, shrunk to what everyone liked",
        "baseline",
        learns=True,
        needs="user features",
    ),
    "cooccurrence": Kind(
        "agents.rankings:Cooccurrence",
        "agents.rankings:CooccurrenceSettings",
        "what others liked who liked the user's newest likes",
        "baseline",
        paper="Linden et al. 2003",
    ),
    "content": Kind(
        "agents.rankings:Content",
        "agents.rankings:ContentSettings",
        "items whose text, or categories where none has text, are nearest to those of the user's newest likes",
        "baseline",
        needs="item text or categories",
        paper="Pazzani & Billsus 2007",
    ),
    "logged": Kind(
        "agents.rankings:Logged",
        "agents.baselines:NoSettings",
        "each item as often as the log showed it",
        "baseline",
        needs="a log of exposure",
    ),
    "oracle": Kind(
        "agents.baselines:Oracle",
        "agents.baselines:NoSettings",
        "greedy on the judge world's own appeal: a bound, not a policy",
        "bound",
        fits=False,
    ),
    "linucb": Kind(
        "agents.bandits:LinUCB",
        "agents.bandits:LinUCBSettings",
        "linear bandit with confidence bounds, learns click by click in the train world",
        "bandit",
        learns=True,
        steps=True,
        paper="Li et al. 2010",
        online=True,
    ),
    "epsilon_greedy": Kind(
        "agents.bandits:EpsilonGreedy",
        "agents.bandits:EpsilonGreedySettings",
        "linear bandit that shows the highest mean and now and then a slate at random",
        "bandit",
        learns=True,
        steps=True,
        paper="Sutton & Barto 2018",
        online=True,
    ),
    "linear_thompson": Kind(
        "agents.bandits:LinearThompson",
        "agents.bandits:ThompsonSettings",
        "linear bandit that serves each user by one draw from its posterior",
        "bandit",
        learns=True,
        steps=True,
        paper="Agrawal & Goyal 2013",
        online=True,
    ),
    "logistic_thompson": Kind(
        "agents.bandits:LogisticThompson",
        "agents.bandits:LogisticThompsonSettings",
        "the same with a logistic model",
        "bandit",
        learns=True,
        steps=True,
        paper="Chapelle & Li 2011",
        online=True,
    ),
    "slate_thompson": Kind(
        "agents.bandits:SlateThompson",
        "agents.bandits:ThompsonSettings",
        "linear Thompson sampling with a draw of its own for each place of the slate",
        "bandit",
        learns=True,
        steps=True,
        paper="Dimakopoulou et al. 2019",
        online=True,
    ),
    "hybrid_linucb": Kind(
        "agents.item_bandits:HybridLinUCB",
        "agents.item_bandits:HybridLinUCBSettings",
        "linear bandit with coefficients shared by all items and others of each item's own",
        "bandit",
        learns=True,
        steps=True,
        paper="Li et al. 2010",
        online=True,
    ),
    "cascade_ucb": Kind(
        "agents.bandits:CascadeUCB",
        "agents.bandits:LinUCBSettings",
        "linear bandit with confidence bounds that learns down to the last click",
        "bandit",
        learns=True,
        steps=True,
        paper="Zong et al. 2016",
        online=True,
    ),
    "neural_linear": Kind(
        "agents.neural_linear:NeuralLinear",
        "agents.neural_linear:NeuralLinearSettings",
        "linear Thompson sampling with features that a network finds in state and item",
        "bandit",
        learns=True,
        steps=True,
        paper="Riquelme et al. 2018",
        online=True,
    ),
    "q_learning": Kind(
        "agents.q_learning:QLearning",
        "agents.q_learning:TabularSettings",
        "table of which group of items to show next, by part of the session and clicks on the user's favourites",
        "value_rl",
        learns=True,
        steps=True,
        paper="Watkins & Dayan 1992",
        rewarded=True,
    ),
    "sarsa": Kind(
        "agents.q_learning:Sarsa",
        "agents.q_learning:TabularSettings",
        "the same table, with the value of what is really done next",
        "value_rl",
        learns=True,
        steps=True,
        paper="Rummery & Niranjan 1994",
        rewarded=True,
    ),
    "linear_q": Kind(
        "agents.q_learning:LinearQ",
        "agents.q_learning:LinearQSettings",
        "Q linear in features of user and item, by least squares on the click and what may follow",
        "value_rl",
        learns=True,
        steps=True,
        paper="Ernst et al. 2005",
    ),
    "recbole:MODEL": Kind(
        "agents.recbole:RecBole",
        "agents.recbole_training:RecBoleSettings",
        "any model of RecBole by its name (EASE, BPR, SASRec, NFM, RippleNet, ...), trained by it on the liked rows",
        "recbole",
        learns=True,
        steps=True,
        paper="Zhao et al. 2021",
    ),
    "dqn": Kind(
        "agents.deep_rl:DQN",
        "agents.deep_rl:DQNSettings",
        "deep Q-network (Stable-Baselines3) on features of user and item, slates by the highest Q",
        "deep_rl",
        learns=True,
        steps=True,
        paper="Mnih et al. 2015",
    ),
    "qr_dqn": Kind(
        "agents.deep_rl:QRDQN",
        "agents.deep_rl:QRDQNSettings",
        "DQN that learns quantiles of the return (sb3-contrib), slates by their mean or by the lowest of them",
        "deep_rl",
        learns=True,
        steps=True,
        paper="Dabney et al. 2018",
    ),
    "bert_q": Kind(
        "agents.bert_q:BertQ",
        "agents.bert_q:BertQSettings",
        "double duelling n-step DQN that knows items by a BERT fine-tuned on the log",
        "value_rl",
        learns=True,
        steps=True,
        needs="item text",
        paper="Mnih et al. 2015; He et al. 2016",
    ),
    "slate_q": Kind(
        "agents.slate_q:SlateQ",
        "agents.slate_q:SlateQSettings",
        "long-term values of items and a model of what will be chosen make the value of a slate",
        "value_rl",
        learns=True,
        steps=True,
        paper="Ie et al. 2019",
    ),
    "ppo": Kind(
        "agents.proto_actions:PPO",
        "agents.proto_actions:PPOSettings",
        "PPO (Stable-Baselines3) with a continuous proto-action, slates by the nearest items",
        "deep_rl",
        learns=True,
        steps=True,
        paper="Schulman et al. 2017",
    ),
    "a2c": Kind(
        "agents.proto_actions:A2C",
        "agents.proto_actions:A2CSettings",
        "A2C (Stable-Baselines3) with a continuous proto-action, slates by the nearest items",
        "deep_rl",
        learns=True,
        steps=True,
        paper="Mnih et al. 2016; Dulac-Arnold et al. 2015",
    ),
    "sac": Kind(
        "agents.proto_actions:SAC",
        "agents.proto_actions:SACSettings",
        "SAC (Stable-Baselines3) with a continuous proto-action, slates by the nearest items",
        "deep_rl",
        learns=True,
        steps=True,
        paper="Haarnoja et al. 2018; Dulac-Arnold et al. 2015",
    ),
    "td3": Kind(
        "agents.proto_actions:TD3",
        "agents.proto_actions:TD3Settings",
        "TD3 (Stable-Baselines3) with a continuous proto-action, slates by the nearest items",
        "deep_rl",
        learns=True,
        steps=True,
        paper="Fujimoto et al. 2018; Dulac-Arnold et al. 2015",
    ),
    "maskable_ppo": Kind(
        "agents.shortlist:MaskablePPO",
        "agents.shortlist:MaskablePPOSettings",
        "PPO with masks (sb3-contrib) that learns to order a shortlist retrieved for each state",
        "deep_rl",
        learns=True,
        steps=True,
        paper="Huang and Ontañón 2022",
    ),
    "reinforce": Kind(
        "agents.reinforce:Reinforce",
        "agents.reinforce:ReinforceSettings",
        "softmax over the catalogue by REINFORCE with top-K off-policy correction, from the log and the train world",
        "deep_rl",
        learns=True,
        steps=True,
        paper="Chen et al. 2019",
    ),
    "behaviour_cloning": Kind(
        "agents.offline:BehaviourCloning",
        "agents.offline:BehaviourCloningSettings",
        "shows what the log's users would most likely have taken next, or the best of them",
        "offline_rl",
        learns=True,
        steps=True,
        paper="Pomerleau 1989",
    ),
    "cql": Kind(
        "agents.offline:CQL",
        "agents.offline:CQLSettings",
        "conservative Q-learning from the log's rows: what the log never tried is not thought to be good",
        "offline_rl",
        learns=True,
        steps=True,
        paper="Kumar et al. 2020",
    ),
    "iql": Kind(
        "agents.offline:IQL",
        "agents.offline:IQLSettings",
        "implicit Q-learning from the log's rows: imitates them by the exponential of their advantage",
        "offline_rl",
        learns=True,
        steps=True,
        paper="Kostrikov et al. 2021",
    ),
    "decision_transformer": Kind(
        "agents.decision_transformer:DecisionTransformer",
        "agents.decision_transformer:DecisionTransformerSettings",
        "causal sequence model of returns, states and items of the log, asked for what earns a high return",
        "offline_rl",
        learns=True,
        steps=True,
        paper="Chen et al. 2021",
    ),
    "multimodal": Kind(
        "agents.multimodal:Multimodal",
        "agents.multimodal:MultimodalSettings",
        "text, categories, numbers, pictures and sounds of an item fused into one vector, learned from the log",
        "multimodal",
        learns=True,
        steps=True,
        needs="text, categories or data.modalities",
        paper="fusion by gates: Arevalo et al. 2017",
    ),
    "mmr": Kind(
        "agents.diversity:MMR",
        "agents.diversity:DiversitySettings",
        "any other agent's best items, relevance against likeness to those above",
        "ensemble",
        needs="item text or categories",
        paper="Carbonell, Goldstein 1998",
    ),
    "dpp": Kind(
        "agents.diversity:DPP",
        "agents.diversity:DiversitySettings",
        "any other agent's best items, a slate of greatest determinant",
        "ensemble",
        needs="item text or categories",
        paper="Chen, Zhang, Zhou 2018",
    ),
    "mixture": Kind(
        "agents.mixture:Mixture",
        "agents.mixture:MixtureSettings",
        "a bandit over other agents: each user is served by the one that earns most with such users",
        "ensemble",
        learns=True,
        steps=True,
        paper="Agrawal, Goyal 2013; Auer et al. 2002",
        rewarded=True,
    ),
    "rules": Kind(
        "agents.rules:Rules",
        "agents.rules:RulesSettings",
        "any other agent under rules of what is never, only or always shown to whom",
        "ensemble",
    ),
    "maml": Kind(
        "agents.meta:MAML",
        "agents.meta:MetaSettings",
        "a start from which a few gradient steps on a user's history go far, by second-order gradients",
        "meta",
        learns=True,
        steps=True,
        paper="Finn et al. 2017, Lee et al. 2019",
    ),
    "anil": Kind(
        "agents.meta:ANIL",
        "agents.meta:MetaSettings",
        "the same, of which a user's steps change the last layer alone",
        "meta",
        learns=True,
        steps=True,
        paper="Raghu et al. 2020",
    ),
    "meta_sgd": Kind(
        "agents.meta:MetaSGD",
        "agents.meta:MetaSettings",
        "the same with a learned step for every parameter",
        "meta",
        learns=True,
        steps=True,
        paper="Li et al. 2017",
    ),
    "reptile": Kind(
        "agents.meta:Reptile",
        "agents.meta:MetaSettings",
        "the same start moved to where the users' steps end, without second-order gradients",
        "meta",
        learns=True,
        steps=True,
        paper="Nichol et al. 2018",
    ),
    "prototypical": Kind(
        "agents.meta:Prototypical",
        "agents.meta:MetaSettings",
        "items nearer to the mean of what a user liked than of what he did not, in a learned space",
        "meta",
        learns=True,
        steps=True,
        paper="Snell et al. 2017",
    ),
    "fine_tuned": Kind(
        "agents.meta:FineTuned",
        "agents.meta:MetaSettings",
        "the network of `maml` fitted to everyone's rows, then fine-tuned to a user's history",
        "meta",
        learns=True,
        steps=True,
        paper="Lee et al. 2019",
    ),
    "from_scratch": Kind(
        "agents.meta:FromScratch",
        "agents.meta:MetaSettings",
        "the network of `maml` with random weights, trained on a user's history alone",
        "meta",
        learns=True,
        paper="Lee et al. 2019",
    ),
    "uplift": Kind(
        "agents.uplift:Uplift",
        "agents.uplift:UpliftSettings",
        "shows one agent's slate to those whom it moves, by causalml's estimated effect, and another's to the rest",
        "causal",
        learns=True,
        paper="Künzel et al. 2019",
    ),
    "debiased": Kind(
        "agents.debiased:Debiased",
        "agents.debiased:DebiasedSettings",
        "matrix factorisation of the train rows with inverse-propensity weights",
        "causal",
        learns=True,
        paper="Schnabel et al. 2016",
    ),
    "language_model": Kind(
        "agents.language_model:LanguageModel",
        "agents.language_model:LanguageModelSettings",
        "orders any other agent's best items as a language model would: a folder, or an OpenAI-compatible endpoint",
        "language",
        needs="item text",
        paper="Hou et al. 2024; Sileo et al. 2022",
        fits=False,
        elsewhere=True,
    ),
    SERVICE: Kind(
        "agents.remote:Remote",
        "agents.remote:RemoteSettings",
        "a ranking service of your own, asked in JSON at that address (http or https)",
        "service",
        fits=False,
        elsewhere=True,
    ),
    "rerank:AGENT": Kind(
        "agents.rerank:Rerank",
        "agents.rerank:RerankSettings",
        "any other agent under a constraint: exposure parity, calibration, or a reduction",
        "fair",
        paper="Singh & Joachims 2018",
    ),
}
"""Built-in kinds by name. `recbole:MODEL` and `rerank:AGENT` are rows too: what follows their prefix is a parameter."""


def family_of(kind: str) -> str:
    """Family of a kind of agent; `user` for one that is not built in."""
    known = _built_in(kind)
    return known.family if known else USERS_OWN


def learns_clicks(kind: str) -> bool:
    """Whether a kind of agent is built in and learns from clicks, whatever the reward is."""
    known = _built_in(kind)
    return known is not None and known.learns and not known.rewarded


def _built_in(kind: str) -> Kind | None:
    """The built-in kind, also of one that is written with a model or an agent behind a prefix."""
    prefixes = (name for name in KINDS if kind.startswith(name.partition(":")[0] + ":"))
    return KINDS.get(kind) or next((KINDS[name] for name in prefixes), None)


def known_families() -> list[str]:
    """Families of agents, `user` among them."""
    return sorted({kind.family for kind in KINDS.values()} | {USERS_OWN})
