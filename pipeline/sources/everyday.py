"""Small tasks of everyday language for a real model: a short question with one right answer, after three worked turns.

Questions and answers are made from the word lists below, so that an answer can be judged exactly. Words with two
accepted forms (`roofs` and `rooves`) are not in them.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, PositiveInt

from pipeline.errors import Refused
from pipeline.kinds.source import GivenRow, Rows, source
from pipeline.tables import ids

TaskName = Literal["extract_number", "plural", "past_tense", "next_number", "number_words"]
Draw = Callable[[], float]

SYSTEM = "Answer with one word or number."
# This many repeats in a row mean that a task has nothing new left, not bad luck.
REPEATS = 5_000

NAMES = "Mia Tom Ana Ben Eva Leo Sara Max Nora Paul Rosa Sam Lily Omar Kate Hugo Ines Ivan Jane Karl".split()
THINGS = (
    "apples pears books pens cups plates chairs coins stamps shells eggs cards balls keys hats boxes bags stones "
    "flowers tickets bottles candles spoons photos letters maps toys socks buttons lemons"
).split()

# Nouns by the rule that makes their plural; the irregular ones in pairs.
ADD_S = (
    "cat dog book tree house river chair table apple window garden teacher student doctor car bicycle train flower "
    "bird horse cow spoon cup plate bottle lamp pencil letter key hat shirt shoe road bridge cloud star moon island "
    "mountain forest friend brother sister king queen farmer singer writer painter ship boat engine wheel clock "
    "mirror door wall floor school hospital market picture camera computer phone song game ticket village town "
    "street boy day monkey toy donkey piano photo radio video zoo chief cliff belief"
).split()
ADD_ES = (
    "box fox class dress glass kiss church watch bench beach match lunch brush dish wish bush tax wax potato tomato "
    "hero echo peach branch witch sandwich speech"
).split()
Y_TO_IES = (
    "city baby country story party lady family body army berry cherry puppy kitty library factory memory enemy "
    "fairy pony diary hobby copy duty strawberry butterfly dictionary"
).split()
F_TO_VES = "leaf wolf calf half shelf loaf thief elf".split()
FE_TO_VES = "knife wife life".split()
IRREGULAR = (
    "child children man men woman women foot feet tooth teeth goose geese ox oxen louse lice sheep sheep deer deer "
    "policeman policemen fireman firemen"
).split()
PLURALS: Mapping[str, str] = {
    **{word: f"{word}s" for word in ADD_S},
    **{word: f"{word}es" for word in ADD_ES},
    **{word: f"{word[:-1]}ies" for word in Y_TO_IES},
    **{word: f"{word[:-1]}ves" for word in F_TO_VES},
    **{word: f"{word[:-2]}ves" for word in FE_TO_VES},
    **dict(zip(IRREGULAR[::2], IRREGULAR[1::2], strict=True)),
}

# Verbs by the rule that makes their past tense; the irregular ones in pairs.
ADD_ED = (
    "walk talk play open help look jump cook clean start finish wait want need ask answer call turn visit watch "
    "wash enjoy stay pray paint pull push climb kick lift pick park knock"
).split()
ADD_D = "close love like live move dance smile use hope save arrive believe decide agree".split()
Y_TO_IED = "study carry marry worry hurry cry try copy".split()
DOUBLED = "stop plan drop shop clap hug beg rob grab nod".split()
STRONG = (
    "go went see saw eat ate take took give gave come came run ran write wrote drive drove speak spoke break broke "
    "choose chose steal stole begin began drink drank sing sang swim swam fly flew grow grew know knew throw threw "
    "draw drew blow blew buy bought bring brought think thought catch caught teach taught fight fought sleep slept "
    "keep kept feel felt leave left meet met send sent spend spent build built lend lent lose lost find found stand "
    "stood understand understood tell told sell sold say said pay paid make made have had hear heard hold held sit "
    "sat win won wear wore forget forgot ride rode rise rose shake shook hide hid bite bit fall fell become became "
    "feed fed lead led dig dug stick stuck swing swung shoot shot slide slid bend bent freeze froze tear tore swear "
    "swore put put cut cut hit hit shut shut"
).split()
PASTS: Mapping[str, str] = {
    **{word: f"{word}ed" for word in ADD_ED},
    **{word: f"{word}d" for word in ADD_D},
    **{word: f"{word[:-1]}ied" for word in Y_TO_IED},
    **{word: f"{word}{word[-1]}ed" for word in DOUBLED},
    **dict(zip(STRONG[::2], STRONG[1::2], strict=True)),
}

SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


@dataclass(frozen=True)
class Task:
    """A kind of question. `ask` makes a question, its answer, and the item that both are about."""

    ask: Callable[[Draw], tuple[str, str, str]]
    verifier: str
    shown: tuple[tuple[str, str], ...]


def below(draw: Draw, n: int) -> int:
    """A whole number from 0 to n - 1. Only `random()` is promised to be the same in every version of Python."""
    return int(draw() * n)


def extract_number(draw: Draw) -> tuple[str, str, str]:
    """One of two counts in a sentence."""
    first = below(draw, len(THINGS))
    other = (first + 1 + below(draw, len(THINGS) - 1)) % len(THINGS)
    counts = [2 + below(draw, 98), 2 + below(draw, 98)]
    asked = below(draw, 2)
    scene = f"{NAMES[below(draw, len(NAMES))]} has {counts[0]} {THINGS[first]} and {counts[1]} {THINGS[other]}."
    # Both questions about one scene are one item.
    return f"{scene} How many {THINGS[(first, other)[asked]]}?", str(counts[asked]), scene


def plural(draw: Draw) -> tuple[str, str, str]:
    """The plural of a noun."""
    word = list(PLURALS)[below(draw, len(PLURALS))]
    return f"What is the plural of {word}?", PLURALS[word], word


def past_tense(draw: Draw) -> tuple[str, str, str]:
    """The past tense of a verb."""
    word = list(PASTS)[below(draw, len(PASTS))]
    return f"What is the past tense of {word}?", PASTS[word], word


def next_number(draw: Draw) -> tuple[str, str, str]:
    """The number after a number of two or three digits."""
    number = 10 + below(draw, 990)
    return f"Which number comes after {number}?", str(number + 1), str(number)


def number_words(draw: Draw) -> tuple[str, str, str]:
    """A number in words, to be written in digits."""
    number = 21 + below(draw, 979)
    return f"Write in digits: {in_words(number)}", str(number), str(number)


def in_words(number: int) -> str:
    """A number from 1 to 999 in British words: `three hundred and forty-two`."""
    hundreds, rest = divmod(number, 100)
    parts = [f"{SMALL[hundreds]} hundred"] if hundreds else []
    if 0 < rest < 20:
        parts.append(SMALL[rest])
    elif rest:
        parts.append(TENS[rest // 10 - 2] + (f"-{SMALL[rest % 10]}" if rest % 10 else ""))
    return " and ".join(parts)


TASKS: Mapping[TaskName, Task] = {
    "extract_number": Task(
        extract_number,
        "numeric.last",
        (
            ("Otto has 12 nuts and 31 figs. How many figs?", "31"),
            ("Zoe has 7 beads and 15 bells. How many beads?", "7"),
            ("Finn has 40 nails and 8 screws. How many screws?", "8"),
        ),
    ),
    "plural": Task(
        plural,
        "text.line",
        (
            ("What is the plural of desk?", "desks"),
            ("What is the plural of lady?", "ladies"),
            ("What is the plural of mouse?", "mice"),
        ),
    ),
    "past_tense": Task(
        past_tense,
        "text.line",
        (
            ("What is the past tense of laugh?", "laughed"),
            ("What is the past tense of sell?", "sold"),
            ("What is the past tense of step?", "stepped"),
        ),
    ),
    "next_number": Task(
        next_number,
        "numeric.last",
        (
            ("Which number comes after 4?", "5"),
            ("Which number comes after 58?", "59"),
            ("Which number comes after 209?", "210"),
        ),
    ),
    "number_words": Task(
        number_words,
        "numeric.last",
        (
            ("Write in digits: seventeen", "17"),
            ("Write in digits: sixty-four", "64"),
            ("Write in digits: two hundred and five", "205"),
        ),
    ),
}


@source(verifiers=tuple(sorted({task.verifier for task in TASKS.values()})))
def tasks(
    *,
    rows: PositiveInt,
    seed: int,
    tasks: tuple[TaskName, ...] = Field(default=tuple(TASKS), min_length=1),
    solutions: Literal["right", "commonest"] = "right",
) -> Rows:
    """Distinct questions, dealt evenly to the tasks, which are their domains.

    With `solutions: commonest` a row's solution is the commonest right answer of its task, the same for all of it:
    `local.solutions` is then the baseline that knows the task and never reads the question. References are always
    right, and the questions are the same.

    Paper: none; the tasks were made for this demonstration.
    Differs: nothing to differ from.
    """
    for place, name in enumerate(tasks):
        asked = questions(name, seed, rows // len(tasks) + (place < rows % len(tasks)))
        counts = Counter(answer for _, answer, _ in asked)
        commonest = min(counts, key=lambda answer: (-counts[answer], answer))
        for question, answer, item in asked:
            yield GivenRow(
                f"everyday.tasks seed {seed}",
                {
                    "messages": messages(name, question),
                    "domain": name,
                    "group": f"{name} {item}",
                    "verifier": TASKS[name].verifier,
                    "reference": answer,
                    "solution": answer if solutions == "right" else commonest,
                },
            )


def messages(task: TaskName, question: str) -> list[dict[str, str]]:
    """A question after the three worked turns of its task."""
    turns = [{"role": "system", "content": SYSTEM}]
    for shown, answer in TASKS[task].shown:
        turns += [{"role": "user", "content": shown}, {"role": "assistant", "content": answer}]
    return [*turns, {"role": "user", "content": question}]


def questions(task: TaskName, seed: int, n: int) -> list[tuple[str, str, str]]:
    """n different questions that are not among the worked turns; refuses if the task has fewer."""
    draw = random.Random(ids.seed_of(seed, "everyday.tasks", task)).random
    shown = {question for question, _ in TASKS[task].shown}
    found: dict[str, tuple[str, str, str]] = {}
    repeats = 0
    while len(found) < n:
        question, answer, item = TASKS[task].ask(draw)
        if question not in found and question not in shown:
            found[question] = (question, answer, item)
            repeats = 0
            continue
        repeats += 1
        if repeats == REPEATS:
            raise Refused(f"everyday.tasks: {task} has only {len(found)} different questions, and {n} are asked for")
    return list(found.values())
