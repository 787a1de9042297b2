"""Who reads whom: relations between the instances of a plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.core.methods import Method, Use, available, find
from pipeline.core.stage import Instance, Plan

# What a model's terms say that may not be trained on.
NO_TRAINING = "no-training"
# The stages by which answers become what is trained on.
TEACHING = ("acquire", "build", "generate", "select", "pack", "probe", "transform")
# The names of parts are sorted as texts, of five digits.
MOST_PARTS = 99_999


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
    """What a model's backend gives: `form`, `generate`, `read`, `token_logprobs`, `topk_logprobs`, ..."""
    return frozenset().union(*(maker.params.gives() for maker in _makers(plan, [f"models/{model}"])))


def named(plan: Plan, instance: Instance, kind: str) -> frozenset[str]:
    """The methods of a kind that the rows of an instance may name, or the cards of the models that it needs.

    Rows name a verifier in the column `verifier`, so they are those that it writes and reads, of every table upstream
    that has such a column.
    """
    writers, waiting = {instance.label: instance}, [instance]
    while waiting:
        reader = waiting.pop()
        columns = [a for a, source in reader.params.inputs().items() if source.table and kind in source.table.columns]
        for maker in _makers(plan, [folder for argument in columns for folder in reader.inputs[argument]]):
            if maker.label not in writers:
                writers[maker.label] = maker
                waiting.append(maker)
    found = [_named_by(plan, maker, kind) for maker in (*writers.values(), *_models(plan, instance))]
    return frozenset().union(*(available(kind) if names is None else names for names in found))


def named_by_model(plan: Plan, model: str, kind: str) -> frozenset[str]:
    """The methods of a kind that the card of a model, or its form, may name."""
    found = [_named_by(plan, maker, kind) for maker in _makers(plan, [f"models/{model}"])]
    return frozenset().union(*(available(kind) if names is None else names for names in found))


def _named_by(plan: Plan, maker: Instance, kind: str) -> frozenset[str] | None:
    """What an instance's rows or card name; where it does not say, what the models name that it is made of."""
    names, made_of = maker.params.names(kind), _models(plan, maker)
    if begins := maker.params.begins():
        made_of = [model for model in made_of if model.output == f"models/{begins}"]
    if kind == "backend" and made_of:
        # A model of another kind than a language model is run by its network's own backend.
        networks = _named_by(plan, maker, "network") or frozenset()
        names = frozenset(filter(None, (find("network", n).traits.get("backend") for n in networks))) or names
    if names is not None or not made_of:
        return names
    below = [_named_by(plan, model, kind) for model in made_of]
    return None if None in below else frozenset().union(*(some for some in below if some is not None))


def _models(plan: Plan, instance: Instance) -> list[Instance]:
    """The makers of the models that an instance reads, or of which it reads a folder."""
    folders = [source.folder.split("/") for source in instance.params.inputs().values() if source.table is None]
    return _makers(plan, ["/".join(folder[:2]) for folder in folders if folder[0] == "models"])


def taps_of(plan: Plan, signals: str) -> frozenset[str]:
    """The taps of its teacher that a table of signals holds."""
    makers = _makers(plan, [signals])
    own = [{*getattr(i.params, "taps", ())} for i in makers]
    added = [{*adds(use.method, use.arguments)} for i in makers for use in i.params.methods()]
    before = [taps_of(plan, folder) for i in makers for folder in i.inputs.get("signals", ())]
    return frozenset().union(*own, *added, *before)


def adds(method: Method, arguments: Mapping[str, Any]) -> tuple[str, ...]:
    """The taps that a transform adds with these arguments."""
    declared = method.traits.get("adds", ())
    return tuple(declared(arguments) if callable(declared) else declared)


def heads_of(plan: Plan, model: str) -> frozenset[str]:
    """The heads that a model has beside its own."""
    makers = _makers(plan, [f"models/{model}"])
    named = [use.method.traits.get("heads", lambda arguments: ())(use.arguments) for use in _builders(makers)]
    return frozenset().union(*named, *(heads_of(plan, i.params.begins() or "") for i in makers))


def _builders(makers: Iterable[Instance]) -> list[Use]:
    return [use for maker in makers for use in maker.params.methods() if use.kind() == "builder"]


def _makers(plan: Plan, outputs: Iterable[str]) -> list[Instance]:
    wanted = set(outputs)
    return [instance for instance in plan.instances.values() if instance.output in wanted]


def scorers_of(plan: Plan, of: str) -> list[str]:
    """The names of the scores that `scores_wide` has for the answers in a folder."""
    return [i.name for i in plan.instances.values() if inside(i.output, f"scores/{of}")]


