"""Texts as rules see them, made of what is said."""

import pyarrow as pa

from pipeline.core.methods import find
from pipeline.kinds.rule import Texts
from pipeline.text.items import texts_from


def texts(*said: str, **columns: list) -> Texts:
    return texts_from([f"t{i:03d}" for i in range(len(said))], pa.array(said, pa.string()), **columns)


def found(name: str, pool: Texts, benchmark: Texts | None = None, **arguments: object) -> dict[int, str]:
    method = find("rule", name)
    rule = method.factory(**method.arguments.model_validate(arguments).model_dump())
    return dict(rule(pool, benchmark or texts()))
