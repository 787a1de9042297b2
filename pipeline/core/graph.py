"""Who reads whom: relations between the instances of a plan."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.core.stage import Plan


def inside(one: str, other: str) -> bool:
    """Whether a folder is another one or lies in it: the relation on which the graph rests."""
    return one == other or one.startswith(other + "/")


def touching(one: str, other: str) -> bool:
    """Whether two folders have something in common: they are the same, or one lies in the other."""
    return inside(one, other) or inside(other, one)


def tables_under(folder: str, makers: Iterable[str]) -> list[str]:
    """The outputs that are this folder, lie under it, or hold it."""
    return sorted(o for o in makers if touching(o, folder))


def upstream(plan: Plan) -> dict[str, list[str]]:
    """Label of an instance -> the labels of those whose tables it reads."""
    by_output = {i.output: label for label, i in plan.instances.items()}
    return {
        label: [by_output[o] for folders in i.inputs.values() for f in folders for o in tables_under(f, by_output)]
        for label, i in plan.instances.items()
    }


def gives(plan: Plan, model: str) -> frozenset[str]:
    """What a model's backend gives: `generate`, `read`, `token_logprobs`, `topk_logprobs`, `full_logits`, ..."""
    for instance in plan.instances.values():
        if instance.output == f"models/{model}":
            return instance.params.gives()
    return frozenset()


def scorers_of(plan: Plan, of: str) -> list[str]:
    """The names of the scores that `scores_wide` has for the answers in a folder."""
    return [i.name for i in plan.instances.values() if inside(i.output, f"scores/{of}")]


def entries_of(plan: Plan, of: str) -> list[str]:
    """The entries of generate that answer in a folder, as the column `entry` names them."""
    outputs = [i for i in plan.instances.values() if inside(i.output, of)]
    return sorted({i.name for i in outputs if i.stage == "generate"})
