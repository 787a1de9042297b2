"""Rules that hold a pool against a benchmark: what asks for one of its items is not to be learnt from."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, PositiveInt

from pipeline.kinds.rule import Rule, Texts, each, rule
from pipeline.rules.duplicates import what
from pipeline.text.answers import NUMBER
from pipeline.text.contamination import Template, contained, shared_ngrams
from pipeline.text.ngrams import without_punctuation
from pipeline.text.numerals import with_digits


@rule(drops="contaminated_key", sees="benchmark", copies=lambda arguments: {"verbatim": 0, "typeset": 0})
def key() -> Rule:
    """Prompts that ask for a benchmark's item: they have its group, or its whole text and arrays.

    A group is a task with its parameters, however it is worded. This is the rule that holds for templates, whose
    instances share words without being the same item, and for texts that are shorter than a run of words.

    Paper: none.
    Differs: nothing.
    """

    def judge(texts: Texts, benchmark: Texts) -> dict[int, str]:
        items = benchmark.ids.to_pylist()[::-1]
        groups = dict(zip(benchmark.groups.to_pylist()[::-1], items, strict=True))
        wordings = dict(zip(list(benchmark.wordings())[::-1], items, strict=True))
        found = {}
        for i, (group, asked) in enumerate(zip(each(texts.groups), texts.wordings(), strict=True)):
            item = groups.get(group) or wordings.get(asked)
            if item is not None:
                found[i] = f"the {'group' if group in groups else what(asked)} of {item}"
        return found

    return judge


@rule(drops="contaminated_ngram", sees="benchmark", copies=lambda arguments: {"inside": arguments["words"]})
def ngram(*, words: PositiveInt = 13) -> Rule:
    """Prompts that share a run of `words` words with a benchmark's item.

    Words are compared without case, punctuation and typographic form, and a sign of a script without spaces is a word.
    What many items say, such as an instruction, is taken out first. For prompts of words alone: what is asked about one
    picture may be asked about every other.

    Paper: Brown et al. 2020 (arXiv 2005.14165), appendix C, 13 words; Muennighoff et al. 2025, s1 (arXiv 2501.19393), 8
    words.
    Differs: any shared run counts, as in s1; punctuation does not; every hit is verified on the words.
    """

    def judge(texts: Texts, benchmark: Texts) -> dict[int, str]:
        template = Template(benchmark.words)
        shared = shared_ngrams(template.without(texts.words), template.without(benchmark.words), words)
        return {i: f"{benchmark.ids[hit.item]} has: {hit.words}" for i, hit in shared.items()}

    return judge


@rule(
    drops="contaminated_part",
    sees="benchmark",
    copies=lambda arguments: dict.fromkeys(("inside", "renumbered", "rescripted"), arguments["least"]),
)
def containment(
    *, share: Annotated[float, Field(gt=0, le=1)] = 0.8, words: PositiveInt = 3, least: PositiveInt = 8
) -> Rule:
    """Prompts that have at least `share` of the runs of `words` words of a benchmark's item, and all its numbers.

    Numbers are compared in one notation: `1,200`, `twelve hundred` and digits of any script are digits. Items of fewer
    than `least` words of their own are left to the key.

    Paper: Broder 1997, containment.
    Differs: a text without the item's numbers is another instance of its template, and stays.
    """

    def judge(texts: Texts, benchmark: Texts) -> dict[int, str]:
        ours, theirs = _one_notation(texts), _one_notation(benchmark)
        template = Template(theirs)
        numbers = [Counter(NUMBER.findall(text)) for text in theirs.to_pylist()]

        def same(text: int, item: int) -> bool:
            return numbers[item] <= Counter(NUMBER.findall(ours[text].as_py()))

        found = contained(template.without(ours), template.without(theirs), same, share=share, words=words, least=least)
        return {i: f"{hit.share:.2f} of the words of {benchmark.ids[hit.item]}" for i, hit in found.items()}

    return judge


def _one_notation(texts: Texts) -> pa.Array:
    """The words of texts, with every number in digits; none where there are arrays beside them."""
    return pc.if_else(texts.inputs.is_null(), without_punctuation(with_digits(texts.plain)), "")
