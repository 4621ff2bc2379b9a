"""What of a pretrained encoder is trained: its top layers, all of it, or small matrices put beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from warnings import catch_warnings, simplefilter

import torch

from simulator.encoders.settings import Adaptation, TuningSettings
from simulator.errors import InputError

LAYER_PATHS = ("encoder.layer", "transformer.layer", "encoder.layers", "layers")
"""Where BERT, RoBERTa, ELECTRA (the first), DistilBERT (the second) and their kin keep their layers."""
BOTTLENECK_AFTER = ("attention.output.dense", "output.dense", "attention.out_lin", "ffn.lin2")
"""Ends of the names of the linear maps that close a sublayer, in BERT's kin and in DistilBERT."""
SMALL = 0.02
"""Spread of the weights that are put beside the encoder: BERT's own initialisation."""


@dataclass(frozen=True, slots=True)
class Adapted:
    """An encoder of which some weights are in training.

    Attributes:
        below: the encoder up to the cut, frozen: token ids to hidden states; None where the embeddings are its input.
        embed: token ids to word embeddings [b, T, p]; None where there is a cut.
        run: hidden states at the cut, or word embeddings, and mask [b, T] to the last hidden states.
        trained: the module whose modes and weights training changes.
        groups: the optimiser's parameter groups, a rate in each.
        penalty: what the weights themselves add to the loss; None for nothing.
        after_step: told the number of each step once the weights have moved; None for nothing.
        plain: the encoder as a transformers model that holds what was learned, where it can.
    """

    below: Any
    embed: Any
    run: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    trained: torch.nn.Module
    groups: list[dict[str, Any]]
    penalty: Callable[[], torch.Tensor] | None = None
    after_step: Callable[[int], None] | None = None
    plain: Callable[[], Any] | None = None

    def parameters(self) -> list[torch.nn.Parameter]:
        """The weights in training."""
        return [weight for group in self.groups for weight in group["params"]]


def adapt(model: Any, name: str, adaptation: Adaptation, tuning: TuningSettings, steps: int) -> Adapted:
    """Make a transformers encoder ready for training; the model given is taken apart and not to be used again.

    LoRA (Hu et al., 2022), AdaLoRA (Zhang et al., 2023) and prefix tuning (Li and Liang, 2021) are peft's; bottleneck
    adapters (Houlsby et al., 2019) after each sublayer are ours, for peft has none.

    Args:
        model: the encoder, as `load_encoder` gives it.
        name: its name, for errors.
        adaptation: what is trained.
        tuning: ranks, widths, rates.
        steps: steps that training will take, which AdaLoRA's schedule needs.

    Raises:
        InputError: the encoder cannot be adapted so.
    """
    if getattr(model, "pooler", None) is not None:
        model.pooler = None  # never read: vectors are the mean over the tokens
    model.requires_grad_(requires_grad=False)
    if adaptation == "top_layers":
        return _top_layers(model, name, tuning)
    if adaptation == "full":
        return _full(model, name, tuning)
    if adaptation == "adapter":
        return _adapter(model, name, tuning)
    return _by_peft(model, name, adaptation, tuning, steps)


def _top_layers(model: Any, name: str, tuning: TuningSettings) -> Adapted:
    parent, attribute, layers = find_layers(model, name)
    cut = max(len(layers) - tuning.top_layers, 0)
    top = layers[cut:]
    setattr(parent, attribute, layers[:cut])
    top.requires_grad_(requires_grad=True)

    def plain() -> Any:
        setattr(parent, attribute, torch.nn.ModuleList([*getattr(parent, attribute), *top]))
        return model

    return Adapted(
        model, None, lambda hidden, mask: run_layers(top, hidden, mask), top, _by_depth(top, tuning), plain=plain
    )


