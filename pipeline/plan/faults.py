"""What can be wrong in the parameters, in words: the key, what is allowed and the nearest name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from pipeline.core.graph import inside, tables_under
from pipeline.core.stage import SECTION_OF, Input, Instance, Plan
from pipeline.display import nearest
from pipeline.errors import Refused


class PlanError(Refused):
    """All faults of the parameters, together."""

    def __init__(self, faults: Iterable[str], source: str = "params.yaml") -> None:
        self.faults = list(faults)
        count = "one fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        super().__init__(f"{source} has {count}; nothing was run:\n" + "\n".join(f"  - {f}" for f in self.faults))


def nobody_makes(source: Input, makers: Mapping[str, str]) -> str:
    """What to add to the parameters where nothing makes what an entry reads."""
    top = source.folder.partition("/")[0]
    near = nearest(source.folder, list(makers))
    made = ", ".join(sorted(o for o in makers if inside(o, top))) or "none"
    return source.missing or f"nothing makes data/{source.folder}{near} (there are: {made})"


def deletion(instance: Instance, plan: Plan) -> str:
    """What to delete to be without an instance: its entry, those that cannot be without it, and mentions of it."""
    lost = {instance.label}
    by_output = {i.output: label for label, i in plan.instances.items()}
    makers = {
        label: [
            {by_output[o] for f in i.inputs[argument] for o in tables_under(f, by_output)}
            for argument, source in i.params.inputs().items()
            if not source.optional
        ]
        for label, i in plan.instances.items()
    }
    while more := {label for label, inputs in makers.items() if any(m and m <= lost for m in inputs)} - lost:
        lost |= more
    entries = dict.fromkeys(_entry(i) for label, i in plan.instances.items() if label in lost)
    rest = replace(plan, instances={label: i for label, i in plan.instances.items() if label not in lost})
    mentions = [
        f"{_entry(i)}: {text}"
        for i in rest.instances.values()
        for text in i.params.check(rest)
        if text not in i.params.check(plan)
    ]
    return f"delete {', '.join(sorted(entries))}" + "".join(f"; then {text}" for text in mentions)


def where(stage: str, name: str) -> str:
    """An entry as faults name it: `train.kd`."""
    return f"{SECTION_OF[stage]}.{name}"


def _entry(instance: Instance) -> str:
    return where(instance.stage, instance.name)


def unequal(instance: Instance, plan: Plan) -> list[str]:
    """What students of one arm differ in beside their seeds: the report would take it for chance."""
    arm = getattr(instance.params, "arm", None)
    if arm is None:
        return []
    arms = {i.name: found for i in plan.instances.values() if (found := getattr(i.params, "arm", None)) is not None}
    first = next(i for i in plan.instances.values() if getattr(i.params, "arm", None) == arm)
    own, theirs = (i.params.model_dump(mode="json", exclude={"seed", "of"}) for i in (instance, first))
    for params in (own, theirs):
        # In a chain of trainings each begins with the student of its own seed, which are students of one arm too.
        params |= {key: ("arm", arms[params[key]]) for key in ("student", "teacher") if params.get(key) in arms}
    return [
        f"{key}: is another in {_entry(first)}; entries of one arm ({arm}) differ in `seed` and `of` alone"
        for key in sorted(own.keys() | theirs.keys())
        if own.get(key) != theirs.get(key)
    ]


def explained(at: str, error: ValidationError, model: type[BaseModel]) -> list[str]:
    """A pydantic error, one line per fault, with the key path as it stands in the file and what is allowed."""
    texts = []
    for fault in error.errors():
        *way, last = fault["loc"] or ("",)
        # What `use` names takes the keys beside it.
        steps = [*(step for step in way if step not in ("use", "arguments")), *([last] if last != "name" else ["use"])]
        path = ".".join([at, *(str(step) for step in steps if step != "")])
        if fault["type"] == "extra_forbidden":
            fields = _fields(model, way)
            allowed = [f for f in fields if f not in ("seed", "instance")]
            near = nearest(str(last), fields)
            takes = f"{' This' if near else '; this'} entry takes {', '.join(allowed)}" if allowed else ""
            texts.append(f"{path}: no such parameter{near}{takes}")
        elif fault["type"] == "missing":
            texts.append(f"{path}: is missing")
        elif fault["type"] == "method":
            texts.append(f"{path}: {fault['ctx']['text']}")
        else:
            message = fault["msg"].removeprefix("Value error, ")
            texts.append(f"{path}: {message} (it is {fault['input']!r})")
    return texts


def _fields(model: Any, way: Sequence[int | str]) -> list[str]:
    """The keys that may stand at a place of a model, as they are written."""
    if isinstance(model, type) and issubclass(model, BaseModel):
        if not way:
            return [field.alias or name for name, field in model.model_fields.items()]
        inner = [f.annotation for name, f in model.model_fields.items() if way[0] in (name, f.alias)]
        return _fields(inner[0], way[1:]) if inner else []
    # Of `dict[str, X]`, `tuple[X, ...]` a step leads to X; of `X | None` none does.
    steps = way[1:] if get_origin(model) in (dict, list, tuple) else way
    return next((found for inner in get_args(model) if (found := _fields(inner, steps))), [])
