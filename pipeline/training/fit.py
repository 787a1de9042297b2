"""Fit: stored rows and model folders become a student's model folder."""

from __future__ import annotations

import ctypes
import functools
import json
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import transformers
from safetensors.torch import save_file
from torch import nn

from pipeline.backends.local import LocalModel
from pipeline.core.methods import find
from pipeline.core.run import How
from pipeline.errors import Refused
from pipeline.kinds.backend import Sampling, card_of
from pipeline.kinds.feed import Draw
from pipeline.kinds.network import Network
from pipeline.kinds.objective import OUTCOMES, Step
from pipeline.kinds.verifier import answer_of, metric_of
from pipeline.model import heads
from pipeline.model.chat import Chat
from pipeline.model.folder import MOMENTS, TOKENIZER_FILES, finish, network_of
from pipeline.tables import ids
from pipeline.tables.parquet import Scan, folder_digest, part_name
from pipeline.training import ranks, shards
from pipeline.training.across import Across
from pipeline.training.adapter import merged, only, with_adapter
from pipeline.training.card import card_of_student
from pipeline.training.checkpoints import Checkpoints
from pipeline.training.fitting import trained_tokens
from pipeline.training.loop import OWN, Trainer, Turn
from pipeline.training.mixture import Mixture
from pipeline.training.optimizers import moments_of
from pipeline.training.places import places
from pipeline.training.proof import told
from pipeline.training.recipe import HeldOut, StudentParams
from pipeline.training.reporters import missing, reports
from pipeline.training.rows import Rows, by_answer
from pipeline.training.shadow import Shadow
from pipeline.training.terms import Term
from pipeline.training.watch import RIGHT, Watch

ROLLOUTS = "rollouts"


def fit(
    params: StudentParams,
    rows: Scan,
    student: Path,
    teacher: Path | None,
    out: Path,
    how: How,
    name: str,
    data: Path,
    notes: dict[str, Any],
    texts: Scan | None = None,
) -> None:
    """Train a student on stored rows, beside a live teacher if there is one; `texts` are what the rows were cut from,
    for a teacher of other tokens."""
    for text in (*missing(how.settings), *params.unsplit(how.settings)):
        raise Refused(text)
    if alone := params.undivided(how.settings):
        how.say(f"{alone[0]}: one process does it, and not `run.ranks: {how.settings.ranks}`")
        how.settings = how.settings.model_copy(update={"ranks": 1})
    by_domain = trained_tokens(rows, student, None if params.crosses() else teacher, params.of)
    device = ranks.device(how)
    more = [*([teacher] if teacher else []), *(texts.folders if texts else [])]
    inputs = [folder_digest(folder) for folder in (*rows.folders, student, *more)]
    packages = [version(package) for package in ("torch", "transformers")]
    kept = how.checkpoints / name
    processors = device, how.settings.threads, how.settings.ranks, *(["shard"] if how.settings.shard else [])
    place = kept / ids.digest(how.code, params.model_dump(mode="json"), inputs, packages, *processors)
    place.mkdir(parents=True, exist_ok=True)
    notes |= {"ranks": how.settings.ranks, **({"shard": True} if how.settings.shard else {})}

    def learn() -> None:
        torch.set_num_threads(how.settings.threads)
        _keep_pages()
        # A mask is passed where it is needed; the advice to pass one always does not apply.
        transformers.utils.logging.set_verbosity_error()
        trainer = trainer_of(params, rows, place / "rows.arrow", student, teacher, how, device, texts)
        for line in told(by_domain, trainer.pulls()):
            how.say(line)
        with reports(how) as report:
            curve = trainer.run(Checkpoints(place), how.settings.checkpoint_steps, how.progress, report)
        net: Any = trainer.kept
        whole = shards.gathered(net) if trainer.split else None
        if ranks.here().first:
            if whole is not None:
                net = shards.filled(trainer.networks["student"].load(student, "float32"), whole)
            _write(trainer, net, curve, params, student, by_domain, out, name, data)

    ranks.start(learn, how, device)
    # The last checkpoint stays until the next success: a kill before DVC has seen the output costs nothing.
    for old in kept.iterdir():
        if old != place:
            shutil.rmtree(old)


