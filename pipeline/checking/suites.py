"""What a table must be like before anything follows from it: one suite of expectations per kind of table.

A suite is data. `flat` is SQL that turns each row into numbers and flags (a list column becomes its length, its sum,
its worst position); each expectation is a class of Great Expectations over one of those columns.
`validation.py` runs them. An instance adds rules of its own, `expect:`, and moves numbers by name, `bounds:`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationInfo, field_validator

from pipeline import contracts
from pipeline.contracts import Table
from pipeline.core.stage import NAME, StageParams
from pipeline.errors import Refused
from pipeline.tables import tensors

Bound = Literal["mostly", "min_value", "max_value"]
Share = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True)
class Expectation:
    """One thing that must hold; `bound` is the argument that `bounds: {<name>: ...}` sets."""

    name: str
    about: str
    kind: str
    kwargs: Mapping[str, Any]
    bound: Bound | None = None

    @property
    def column(self) -> str | None:
        """The column of the flat table that it looks at; none for an expectation on the number of rows."""
        return self.kwargs.get("column")

    @property
    def expected(self) -> str:
        """What is expected, for a person."""
        allowed, low, high = (self.kwargs.get(k) for k in ("value_set", "min_value", "max_value"))
        limits = [f"at least {low}"] * (low is not None) + [f"at most {high}"] * (high is not None)
        if allowed is not None:
            text = "true" if allowed == [True] else f"one of {', '.join(allowed)}"
        else:
            text = " and ".join(limits) or {"ExpectColumnValuesToBeNull": "null"}.get(self.kind, "unique")
        mostly = self.kwargs.get("mostly", 1.0)
        return text if mostly == 1 else f"{text} in at least {mostly:.4g} of the rows"


@dataclass(frozen=True)
class Suite:
    """The expectations of a table; `names` are the columns that name a row to a person."""

    table: Table
    names: tuple[str, ...]
    flat: str
    own: tuple[Expectation, ...]

    @property
    def expectations(self) -> tuple[Expectation, ...]:
        """Its own, and what holds for every table with floats."""
        return (*self.own, NUMBERS) if nan_tests(self.table) else self.own

    @property
    def checked(self) -> str:
        """`flat`, with what every table is asked."""
        nan = " OR ".join(f"coalesce({test}, false)" for test in nan_tests(self.table)) or "false"
        return f"SELECT *, NOT ({nan}) AS numbers_are FROM ({self.flat})"

    @property
    def bounds(self) -> tuple[str, ...]:
        """The names that `bounds:` may set."""
        return tuple(e.name for e in self.expectations if e.bound)


def flag(name: str, about: str, column: str, mostly: float | None = None) -> Expectation:
    """A flag column must be true; null means that it does not apply to the row."""
    kwargs = {"column": column, "value_set": [True]} | ({} if mostly is None else {"mostly": mostly})
    return Expectation(name, about, "ExpectColumnValuesToBeInSet", kwargs, None if mostly is None else "mostly")


def between(name: str, about: str, column: str, bound: Bound | None = None, **limits: float) -> Expectation:
    """Every number of a column lies within limits; null means that it does not apply to the row."""
    return Expectation(name, about, "ExpectColumnValuesToBeBetween", {"column": column, **limits}, bound)


def unique(name: str, about: str, column: str) -> Expectation:
    """No two rows have the same value in a column."""
    return Expectation(name, about, "ExpectColumnValuesToBeUnique", {"column": column})


NUMBERS = flag("numbers", "no number is NaN, which is above every other and so meets many a rule", "numbers_are")


def nan_tests(table: Table) -> list[str]:
    """SQL for each column of a table that may hold floats, at any depth: whether one of them is NaN."""
    return [test for name, column in table.columns.items() if (test := _nan_in(f'"{name}"', column.type))]


def _nan_in(value: str, kind: pa.DataType, depth: int = 0) -> str:
    """SQL that says whether a value is NaN or has one in it; nothing where it cannot."""
    if pa.types.is_floating(kind):
        return f"isnan({value})"
    if pa.types.is_list(kind) or pa.types.is_map(kind):
        of_map = pa.types.is_map(kind)
        inner = _nan_in(f"x{depth}", kind.item_type if of_map else kind.value_type, depth + 1)
        listed = f"map_values({value})" if of_map else value
        return inner and f"list_bool_or(list_transform({listed}, lambda x{depth}: {inner}))"
    fields = [_nan_in(f'{value}."{f.name}"', f.type, depth) for f in kind] if pa.types.is_struct(kind) else []
    return " OR ".join(field for field in fields if field)


ROWS = Expectation("rows", "the table has rows", "ExpectTableRowCountToBeBetween", {"min_value": 1}, "min_value")
BYTES = flag("bytes", "the bytes of every array agree with its shape and type, or lie elsewhere", "bytes_agree")


def bytes_agree(*columns: str) -> str:
    """Whether all arrays in some columns of cells have as many bytes as they say; null for a row without any."""
    sizes = {name: dtype.itemsize for name, dtype in tensors.DTYPES.items()} | dict.fromkeys(tensors.FILES, 1)
    size = " ".join(f"WHEN '{name}' THEN {bytes_}" for name, bytes_ in sizes.items())
    return f"""list_bool_and(list_transform(list_concat({", ".join(columns)}), lambda a:
            CASE WHEN a.data IS NULL THEN a.uri IS NOT NULL
            ELSE coalesce(list_min(a.shape), 0) >= 0 AND coalesce(
                octet_length(a.data) = coalesce(list_product(a.shape), 1) * CASE a.dtype {size} END, false)
            END)) AS bytes_agree"""


DOMAINS = Expectation(
    "domains", "several kinds of task are there, if `bounds` asks for it", "ExpectColumnUniqueValueCountToBeBetween",
    {"column": "domain", "min_value": 1}, "min_value",
)  # fmt: skip

PROMPTS = Suite(
    contracts.PROMPTS,
    ("prompt_id",),
    f"""
    SELECT *, left(messages[-1].content, 120) AS excerpt,
        messages[-1].role = 'user' AS asks,
        CASE WHEN inputs IS NULL THEN list_min(list_transform(messages, lambda m: length(m.content))) END
            AS shortest_message,
        verifier IS NULL OR reference IS NOT NULL OR truth IS NOT NULL AS checkable,
        {bytes_agree("inputs", "truth")}
    FROM prompts
    """,
    (
        ROWS,
        unique("ids", "every prompt is there once", "prompt_id"),
        flag("asks", "the last turn is the user's", "asks"),
        between("length", "no turn is empty, where nothing but words is asked about", "shortest_message", min_value=1),
        flag("checkable", "a prompt with a verifier has a reference answer", "checkable", mostly=1.0),
        BYTES,
        DOMAINS,
    ),
)

RESPONSES = Suite(
    contracts.RESPONSES,
    ("response_id", "prompt_id"),
    # Samples of different prompts that share a seed tend to be one text, so the prompts that got the same text at the
    # same sample number are counted; fewer than 10 prompts say nothing.
    f"""
    SELECT *, left(coalesce(content, error, ''), 120) AS excerpt,
        concat_ws(' ', of, instance, response_id) AS instance_id,
        concat_ws(' ', of, instance, prompt_id, sample) AS instance_sample,
        concat_ws(' ', of, instance, seed) AS instance_seed,
        content IS NOT NULL OR error IS NOT NULL OR outputs IS NOT NULL AS has_answer,
        length(content) AS content_length,
        CASE WHEN verifier IS NOT NULL AND error IS NULL AND outputs IS NULL THEN answer IS NOT NULL END AS answered,
        len(token_ids) = completion_tokens AND coalesce(len(logprobs) = len(token_ids), true) AS tokens_agree,
        list_max(logprobs) AS highest_logprob,
        CASE WHEN content IS NOT NULL AND outputs IS NULL AND count(*) OVER same_sample >= 10 THEN
            count(*) OVER (PARTITION BY of, instance, sample, content) / count(*) OVER same_sample
        END AS same_text,
        {bytes_agree("inputs", "outputs")}
    FROM responses WINDOW same_sample AS (PARTITION BY of, instance, sample)
    """,
    (
        ROWS,
        unique("ids", "every response_id is there once", "instance_id"),
        unique("samples", "every prompt has each sample number once", "instance_sample"),
        unique("seeds", "no two samples share a seed", "instance_seed"),
        Expectation(
            "errors", "requests did not fail", "ExpectColumnValuesToBeNull",
            {"column": "error", "mostly": 1.0}, "mostly",
        ),
        flag("content", "a request that did not fail has an answer", "has_answer", mostly=1.0),
        between("length", "answers are not endless (characters)", "content_length", "max_value", max_value=100_000),
        between("written", "answers are not empty (characters)", "content_length", "mostly", min_value=1, mostly=0.99),
        flag("answered", "the verifier reads a short answer out of the text", "answered", mostly=0.5),
        between("repeats", "no text is the answer of too many prompts at one sample number (share of the prompts)",
                "same_text", "max_value", max_value=0.5),
        Expectation(
            "finish", "the finish reason is a known one", "ExpectColumnValuesToBeInSet",
            {"column": "finish_reason", "value_set": ["stop", "length", "content_filter", "error"]},
        ),
        between("prompt_tokens", "a prompt has tokens", "prompt_tokens", min_value=1),
        between("completion_tokens", "an answer has tokens", "completion_tokens", min_value=1),
        flag("tokens", "as many token ids and log-probabilities as completion_tokens says", "tokens_agree"),
        between("logprobs", "log-probabilities are not above 0", "highest_logprob", max_value=1e-4),
        BYTES,
        DOMAINS,
    ),
)  # fmt: skip

SELECTIONS = Suite(
    contracts.SELECTIONS,
    ("response_id", "prompt_id"),
    """
    SELECT *, reason AS excerpt,
        concat_ws(' ', of, instance, response_id) AS instance_id,
        kept = (weight > 0) AS weighed,
        CASE WHEN kept THEN domain END AS kept_domain
    FROM selections
    """,
    (
        ROWS,
        unique("ids", "every candidate is decided once", "instance_id"),
        flag("weights", "what is kept has a weight, and nothing else has", "weighed"),
        between("weight", "no weight is below 0", "weight", min_value=0),
        between("tokens", "a candidate has tokens", "tokens", min_value=1),
        Expectation(
            "domains", "something is kept, of as many kinds of task as `bounds` asks for",
            "ExpectColumnUniqueValueCountToBeBetween", {"column": "kept_domain", "min_value": 1}, "min_value",
        ),
    ),
)  # fmt: skip

SCORES = Suite(
    contracts.SCORES,
    ("response_id", "prompt_id"),
    "SELECT *, detail AS excerpt, concat_ws(' ', of, instance, response_id) AS instance_id FROM scores",
    (ROWS, unique("ids", "every answer has one score of a table", "instance_id")),
)

TRAINED_COLUMNS = """
        len(token_ids) || ' tokens, trained ' || array_to_string(
            list_transform(spans, lambda s: s.start || ':' || s."end"), ' ') AS excerpt,
        concat_ws(' ', of, instance, example_id) AS instance_id,
        len(token_ids) AS tokens,
        coalesce(list_sum(list_transform(spans,
            lambda s: greatest(0, least(s."end", len(token_ids)) - greatest(s.start, 0)))), 0)::BIGINT AS loss_tokens,
        CASE WHEN inputs IS NULL THEN len(token_ids) - loss_tokens END AS context_tokens,
        CASE WHEN inputs IS NULL THEN len(token_ids) - spans[-1]."end" END AS tail_tokens,
        coalesce(list_bool_and(list_transform(spans,
            lambda s, i: s.start >= CASE WHEN i = 1 THEN 0 ELSE spans[i - 1]."end" END AND s.start < s."end"
            AND s."end" <= len(token_ids))), true) AS spans_inside,
        list_min(token_ids) AS lowest_id,
        len(response_ids) AS responses
