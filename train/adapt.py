"""Which weights are trained, and how fast: freezing, layer-wise learning rates, low-rank adapters."""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer

from headway.core.errors import UsageError


def depths(model: torch.nn.Module) -> dict[str, int]:
    """For each parameter: 0 in the embeddings, 1 … L in a layer, L + 1 above (head, pooler, last norm).

    The layers are the longest list of modules; an encoder and a decoder each have their own list.
    """
    lists = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.ModuleList) and _is_layer(m)}
    longest = max((len(m) for m in lists.values()), default=0)
    found = {}
    for name, _ in model.named_parameters():
        found[name] = 0 if any(part in name for part in ("embed", "wpe", "wte", "shared")) else longest + 1
        for prefix in lists:
            if name.startswith(prefix + "."):
                found[name] = int(name[len(prefix) + 1 :].partition(".")[0]) + 1
                break
    return found


def _is_layer(modules: torch.nn.ModuleList) -> bool:
    """True for a list of equal blocks that hold linear maps, not for the parts of one block."""
    return len({type(m) for m in modules}) == 1 and sum(1 for _ in modules[0].modules()) > 4


def freeze(model: torch.nn.Module, count: int) -> None:
    """Stop training of the embeddings (1) and of the `count - 1` lowest layers. Raises UsageError."""
    depth = depths(model)
    if count > max(depth.values()):
        raise UsageError(
            "--freeze", f"is {count}, but there are {max(depth.values()) - 1} layers and embeddings"
        )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(depth[name] >= count)


def parameter_groups(
    model: torch.nn.Module, decaying: set[str], weight_decay: float, learning_rate: float, layer_decay: float
) -> list[dict[str, Any]]:
    """Groups for the optimizer: each layer's rate is `layer_decay` times that of the one above."""
    depth = depths(model)
    top = max(depth.values())
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = (depth[name], name in decaying)
            group = groups.setdefault(
                key,
                {
                    "params": [],
                    "lr": learning_rate * layer_decay ** (top - key[0]),
                    "weight_decay": weight_decay if key[1] else 0.0,
                },
            )
            group["params"].append(parameter)
    return list(groups.values())


def add_adapters(model: torch.nn.Module, rank: int) -> None:
    """Freeze the body and put a low-rank adapter beside every linear map of its layers (Hu et al. 2022).

    What is above the layers (the head) is trained as it is. Raises UsageError for a rank that no weight has.
    """
    depth = depths(model)
    top = max(depth.values())
    linear = {
        name: min(module.in_features, module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and 0 < depth.get(f"{name}.weight", 0) < top
    }
    if rank > max(linear.values(), default=rank):
        raise UsageError(
            "--lora", f"is {rank}, but the layers' weights have ranks up to {max(linear.values())}"
        )
    head = {name for name, d in depth.items() if d == top}
    config = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=list(linear))
    inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        if name in head:
            parameter.requires_grad_(True)


def merge_adapters(model: torch.nn.Module) -> None:
    """Add the adapters' products to the weights beside them and take the adapters out."""
    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge(safe_merge=True)
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, module.get_base_layer())
    if getattr(model, "peft_config", None):
        del model.peft_config
    model.requires_grad_(True)
