"""Every verifier keeps the laws of `laws/verifier.py`, and each of these can be broken."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.core.methods import find
from pipeline.laws import verifier as laws
from pipeline.laws.law import Broken
from pipeline.laws.verifier import Case, Law
from tests.laws.ours import held, named

[SOUND] = laws.cases(find("verifier", "text.exact"))


@pytest.mark.parametrize(("law", "case"), held("verifier"), ids=named)
def test_law(law: Law, case: Case) -> None:
    law(case)


class Wrong:
    """A sound verifier with something else in its place."""

    def __init__(self, **other: object) -> None:
        self.parse, self.read, self.equal = SOUND.verifier.parse, SOUND.verifier.read, SOUND.verifier.equal
        self.__dict__.update(other)


BROKEN = {
    "an empty text": (laws.any_text_is_read, Wrong(parse=str.strip)),
    "counts calls": (laws.any_text_is_read, Wrong(parse=lambda text, calls=[]: calls.append(1) or str(len(calls)))),
    "always right": (laws.nothing_equals_nothing, Wrong(equal=lambda answer, reference: True)),
    "never right": (laws.an_answer_is_right_by_itself, Wrong(equal=lambda answer, reference: False)),
    "one way": (laws.two_answers_are_equal_both_ways, Wrong(equal=lambda answer, reference: answer <= reference)),
    "not by text": (laws.two_answers_are_equal_both_ways, Wrong(equal=lambda a, b: a.strip("()") == b.strip("()"))),
    "an empty reference": (laws.what_is_read_of_a_reference_is_a_short_answer, Wrong(read=str.strip)),
    "a number": (laws.right_is_yes_or_no, Wrong(equal=lambda answer, reference: len(answer))),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_verifier_breaks_a_law(fault: str) -> None:
    law, verifier = BROKEN[fault]
    with pytest.raises(Broken):
        law(replace(SOUND, verifier=verifier))


def test_a_distance_of_which_more_is_called_better_breaks_a_law() -> None:
    [case, *_] = laws.cases(find("verifier", "clouds.chamfer"))
    method = replace(case.method, traits={**case.method.traits, "better": "higher"})
    with pytest.raises(Broken, match="for the truth"):
        laws.nothing_is_better_than_the_truth(replace(case, method=method))


def test_a_parameter_without_a_default_breaks_a_law() -> None:
    method = replace(SOUND.method, arguments=find("source", "files.jsonl").arguments)
    with pytest.raises(Broken, match="it cannot do without path"):
        laws.it_can_be_named_alone(replace(SOUND, method=method))