"""


def trained(*columns: str) -> str:
    """The columns that the suites of what is trained on look at."""
    return f"{TRAINED_COLUMNS}, {bytes_agree(*columns)}"


TRAINED_EXPECTATIONS = (
    ROWS,
    unique("ids", "every example is there once", "instance_id"),
    flag("spans", "every span is a range inside the tokens, in order and apart", "spans_inside"),
    between("trained", "at least one token is trained on", "loss_tokens", min_value=1),
    between("context", "at least one token is not trained on, where the student sees nothing else", "context_tokens",
            min_value=1),
    between("tail", "a text is trained on to its end (a template may put a newline after it)", "tail_tokens",
            "max_value", max_value=1),
    between("length", "an example is not endless (tokens)", "tokens", "max_value", max_value=131_072),
    between("token_ids", "no token id is below -1, which stands for unknown", "lowest_id", min_value=-1),
    between("weight", "no weight is below 0", "weight", min_value=0),
    BYTES,
    between("lineage", "an example names the responses it was made from", "responses", min_value=1),
    Expectation(
        "tokenizer", "one tokenizer cut all examples", "ExpectColumnUniqueValueCountToBeBetween",
        {"column": "tokenizer_hash", "max_value": 1},
    ),
    DOMAINS,
)  # fmt: skip

EXAMPLES = Suite(
    contracts.EXAMPLES,
    ("example_id", "prompt_id"),
    f"SELECT *,{trained('inputs', 'outputs')} FROM examples",
    TRAINED_EXPECTATIONS,
)

SIGNALS = Suite(
    contracts.SIGNALS,
    ("example_id", "prompt_id"),
    # Of signals that are stored compactly nothing is known here of single outcomes; the second reading is about them.
    # `aligned` compares the target's log-probability with its entry among the top-k: a distribution that stands one
    # token off differs there, although it sums to 1.
    f"""
    WITH trained AS (SELECT *,{trained("inputs", "outputs", "features")},
        flatten(list_transform(spans, lambda s: token_ids[s.start + 1 : s."end"])) AS targets
    FROM signals LEFT JOIN (SELECT of, instance, distance FROM manifests) USING (of, instance)),
    mass AS (SELECT *,
        list_transform(topk_logprobs, lambda l, i: coalesce(list_sum(list_transform(l, lambda x: exp(x))), 0)
            + tail_mass[i]) AS masses,
        list_transform(targets, lambda t, i: topk_logprobs[i][list_position(topk_ids[i], t)]) AS listed
    FROM trained)
    SELECT *,
        len(tail_mass) = loss_tokens AND len(target_logprob) = loss_tokens AND coalesce(
            len(topk_ids) = loss_tokens AND len(topk_logprobs) = loss_tokens,
            len(topk_gaps) = len(topk_steps) AND len(topk_gaps) % loss_tokens = 0 AND len(topk_gaps) > 0, false)
            AS positions_agree,
        list_bool_and(list_transform(topk_ids, lambda t, i: len(t) = len(topk_logprobs[i]) AND len(t) >= 1))
            AS widths_agree,
        list_bool_and(list_transform(list_concat(flatten(topk_logprobs), topk_steps, tail_mass, target_logprob),
            lambda x: x IS NOT NULL)) AS all_read,
        CASE WHEN all_read THEN list_max(list_transform(masses, lambda m: abs(m - 1))) END AS mass_error,
        list_min(tail_mass) AS lowest_tail,
        list_bool_and(list_transform(tempered, lambda t: len(t.tail_mass) = loss_tokens
            AND list_min(t.tail_mass) >= 0 AND list_max(t.tail_mass) <= 1 + 1e-5)) AS tempered_agree,
        CASE WHEN all_read THEN list_bool_and(list_transform(topk_logprobs, lambda l: list_reverse_sort(l) = l)) END
            AS descending,
        list_max(target_logprob) AS highest_target,
        list_max(list_transform(listed, lambda l, i: abs(l - target_logprob[i]))) AS misalignment,
        min(teacher_id) OVER same_table = max(teacher_id) OVER same_table AS one_teacher
    FROM mass WINDOW same_table AS (PARTITION BY of, instance)
    """,
    (
        *TRAINED_EXPECTATIONS,
        flag("read", "every log-probability is a number (`on_bad_row` of train)", "all_read", mostly=0.99),
        flag("positions", "one distribution for each loss token", "positions_agree"),
        flag("widths", "as many log-probabilities as ids at each loss token", "widths_agree"),
        between("mass", "the top-k and the tail sum to 1 (largest difference)", "mass_error", "max_value",
                max_value=1e-3),
        between("tail_mass", "no tail mass is below 0", "lowest_tail", min_value=0),
        flag("tempered", "at further temperatures too, a mass of all others for each loss token", "tempered_agree"),
        flag("descending", "the top-k stand likeliest first", "descending"),
        between("targets", "no target's log-probability is above 0", "highest_target", max_value=1e-4),
        between("aligned", "a target among the top-k has the same log-probability there (largest difference)",
                "misalignment", "max_value", max_value=1e-3),
        between("reread", "a second reading of some rows agrees (total variation distance, the mean of the places)",
                "distance", "max_value", max_value=0.02),
        flag("teacher", "one model gave all distributions of a table", "one_teacher"),
    ),
)  # fmt: skip

SUITES = {suite.table.name: suite for suite in (PROMPTS, RESPONSES, SCORES, SELECTIONS, EXAMPLES, SIGNALS)}


class Rule(BaseModel):
    """A rule of the user's own: an SQL condition over the columns of the flat table; null means it does not apply."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: Annotated[str, StringConstraints(pattern=NAME)]
    rule: str
    mostly: Share = 1.0

    @property
    def column(self) -> str:
        return f"rule_{self.name}"

    @property
    def expectation(self) -> Expectation:
        return flag(self.name, self.rule, self.column, mostly=self.mostly)


