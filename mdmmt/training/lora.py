"""LoRA for the text tower: BERT keeps its weights and learns a small product beside some of them.

The queries and values of each layer get it, as in the paper of LoRA (Hu et al., 2021). The heads of
the tower are trained as without it. A model is written with the products merged into the weights,
so it has the shape of any other model.
"""

from __future__ import annotations

import copy

import torch

from ..errors import MissingDependency
from ..towers.text import TextTower

TARGETS = ["query", "value"]
ALPHA_PER_RANK = 2  # what the product is multiplied by


def add_lora(tower: TextTower, rank: int, seed: int) -> None:
    """Put LoRA into a tower's BERT, whose own weights are frozen.

    Raises:
        MissingDependency: peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise MissingDependency("LoRA", extra="train") from error
    settings = LoraConfig(r=rank, lora_alpha=ALPHA_PER_RANK * rank, target_modules=TARGETS)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        inject_adapter_in_model(settings, tower.txt_bert)


def merged(tower: TextTower) -> TextTower:
    """A copy of a tower in which LoRA is part of the weights, with the names of a plain tower."""
    from peft.tuners.lora import LoraLayer

    tower = copy.deepcopy(tower)
    for name, part in list(tower.named_modules()):
        if isinstance(part, LoraLayer):
            part.merge()
            parent, _, child = name.rpartition(".")
            setattr(tower.get_submodule(parent), child, part.get_base_layer())
    return tower