def _full(model: Any, name: str, tuning: TuningSettings) -> Adapted:
    layers = find_layers(model, name)[2]
    model.requires_grad_(requires_grad=True)
    groups = _by_depth(layers, tuning)
    inside = {id(weight) for group in groups for weight in group["params"]}
    rest = [weight for weight in model.parameters() if id(weight) not in inside]
    groups.append({"params": rest, "lr": tuning.learning_rate * tuning.layer_decay ** len(layers)})
    return Adapted(
        None, model.get_input_embeddings(), lambda hidden, mask: _whole(model, hidden, mask), model, groups,
        plain=lambda: model,
    )  # fmt: skip


def _by_depth(layers: Any, tuning: TuningSettings) -> list[dict[str, Any]]:
    return [
        {"params": list(layer.parameters()), "lr": tuning.learning_rate * tuning.layer_decay**depth}
        for depth, layer in enumerate(reversed(layers))
    ]


class Bottleneck(torch.nn.Module):
    """A linear map with a narrow detour behind it that starts as nothing: y + U gelu(D y), U = 0."""

    def __init__(self, linear: torch.nn.Linear, width: int) -> None:
        super().__init__()
        self.linear = linear
        self.down = torch.nn.Linear(linear.out_features, width, device=linear.weight.device)
        self.up = torch.nn.Linear(width, linear.out_features, device=linear.weight.device)
        torch.nn.init.normal_(self.down.weight, std=SMALL)
        for start_at_zero in (self.down.bias, self.up.weight, self.up.bias):
            torch.nn.init.zeros_(start_at_zero)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """The map, and what the detour adds to it."""
        out = self.linear(hidden)
        change: torch.Tensor = self.up(torch.nn.functional.gelu(self.down(out)))
        return out + change


def _adapter(model: Any, name: str, tuning: TuningSettings) -> Adapted:
    closing = [
        path
        for path, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and path.endswith(BOTTLENECK_AFTER)
    ]
    if not closing:
        raise _cannot_adapt("adapter", name)
    learned: list[torch.nn.Parameter] = []
    for path in closing:
        parent, _, attribute = path.rpartition(".")
        bottleneck = Bottleneck(model.get_submodule(path), tuning.adapter_width)
        setattr(model.get_submodule(parent), attribute, bottleneck)
        learned += [*bottleneck.down.parameters(), *bottleneck.up.parameters()]
    groups = [{"params": learned, "lr": tuning.learning_rate}]
    return Adapted(None, model.get_input_embeddings(), lambda hidden, mask: _whole(model, hidden, mask), model, groups)


