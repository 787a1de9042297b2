"""Every table and every column of the pipeline: type, nullability, meaning.

A stage reads tables and adds one. The schema of a table never depends on a parameter: a new scorer is a new table
of `scores`, not a new column. Rows join by ids made from content (`tables/ids.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

TEXT = pa.string()
REAL = pa.float64()
COUNT = pa.int64()
FLAG = pa.bool_()
IDS = pa.list_(pa.int32())
REALS = pa.list_(pa.float32())
MESSAGES = pa.list_(pa.struct([pa.field("role", TEXT, False), pa.field("content", TEXT, False)]))
# A cell of arrays, in the order of their names; `tables/tensors.py` reads and writes it.
TENSORS = pa.list_(pa.struct([
    pa.field("name", TEXT, False),  # image, x, edges, points, mask, noise, ...
    pa.field("dtype", TEXT, False),  # u8 i32 i64 f16 f32 f64, little-endian in C order; or png, jpeg: a whole file
    pa.field("shape", pa.list_(pa.int32()), False),  # of a whole file, its length
    pa.field("digest", TEXT, False),  # of the bytes, wherever they lie: all that an id takes of them
    pa.field("data", pa.binary(), True),  # the bytes, or null and
    pa.field("uri", TEXT, True),  # where they lie, for data too large to be copied
]))  # fmt: skip


@dataclass(frozen=True)
class Column:
    """One column: its Arrow type, what it means in a sentence, and whether a row may lack it."""

    type: pa.DataType
    about: str
    nullable: bool = False


@dataclass(frozen=True)
class Table:
    """A table: its folder under `data/`, the columns that make a row unique, and its columns in order."""

    name: str
    key: tuple[str, ...]
    columns: Mapping[str, Column]

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([pa.field(name, c.type, c.nullable) for name, c in self.columns.items()])

    def batch(self, **columns: Any) -> pa.RecordBatch:
        """Columns as arrays or lists, to a batch of exactly this schema; a nullable column may be left out."""
        unknown = columns.keys() - self.columns.keys()
        if unknown:
            raise ValueError(f"table {self.name} has no column {', '.join(sorted(unknown))}")
        length = len(next(iter(columns.values())))
        arrays = []
        for name, column in self.columns.items():
            if name not in columns and not column.nullable:
                raise ValueError(f"table {self.name}: column {name} is missing")
            values = columns.get(name)
            if values is None:
                arrays.append(pa.nulls(length, column.type))
            elif isinstance(values, pa.ChunkedArray):
                arrays.append(whole(values).cast(column.type))
            elif isinstance(values, pa.Array):
                arrays.append(values.cast(column.type))
            else:
                arrays.append(pa.array(values, column.type))
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def rows(self, rows: Iterable[Mapping[str, Any]]) -> pa.RecordBatch:
        """Rows as mappings, to a batch of exactly this schema."""
        return pa.RecordBatch.from_pylist(list(rows), schema=self.schema)


def whole(column: pa.ChunkedArray) -> pa.Array:
    """A column in one piece. One that is in one is not copied, as `combine_chunks` does."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def optional(type: pa.DataType, about: str) -> Column:
    return Column(type, about, nullable=True)


PROMPT_ID = Column(TEXT, "id of the conversation to be answered; decides the part a row lies in")
DOMAIN = Column(TEXT, "the kind of task, the unit of mixtures and of gaps")
RESPONSE_ID = Column(TEXT, "id of the response that this row is about")
RANK = optional(COUNT, "from 0, in an order of training such as from easy to hard; null where none was asked for")
INPUTS = optional(TENSORS, "what is asked about beside the words: an image, a graph, noise, ...; null for text alone")

PROMPTS = Table("prompts", ("prompt_id",), {
    "prompt_id": PROMPT_ID,
    "messages": Column(MESSAGES, "the conversation so far; the last turn is the user's"),
    "domain": DOMAIN,
    "source": Column(TEXT, "where the row came from: file and line, or the name of a procedure"),
    "group": Column(TEXT, "all variants of one item share it; a group is never split over two pools"),
    "level": optional(COUNT, "difficulty, 0 is easiest"),
    "verifier": optional(TEXT, "the method that reads an answer out of a text and compares it with the reference"),
    "reference": optional(TEXT, "the right answer, as the verifier reads it"),
    "solution": optional(TEXT, "a whole answer that came with the data; read only by the backend recorded.solutions"),
    "inputs": INPUTS,
    "truth": optional(TENSORS, "the right answer where it is no text: a mask, key points, a class per node, ..."),
    "parent_ids": optional(pa.list_(TEXT), "the prompts or answers that it was made from, in the order that it shows"),
    "operator": optional(TEXT, "the method that made it from its parents; null for a prompt that was given"),
    "elicitation": optional(TEXT, "what an answer to it brings out of a model: labels, expansion, feedback, ..."),
})  # fmt: skip

