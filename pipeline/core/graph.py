"""Who reads whom: relations between the instances of a plan."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.core.stage import Plan


def tables_under(folder: str, makers: Mapping[str, str]) -> list[str]:
    """The outputs that are this folder, lie under it, or hold it."""
    return sorted(o for o in makers if o == folder or o.startswith(folder + "/") or folder.startswith(o + "/"))


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
    return [i.name for i in plan.instances.values() if i.output.startswith(f"scores/{of}/")]


def entries_of(plan: Plan, of: str) -> list[str]:
    """The entries of generate that answer in a folder, as the column `entry` names them."""
    outputs = [i for i in plan.instances.values() if i.output == of or i.output.startswith(f"{of}/")]
    return sorted({i.name for i in outputs if i.stage == "generate"})