def _write(
    trainer: Trainer,
    net: Any,
    curve: Sequence[Mapping[str, float]],
    params: StudentParams,
    student: Path,
    by_domain: Mapping[str, int],
    out: Path,
    name: str,
    data: Path,
) -> None:
    """The student as a folder, with its card and its curve."""
    sizes = [(id(p) in trainer.learning, p.numel()) for p in trainer.parts["student"].parameters()]
    trained = f"{sum(n for learns, n in sizes if learns):,} of {sum(n for _, n in sizes):,} weights"
    if params.adapter is not None:
        net = merged(net, lambda: trainer.networks["student"].load(student, "float32"))
    dtype = params.dtype or card_of(student)["dtype"]
    trainer.networks["student"].save(net.cpu().to(getattr(torch, dtype)), out)
    for file in TOKENIZER_FILES:
        if (student / file).exists():
            shutil.copyfile(student / file, out / file)
    card = finish(out, dtype)
    (out / "model.json").write_text(json.dumps(card, indent=1, sort_keys=True) + "\n", "utf-8")
    if params.keep_moments:
        (out / MOMENTS).parent.mkdir()
        save_file(moments_of(trainer.parts["student"], trainer.optimizers["student"]), out / MOMENTS)
    (out / "README.md").write_text(card_of_student(name, params, by_domain, trained, curve, data), "utf-8")
    (out / "training.jsonl").write_text("".join(json.dumps(p, sort_keys=True) + "\n" for p in curve), "utf-8")
    if trainer.feed is not None and hasattr(trainer.feed, "kept"):
        (out / ROLLOUTS).mkdir()
        pq.write_table(trainer.feed.kept(), out / ROLLOUTS / part_name(0), compression="zstd")