DROPS = Table("drops", ("prompt_id", "rule"), {
    "prompt_id": PROMPT_ID,
    "rule": Column(TEXT, "why the prompt is not to be used: exact, near, contaminated_key, contaminated_ngram, ..."),
    "evidence": Column(TEXT, "what shows it: the twin's prompt_id, the shared n-gram, the matched pattern"),
})  # fmt: skip

RESPONSES = Table("responses", ("response_id",), {
    "response_id": Column(TEXT, "id of what came back: prompt, model identity, sampling, sample number and content"),
    "request_id": Column(TEXT, "key of the memo: what was asked, and the code that computes answers here"),
    "prompt_id": PROMPT_ID,
    "messages": Column(MESSAGES, "the conversation of the prompt: what a student is trained to answer"),
    "asked": optional(MESSAGES, "what was asked in its place, where an entry has a prompt of its own (`elicit`)"),
    "domain": DOMAIN,
    "verifier": optional(TEXT, "as in prompts"),
    "reference": optional(TEXT, "as in prompts"),
    "entry": Column(TEXT, "the entry of generate that asked, which tells two ways to ask one model apart"),
    "model_id": Column(TEXT, "identity of the model: a hash of its weights, or its declared name and version"),
    "sample": Column(COUNT, "number of the sample, from 0"),
    "seed": Column(COUNT, "seed of this sample, derived from the run's seed, the prompt and the sample number"),
    "content": optional(TEXT, "the answer, without reasoning; null if the request failed"),
    "reasoning": optional(TEXT, "thinking that the model gave apart from its answer"),
    "answer": optional(TEXT, "the short answer that the verifier reads out of content; null if it finds none"),
    "token_ids": optional(IDS, "the sampled tokens, the end token included"),
    "logprobs": optional(REALS, "natural log-probability of each sampled token, before temperature"),
    "finish_reason": Column(TEXT, "stop, length, content_filter or error"),
    "error": optional(TEXT, "why the request failed for good"),
    "prompt_tokens": optional(COUNT, "tokens of the rendered prompt"),
    "completion_tokens": optional(COUNT, "tokens of the answer"),
    "cost_usd": optional(REAL, "what the request cost in US dollars, where the endpoint's prices are known"),
    "attempts": Column(COUNT, "how often it was asked until the answer had the form that `structured` demands"),
    "fingerprint": optional(TEXT, "what the server says of its build (system_fingerprint)"),
    "inputs": INPUTS,
    "outputs": optional(TENSORS, "what was answered where it is no text"),
})  # fmt: skip

SCORES = Table("scores", ("response_id",), {
    "response_id": RESPONSE_ID,
    "prompt_id": PROMPT_ID,
    "score": optional(REAL, "the number; null means that the scorer does not apply to this row"),
    "quantities": Column(pa.map_(TEXT, REAL), "the raw numbers that the score was made from, by name"),
    "vector": optional(REALS, "an embedding or a distribution, where the scorer gives one"),
    "detail": optional(TEXT, "a sentence for a person"),
})  # fmt: skip

GAPS = Table("gaps", ("domain",), {
    "domain": DOMAIN,
    "n": Column(COUNT, "prompts of the domain that both entries answered"),
    "teacher_pass": optional(REAL, "share of the teacher's answers that are solved"),
    "student_pass": optional(REAL, "share of the student's answers that are solved"),
    "teacher_ppl": optional(REAL, "teacher's perplexity per token on its own answers"),
    "student_ppl": optional(REAL, "student's perplexity per token on the teacher's answers"),
    "ratio": optional(REAL, "student_ppl / teacher_ppl"),
    "gap": optional(REAL, "teacher_pass - student_pass"),
    "gap_low": optional(REAL, "lower end of its 95 % interval over prompts"),
    "gap_high": optional(REAL, "upper end of it"),
    "hard_negatives": optional(COUNT, "prompts that the student gets wrong and is sure of"),
    "weight": Column(REAL, "the domain's share of the mixture that follows; sums to 1"),
    "cost_per_solved": optional(REAL, "teacher's completion tokens per solved prompt"),
})  # fmt: skip

SELECTIONS = Table("selections", ("response_id",), {
    "response_id": RESPONSE_ID,
    "prompt_id": PROMPT_ID,
    "domain": DOMAIN,
    "kept": Column(FLAG, "whether the response is to be trained on"),
    "weight": Column(REAL, "weight of a kept response in the loss; 0 if not kept"),
    "reason": Column(TEXT, "why it was kept or not"),
    "tokens": Column(COUNT, "its cost under a budget of tokens: those of the answer, as its model counts them"),
    "rank": RANK,
})  # fmt: skip