def entries_of(plan: Plan, of: str) -> list[str]:
    """The entries of generate that answer in a folder, as the column `entry` names them."""
    outputs = [i for i in plan.instances.values() if inside(i.output, of)]
    return sorted({i.name for i in outputs if i.stage == "generate"})


def told(plan: Plan) -> list[Mapping[str, Any]]:
    """The instances of a plan as its files tell them; those that are not valid as far as they are."""
    return [
        {
            "stage": i.stage,
            "instance": i.name,
            "output": i.output,
            "params": i.params.model_dump(mode="json", warnings=False),
        }
        for i in plan.instances.values()
        if i.stage in TEACHING
    ]


def teachers_of(told: Sequence[Mapping[str, Any]], folder: str) -> dict[str, str | None]:
    """Name -> terms of the models whose answers or distributions a folder of examples or signals holds."""
    found: set[str] = set()
    for one in (one for one in told if touching(one["output"], folder)):
        params = one["params"]
        if one["stage"] == "probe":
            found |= {params["model"], *teachers_of(told, f"examples/{params['of']}")}
        elif one["stage"] == "transform":
            found |= {
                *teachers_of(told, f"signals/{params['of']}/{params['source']}"),
                *teachers_of(told, params["beside"]),
                *(answering(told, params["answers"], "") if params.get("answers") else ()),
            }
        elif one["stage"] == "pack":
            found |= answering(told, params["of"], f"selections/{params['of']}/{params['by']}")
    return terms(told, sorted(found))


def answering(told: Sequence[Mapping[str, Any]], of: str, by: str) -> set[str]:
    """The models among whose answers in a folder a selection chooses."""
    chosen = next((s["params"]["entries"] for s in told if s["output"] == by), None)
    answered = [g for g in told if g["stage"] == "generate" and inside(g["output"], of)]
    return {g["params"]["model"] for g in answered if not chosen or g["instance"] in chosen}


def sources(plan: Plan, label: str) -> dict[str, dict[str, str | None]]:
    """Entries by which something of the world's is in what an instance writes -> its method, licence and terms."""
    reads, found, waiting = upstream(plan), set[str](), [label]
    while waiting:
        here = waiting.pop()
        if here not in found:
            found.add(here)
            waiting += reads[here]
    brought = [one for one in sorted(found) if one.startswith(("acquire@", "ingest@"))]
    params: dict[str, Any] = {one.replace("@", "."): plan.instances[one].params for one in brought}
    return {
        entry: {"use": given.use.name, "licence": given.licence, "terms": getattr(given, "terms", None)}
        for entry, given in params.items()
    }


def terms(told: Sequence[Mapping[str, Any]], models: Iterable[str]) -> dict[str, str | None]:
    """Name -> terms of some models, and of those that they were built of; None where nothing is said of them."""
    said = {one["instance"]: one["params"].get("terms") for one in told if one["stage"] == "acquire"}
    built = {
        one["instance"]: (one["params"]["base"], one["params"]["donor"]) for one in told if one["stage"] == "build"
    }
    whole, waiting = dict[str, str | None](), list(models)
    while waiting:
        model = waiting.pop()
        if model not in whole:
            whole[model] = said.get(model)
            waiting += built.get(model, ())
    return dict(sorted(whole.items()))


def forbidden(models: Mapping[str, str | None]) -> list[str]:
    """Which models may not be taught from."""
    return [
        f"acquire.{model} says `terms: {NO_TRAINING}`, and its answers would be trained on here: leave it out (`from:` "
        f"of the selection), or take another teacher"
        for model, terms in models.items()
        if terms == NO_TRAINING
    ]


def writers_of(plan: Plan, pool: str) -> list[Instance]:
    """The instances that write prompts of a pool."""
    return [i for i in plan.instances.values() if i.output.rpartition("/")[0] == f"prompts/{pool}"]


def benchmarks(plan: Plan) -> set[str]:
    """The pools that models are judged on, or that others are held against."""
    judged = {getattr(i.params, "pool", "") for i in (*plan.of("evaluate"), *plan.of("compare"))}
    held = {getattr(i.params, "against", "") for i in plan.instances.values() if i.stage != "compare"}
    return judged | held - {""}


def unequal_parts(plan: Plan, pool: str, parts: int) -> list[str]:
    """Which entries cut a pool that they write into another number of parts."""
    others = {f"{i.stage}.{i.name}": getattr(i.params, "parts", parts) for i in writers_of(plan, pool)}
    return [
        f"parts: is {parts}, and {own} in {entry}; a pool has one number"
        for entry, own in others.items()
        if own != parts
    ]