def _keep_pages() -> None:
    """Let glibc keep the memory of large tensors: to give it back and take it anew cost a tenth of a step's CPU."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD


def trainer_of(
    params: StudentParams,
    table: Scan,
    file: Path,
    student: Path,
    teacher: Path | None,
    how: How,
    device: str,
    texts: Scan | None = None,
) -> Trainer:
    """Open the models, build the objectives, and make the modules that are trained with them."""
    networks = {"student": find("network", network_of(student / "tokenizer")).factory()}
    torch.manual_seed(ids.seed_of(params.seed, "adapter"))
    net = networks["student"].load(student, (params.adapter and params.adapter.base) or "float32")
    if params.gradient_checkpointing:
        _checkpointed(net, student)
    outcomes, drop = _outcomes(params, net, networks["student"]), params.on_bad_row == "drop"
    rows = ranks.by_first(lambda: Rows.of(table, file, outcomes, drop=drop), lambda: Rows(file))
    if rows.dropped:
        how.say(f"{rows.dropped} rows are left out: their log-probabilities are no numbers (on_bad_row: drop)")
    if not len(rows):
        raise Refused(f"{how.label}: data/{params.of} has no rows; look at the reasons in its selection")
    if params.trainable:
        only(net, params.trainable, student.name)
    if ranks.here().of > 1 and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in net.modules()):
        raise Refused(
            f"run.ranks: {student.name} keeps means of its batches, which are one process's; write `ranks: 1`"
        )
    if how.settings.shard:
        shards.split(net, device, student.name)
    parts: dict[str, nn.Module] = {"student": net if params.adapter is None else with_adapter(net, params.adapter)}
    fixed: dict[str, nn.Module] = {}
    if teacher is not None:
        networks["teacher"] = find("network", network_of(teacher / "tokenizer")).factory()
        fixed["teacher"] = networks["teacher"].load(teacher, card_of(teacher)["dtype"])
    for name, begins in params.beside.items():
        folder = student if begins == "student" else teacher
        assert folder is not None
        networks[name] = networks[begins]
        parts[name] = networks[begins].load(folder, "float32")
    turns = [turn_of(turn, params, teacher is not None) for turn in params.all_turns()]
    terms = [term for turn in turns for term in turn.terms]
    if any("start" in (term.of, term.against, term.reference) for term in terms):
        networks["start"] = networks["student"]
        fixed["start"] = networks["student"].load(student, "float32")
    shadow = None if params.shadow is None else Shadow(params.shadow.every, params.shadow.decay)
    for number, term in enumerate(terms):
        if hasattr(term.objective, "modules"):
            torch.manual_seed(ids.seed_of(params.seed, "own", number))
            term.own = term.objective.modules(*_widths(term, rows, {**parts, **fixed}, networks))
            parts[f"{OWN}{number}"] = term.own
            for turn in turns:
                if term in turn.terms:
                    turn.trains = (*turn.trains, f"{OWN}{number}")
    feed = None if params.feed is None else params.feed.use.build()
    draws = None
    if feed is not None:
        # An earlier answer has no reward, so an objective that reads one learns from the last.
        every = not any("reward_B" in term.reads for term in terms)
        draws = _Sampler(parts["student"], fixed.get("teacher"), student, how, every).draw
    across = None
    if texts is not None and teacher is not None:
        across = Across(rows, texts, student / "tokenizer", teacher / "tokenizer", networks["teacher"])
    watch = None if params.held_out is None else Watch(params.held_out, rows.prompt_ids, params.seed)
    answers = None
    if params.held_out is not None and params.held_out.answers:
        answers = functools.partial(_right, params.held_out, student, how)
    made: list[Any] = []
    for number, use in enumerate(params.augment):
        torch.manual_seed(ids.seed_of(params.seed, "augment", number))
        made.append(use.build())
    leaders = [each for each in made if hasattr(each, "module")]
    parts |= dict(zip(params.leaders(), (each.module for each in leaders), strict=True))
    return Trainer(
        parts, networks, turns, rows, params, device, fixed, feed, draws, shadow, across, watch, made, answers
    )


def _right(given: HeldOut, student: Path, how: How, net: nn.Module, held: pa.Table) -> dict[str, float]:
    """The share of some greedy answers that their verifiers call right, of those that these can judge."""
    sampler, some = _Sampler(net, None, student, how), held.slice(0, given.answers)
    asked = zip(some["token_ids"].to_pylist(), some["spans"].to_pylist(), strict=True)
    draw = sampler.draw(Step(0, 1, 0, 1), 0, some, [])
    prompts = [tokens[: spans[-1]["start"]] for tokens, spans in asked]
    said = draw.sample(prompts, [0] * len(prompts), Sampling(0.0, 1.0, given.max_tokens))
    known = [right for i, tokens in enumerate(said) if (right := draw.reward(i, tokens)) is not None]
    return {RIGHT: sum(known) / len(known)} if known else {}


def _checkpointed(net: Any, student: Path) -> None:
    if not getattr(net, "supports_gradient_checkpointing", False):
        raise Refused(f"gradient_checkpointing: {student.name}'s network has no blocks to compute anew; leave it out")
    net.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def _outcomes(params: StudentParams, net: nn.Module, network: Network) -> int:
    """How many outcomes have all heads that a stored teacher teaches."""
    taught = {t.head for t in params.terms() if t.against is None and "teacher" in t.use.method.traits["reads"]}
    beside: Any = heads.of(net)
    return min([beside[name].out_features for name in taught - {heads.MAIN}], default=network.width(net))


def turn_of(turn: object, params: StudentParams, live: bool) -> Turn:
    """A turn of the parameters as the trainer takes it."""
    terms = []
    for term in turn.objectives:  # type: ignore[attr-defined]
        traits = term.use.method.traits
        against = term.against or ("shadow" if params.shadow else "teacher" if live else None)
        known = "target_N" in traits["reads"] and not traits.get("both")
        where = term.where or ("labelled" if known else "all")
        per = traits.get("per") or traits.get("across") or traits["item"]
        terms.append(
            Term(
                term.weight,
                term.use.build(),
                frozenset(traits["reads"]),
                item=traits["item"],
                per=where if per == "place" and where != "all" else per,
                alone=traits.get("alone", True),
                whole=traits.get("whole", False),
                first=frozenset(traits.get("first", ())),
                second=frozenset(traits.get("second", ())),
                chooses=traits.get("chooses", False),
                across=traits.get("across"),
                of=term.of,
                against=against,
                reference=term.reference,
                head=term.head,
                where=where,
                still=term.still,
                name=term.use.name,
            )
        )
    return Turn(turn.trains, terms, turn.steps, turn.learning_rate)  # type: ignore[attr-defined]


def _widths(
    term: Term, rows: Rows, models: Mapping[str, nn.Module], networks: Mapping[str, Network]
) -> tuple[dict[str, int], dict[str, int]]:
    """The width of every tap that a term asks for, of the model it judges and of the one it compares it with."""
    some = rows.take(range(1))
    inputs = networks["student"].collate(some)

    def of(role: str, taps: Sequence[str]) -> dict[str, int]:
        with torch.no_grad():
            seen = networks[role].look(models[role].eval(), inputs, taps)
            outcomes = seen.heads.get(term.head, seen.heads[heads.MAIN])(seen.states_ND[:1]).shape[1]
        return {OUTCOMES: outcomes} | {name: value.shape[-1] for name, value in seen.features.items()}

    stored = {name: value.shape[-1] for name, value in places(some).features.items()}
    # A shadow is as wide as what it follows.
    beside = "student" if term.against == "shadow" else term.against
    return of(term.of, term.taps(term.of)), of(beside, term.taps(term.against)) if term.against and beside else stored


class _Sampler:
    """The student of the moment as a backend: what feeds draw from."""

    def __init__(self, net: nn.Module, teacher: nn.Module | None, student: Path, how: How, every: bool = False) -> None:
        self.net, self.teacher, self.how, self.chat = net, teacher, how, Chat(student / "tokenizer")
        self.every = every

    def draw(self, step: Step, seed: int, rows: pa.Table, curve: Sequence[Mapping[str, float]]) -> Draw:
        """What a feed may use at one step."""
        rows = by_answer(rows, self.every)
        return Draw(step, seed, rows, self._sample, lambda row, tokens: self._reward(rows, row, tokens), curve)

    def _sample(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling, mixed: float = 0.0
    ) -> list[list[int]]:
        learns = self.net.training
        net: Any = self.net.eval()
        if mixed:
            assert self.teacher is not None
            net = Mixture(net, self.teacher, mixed)
        answers = LocalModel(net, self.chat, self.how).complete(prompts, seeds, sampling)
        self.net.train(learns)
        return answers

    def _reward(self, rows: pa.Table, row: int, tokens: Sequence[int]) -> float | None:
        verifier, reference = (rows[name][row].as_py() for name in ("verifier", "reference"))
        return metric_of(verifier, answer_of(verifier, self.chat.decode(tokens)), reference)