SPANS = pa.list_(pa.struct([pa.field("start", pa.int32(), False), pa.field("end", pa.int32(), False)]))
TEMPERED = pa.list_(pa.struct([pa.field("temperature", REAL, False), pa.field("tail_mass", REALS, False)]))
EXAMPLE_COLUMNS = {
    "example_id": Column(TEXT, "id of the tokens, the spans, and the inputs and outputs where there are any"),
    "prompt_id": PROMPT_ID,
    "domain": DOMAIN,
    "token_ids": Column(IDS, "what stands at each place: the whole conversation in tokens, or classes; -1 if unknown"),
    "spans": Column(SPANS, "half-open ranges of places that are trained on"),
    "weight": Column(REAL, "weight in the loss"),
    "template_hash": Column(TEXT, "hash of the chat template that rendered it"),
    "tokenizer_hash": Column(TEXT, "hash of the tokenizer that cut it"),
    "response_ids": Column(pa.list_(TEXT), "the responses it was made from"),
    "inputs": optional(TENSORS, "what the student sees where it is not the tokens"),
    "outputs": optional(TENSORS, "what it learns where it is not an outcome: a continuous target"),
    "reward": optional(REAL, "how good the answer is; 1 right and 0 wrong by its verifier, null if nothing can tell"),
    "verifier": optional(TEXT, "as in prompts: an example carries what an answer to it is judged by"),
    "reference": optional(TEXT, "as in prompts"),
    "rank": RANK,
}
EXAMPLES = Table("examples", ("example_id",), EXAMPLE_COLUMNS)

SIGNALS = Table("signals", ("example_id",), {
    **EXAMPLE_COLUMNS,
    "teacher_id": Column(TEXT, "identity of the model whose distribution this is"),
    "topk_ids": optional(pa.list_(IDS), "[N, K] ids of the K likeliest tokens at each loss token, likeliest first"),
    "topk_logprobs": optional(pa.list_(REALS), "[N, K] their natural log-probabilities"),
    "topk_gaps": optional(IDS, "[N * K] instead of both, if compact: ascending ids, each as its gap to the last"),
    "topk_steps": optional(IDS, "[N * K] and how far below the likeliest each is, in steps of 1/32 nat"),
    "tail_mass": Column(REALS, "[N] probability of all other tokens together"),
    "target_logprob": Column(REALS, "[N] log-probability of the token that stands there"),
    "temperature": Column(REAL, "temperature that the distribution was taken at"),
    "tempered": optional(TEMPERED, "at further temperatures the mass [N] of all others; the K keep their ratios"),
    "features": optional(TENSORS, "what else the teacher computed, by tap: states, maps, attention, raw logits, ..."),
})  # fmt: skip

ROLLOUTS = Table("rollouts", ("example_id",), {
    **EXAMPLE_COLUMNS,
    "step": Column(COUNT, "the step of the training at which the student gave this answer, from 1"),
})  # fmt: skip

EVALS = Table("evals", ("task", "item_id"), {
    "task": Column(TEXT, "the benchmark: name of the prompt pool"),
    "item_id": Column(TEXT, "what is judged: a prompt_id, or prompt_id/place where an item is judged place by place"),
    "prompt_id": PROMPT_ID,
    "domain": DOMAIN,
    "level": optional(COUNT, "difficulty of the item"),
    "model": Column(TEXT, "name of the model's instance"),
    "content": optional(TEXT, "the greedy answer, where the metric is about one"),
    "prediction": optional(TEXT, "the short answer read out of it"),
    "target": optional(TEXT, "the reference answer"),
    "metric": optional(REAL, "of accuracy 1 if the prediction is right, 0 if not; null where it does not apply"),
    "measure": Column(TEXT, "what the metric measures: accuracy, pass@4, agreement, acceptance, seconds, ..."),
    "quantities": optional(pa.map_(TEXT, REAL), "the raw numbers beside the metric, by name: n, c, tokens, ..."),
    "confidence": optional(REAL, "probability the model gave its own answer: exp of the sum of its log-probabilities"),
    "finish_reason": Column(TEXT, "stop or length"),
    "outputs": optional(TENSORS, "what was answered where it is no text"),
})  # fmt: skip

LABELS = Table("labels", ("said_at", "response_id"), {
    "response_id": RESPONSE_ID,
    "prompt_id": PROMPT_ID,
    "good": optional(FLAG, "whether a person calls the response good; null takes back what was said of it before"),
    "note": optional(TEXT, "why, in the person's words"),
    "said_at": Column(TEXT, "when it was said, in UTC: of what was said of a response the last counts"),
})  # fmt: skip

# Rollouts lie beside the model that was trained on them, in data/models/<name>/rollouts; all others in folders of
# their own names. Labels are a person's: no instance writes them.
TABLES: dict[str, Table] = {
    t.name: t for t in (PROMPTS, DROPS, RESPONSES, SCORES, GAPS, SELECTIONS, EXAMPLES, SIGNALS, ROLLOUTS, EVALS, LABELS)
}