class CheckParams(StageParams):
    """An entry of the section `quality`; its gate takes the same entry."""

    of: str
    suite: str
    expect: tuple[Rule, ...] = ()
    bounds: dict[str, float] = Field(default_factory=dict)

    @field_validator("suite")
    @classmethod
    def _fits(cls, suite: str, info: ValidationInfo) -> str:
        if suite not in SUITES:
            raise ValueError(f"there is no suite of this name; there are {', '.join(SUITES)}")
        table = str(info.data.get("of", suite)).split("/")[0]
        if table != suite:
            raise ValueError(f"data/{info.data['of']} is a table of {table}; write `suite: {table}`")
        return suite

    @field_validator("expect")
    @classmethod
    def _holds(cls, rules: tuple[Rule, ...], info: ValidationInfo) -> tuple[Rule, ...]:
        suite = SUITES.get(info.data.get("suite", ""))
        if suite is None:
            return rules
        taken = {e.name for e in suite.expectations}
        for rule in rules:
            if rule.name in taken:
                raise ValueError(f"the name {rule.name} is taken; choose another")
            taken.add(rule.name)
            fault = _fault_of(rule.rule, suite.table.name)
            if fault:
                raise ValueError(f"the rule {rule.name}: {fault}")
        return rules

    @field_validator("bounds")
    @classmethod
    def _known(cls, bounds: dict[str, float], info: ValidationInfo) -> dict[str, float]:
        suite = SUITES.get(info.data.get("suite", ""))
        if suite is None:
            return bounds
        for name, value in bounds.items():
            expectation = next((e for e in suite.expectations if e.name == name and e.bound), None)
            if expectation is None:
                known = ", ".join(suite.bounds)
                raise ValueError(f"the suite {suite.table.name} has no bound {name}; it has {known}")
            if expectation.bound == "mostly" and not 0 < value <= 1:
                raise ValueError(f"{name} is a share of the rows, above 0 and at most 1")
        return bounds

    @property
    def expectations(self) -> tuple[Expectation, ...]:
        """The suite's, with this instance's bounds, and this instance's rules."""
        found = []
        for e in SUITES[self.suite].expectations:
            if e.bound and e.name in self.bounds:
                value = self.bounds[e.name]
                whole = e.bound != "mostly" and value.is_integer()
                e = replace(e, kwargs={**e.kwargs, e.bound: int(value) if whole else value})
            found.append(e)
        return (*found, *(rule.expectation for rule in self.expect))


@functools.cache
def _fault_of(rule: str, table: str) -> str | None:
    """Why a text is not a condition over a suite's columns, asked of DuckDB over empty tables."""
    from pipeline.tables import rules  # DuckDB is loaded for an entry with rules only

    try:
        return rules.within(rules.LIMITS, repr(rule), lambda: _fault_in(rule, table))
    except Refused as error:
        return str(error)


def _fault_in(rule: str, table: str) -> str | None:
    from pipeline.tables import sql
    from pipeline.tables.rules import check_expression

    connection = sql.empty([])
    try:
        check_expression(connection, rule, {table})
        # Beside a column of the row, so that an aggregate over all rows is refused.
        suite = SUITES[table]
        described = connection.sql(f"DESCRIBE SELECT {suite.names[0]}, ({rule}\n) FROM ({suite.checked})").fetchall()
    except Refused as error:
        return str(error)
    except sql.duckdb.Error as error:
        return f"{rule!r} is not a condition over {table}: {str(error).splitlines()[0]}"
    types = [type_ for _, type_, *_ in described[1:]]
    return None if types == ["BOOLEAN"] else f"{rule!r} must be a condition; it is {', '.join(types)}"