def _by_peft(model: Any, name: str, adaptation: Adaptation, tuning: TuningSettings, steps: int) -> Adapted:
    import peft

    embed = model.get_input_embeddings()
    config: Any
    if adaptation == "prefix":
        config = peft.PrefixTuningConfig(
            num_virtual_tokens=tuning.prefix_tokens,
            task_type="FEATURE_EXTRACTION",
            token_dim=model.config.hidden_size,
            num_layers=model.config.num_hidden_layers,
            num_attention_heads=model.config.num_attention_heads,
        )
    elif adaptation == "lora":
        config = peft.LoraConfig(r=tuning.rank, lora_alpha=2 * tuning.rank, target_modules="all-linear")
    else:
        last = max(1, steps // 5)
        config = peft.AdaLoraConfig(
            init_r=-(-3 * tuning.rank // 2),
            target_r=tuning.rank,
            lora_alpha=2 * tuning.rank,
            target_modules="all-linear",
            total_step=max(steps, 3),
            tinit=steps // 10,
            tfinal=min(last, max(steps, 3) - steps // 10 - 1),
            deltaT=max(1, steps // 50),
        )
    try:
        with catch_warnings():
            simplefilter("ignore")  # peft's own advice on names, of which the user chose none
            wrapped = peft.get_peft_model(model, config)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise _cannot_adapt(adaptation, name) from error
    learned = [weight for weight in wrapped.parameters() if weight.requires_grad]
    groups = [{"params": learned, "lr": tuning.learning_rate}]

    def run(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return _whole(wrapped, hidden, mask)

    if adaptation == "prefix":
        with torch.no_grad():
            for weight in learned:
                weight.mul_(SMALL)  # peft draws them from N(0, 1), which drowns the text's own keys
        _check_prefix(wrapped, embed, learned, name)
        return Adapted(None, embed, run, wrapped, groups)
    if adaptation == "lora":
        return Adapted(None, embed, run, wrapped, groups, plain=lambda: wrapped.merge_and_unload())
    return Adapted(
        None,
        embed,
        run,
        wrapped,
        groups,
        penalty=lambda: config.orth_reg_weight * _far_from_orthogonal(wrapped),
        after_step=wrapped.base_model.update_and_allocate,
        plain=lambda: wrapped.merge_and_unload(),
    )


def _far_from_orthogonal(model: torch.nn.Module) -> torch.Tensor:
    """Mean distance of AdaLoRA's singular vectors from orthonormal ones; peft adds it to its own losses only."""
    distance = []
    for path, weight in model.named_parameters():
        if "lora_A" in path or "lora_B" in path:
            gram = weight @ weight.T if "lora_A" in path else weight.T @ weight
            distance.append(torch.linalg.matrix_norm(gram - torch.eye(len(gram), device=gram.device)))
    return torch.stack(distance).mean()


def _check_prefix(model: Any, embed: Any, learned: list[torch.nn.Parameter], name: str) -> None:
    """A model that does not take peft's cache (DistilBERT) drops the prefix in silence: nothing would be trained."""
    model.eval()
    tokens = torch.arange(4, device=embed.weight.device).unsqueeze(0)
    mask = torch.ones(1, 4, device=embed.weight.device)
    try:
        with torch.no_grad():
            before = _whole(model, embed(tokens), mask)
            for weight in learned:
                weight.add_(1.0)
            after = _whole(model, embed(tokens), mask)
            for weight in learned:
                weight.sub_(1.0)
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise _cannot_adapt("prefix", name) from error
    if torch.equal(before, after):
        raise _cannot_adapt("prefix", name)


def _whole(model: Any, embedded: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    with catch_warnings():
        simplefilter("ignore", FutureWarning)  # transformers renames the argument by which peft hands its prefix over
        hidden: torch.Tensor = model(inputs_embeds=embedded, attention_mask=mask.long()).last_hidden_state
    return hidden


def find_layers(model: Any, name: str) -> tuple[Any, str, Any]:
    """The module that holds an encoder's layers, its attribute's name, and the layers.

    Raises:
        InputError: they are not where BERT and its kin keep them.
    """
    for path in LAYER_PATHS:
        parent, found = model, True
        *way, attribute = path.split(".")
        for step in way:
            parent = getattr(parent, step, None)
            if parent is None:
                found = False
                break
        if found and isinstance(getattr(parent, attribute, None), torch.nn.ModuleList):
            return parent, attribute, getattr(parent, attribute)
    raise cannot_cut(name)


def cannot_cut(name: str) -> InputError:
    """The error for an encoder whose layers are not a stack of their own."""
    return InputError(
        f"preference.adaptation: 'top_layers' cannot cut '{name}', whose layers are not those of a BERT; "
        "use adaptation: frozen"
    )


def _cannot_adapt(adaptation: str, name: str) -> InputError:
    return InputError(
        f"preference.adaptation: '{adaptation}' does not fit '{name}', which is built otherwise than a BERT; "
        "use adaptation: lora, full or frozen"
    )


def run_layers(layers: Any, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Hidden states [b, T, p] through the layers; mask [b, T] is 1.0 for tokens that are there."""
    blocked = (1.0 - mask)[:, None, None, :] * torch.finfo(hidden.dtype).min
    for layer in layers:
        out = layer(hidden, blocked)
        hidden = out[0] if isinstance(out, tuple) else out
    return hidden
