"""Heads beside a model's own: each makes logits of the same states, over outcomes of its own.

They lie in the folder `heads/` of a model, and in the loaded module as `heads`, so that they are trained, kept in
checkpoints and copied with it. `heads.json` says what each has a share of: the answers of a classifier are a mixture of
its heads' distributions, and its own head has the rest. A head with M times as many outcomes names M kinds of each.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, PositiveFloat

from pipeline.core.methods import Choice, lazy

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")

MAIN = "main"
# What a head of rows of length 1 learns.
DIRECTIONS = "parametrizations.weight.original1"
FOLDER, WEIGHTS, SHARES = "heads", "heads/heads.safetensors", "heads/heads.json"


class Share(Choice):
    """What a head says in an answer: its share of the mixture, in which its logits are over a temperature."""

    share: float = Field(default=0.0, ge=0, le=1)
    temperature: PositiveFloat = 1.0


def unit(head: torch.nn.Linear) -> Any:
    """A linear head whose rows have length 1, whatever they learn: each is the prototype of an outcome."""
    from torch.nn.utils.parametrizations import weight_norm

    made: Any = weight_norm(head, dim=0)
    lengths = made.parametrizations.weight.original0
    lengths.data.fill_(1)
    lengths.requires_grad_(False)
    return made


def of(model: Any) -> dict[str, torch.nn.Module]:
    """The heads beside a model's own, by name."""
    return dict(getattr(model, FOLDER, None) or {})


def shares(model: Any) -> Mapping[str, Share]:
    """What each of them says in an answer."""
    return model.heads.shares if of(model) else {}


def attach(model: Any, heads: Mapping[str, torch.nn.Module], shares: Mapping[str, Share]) -> None:
    """Give a model heads beside its own, instead of those that it has."""
    model.heads = torch.nn.ModuleDict(heads).to(next(model.parameters()).dtype)
    model.heads.shares = dict(shares)


def load(model: Any, folder: Path) -> None:
    """Give a model the heads that its folder holds, if it holds any."""
    if not (folder / WEIGHTS).exists():
        return
    from safetensors.torch import load_file

    weights, found = load_file(folder / WEIGHTS), {}
    for name in sorted({key.partition(".")[0] for key in weights}):
        own = {key.partition(".")[2]: value for key, value in weights.items() if key.startswith(f"{name}.")}
        weight = own.get("weight", own.get(DIRECTIONS))
        assert weight is not None
        made = torch.nn.Linear(weight.shape[1], weight.shape[0], "bias" in own)
        found[name] = unit(made) if DIRECTIONS in own else made
        found[name].load_state_dict(own)
    told = json.loads((folder / SHARES).read_text("utf-8"))
    attach(model, found, {name: Share(**share) for name, share in told.items()})


def save(model: Any, out: Path) -> None:
    """Write a model's heads into its folder, if it has any."""
    if not of(model):
        return
    from safetensors.torch import save_file

    (out / FOLDER).mkdir()
    save_file({key: value.contiguous() for key, value in model.heads.state_dict().items()}, out / WEIGHTS)
    told = {name: share.model_dump() for name, share in shares(model).items()}
    (out / SHARES).write_text(json.dumps(told, indent=1, sort_keys=True) + "\n", "utf-8")


@contextmanager
def apart(model: Any) -> Iterator[None]:
    """The model without its heads, as other programs know it."""
    heads = model._modules.pop(FOLDER, None)
    try:
        yield
    finally:
        if heads is not None:
            model.heads = heads


def answer(states_ND: torch.Tensor, heads: Mapping[str, Any], told: Mapping[str, Share]) -> torch.Tensor:
    """Logits [N, V] of a model's answers: those of its own head, or the logarithm of the mixture of all that have a
    share."""
    own_NV = heads[MAIN](states_ND)
    spoken = {name: share for name, share in told.items() if share.share}
    if not spoken:
        return own_NV
    rest, outcomes = 1 - sum(share.share for share in spoken.values()), own_NV.shape[1]
    parts = [own_NV.float().log_softmax(1) + math.log(rest)] if rest > 1e-9 else []
    for name, share in spoken.items():
        log_q = (heads[name](states_ND).float() / share.temperature).log_softmax(1)
        parts.append(log_q.unflatten(1, (outcomes, -1)).logsumexp(2) + math.log(share.share))
    return torch.stack(parts).logsumexp(0)
