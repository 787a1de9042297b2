"""An estimate's intervals hold the truth, nothing is asked twice, and a cap that is too low is foreseen."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from pipeline.asking.ask import ask
from pipeline.asking.examine import ExamParams
from pipeline.commands.entries import pool_asked
from pipeline.commands.estimate import Estimates, _interval, _totals, chosen, estimate, lines, ready
from pipeline.commands.works import asked_of
from pipeline.core.run import How
from pipeline.core.stage import Plan
from pipeline.errors import CapReached, Refused
from pipeline.kinds.backend import Answer
from pipeline.plan.resolve import resolve
from pipeline.stages.generate import Params, requests_of
from pipeline.tables import ids
from tests.commands.pool import params, prompt, teacher, workspace
from tests.servers import MODEL

PRICE_IN, PRICE_OUT = 1.0, 2.0


@dataclass
class Talker:
    """A server whose answers are of very different lengths; it counts what it is asked."""

    url: str
    asked: list[dict] = field(default_factory=list)


@contextmanager
def talking(*, usage: bool = True) -> Iterator[Talker]:
    """A server on loopback, ended with the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._say({"data": [{"id": MODEL}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            talker.asked.append(body)
            question = body["messages"][-1]["content"]
            if question.startswith("fails"):
                self._say({"error": {"message": "no"}}, 400)
                return
            content = f"{question} {body['seed']}"
            answer = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
            tokens = {"prompt_tokens": len(question), "completion_tokens": length(question, body["seed"])}
            self._say({"model": MODEL, "choices": [answer], **({"usage": tokens} if usage else {})})

        def _say(self, content: object, status: int = 200) -> None:
            raw = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    talker = Talker(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield talker
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def length(question: str, seed: int) -> int:
    """Lengths with a long tail, of which half is the prompt's own and half the sample's."""
    share = (ids.draw(1, question) + ids.draw(2, question, seed)) / 2
    return int(20 / (1.02 - share))


def questions(n: int, name: str = "question") -> list[dict]:
    return [prompt(f"{name} {i} {'x' * int(40 * ids.draw(3, str(i)))}") for i in range(n)]


def estimated(resolved: Plan, data: Path, root: Path, rows: int = 20) -> Estimates:
    return estimate(resolved, [teacher(resolved)], data, root, rows)


def run(resolved: Plan, data: Path, root: Path) -> Sequence[Answer]:
    """What the stage asks: every request of the entry."""
    entry = teacher(resolved)
    assert isinstance(entry.params, Params)
    model, sampling = data / "models" / "teacher", entry.params.sampling()
    requests = requests_of(entry.params, pool_asked(entry, data), model)
    return list(ask(model, requests, sampling, How(resolved.settings, root, entry.label)).values())


def test_the_intervals_hold_the_truth_and_a_run_asks_only_the_rest(tmp_path: Path) -> None:
    with talking() as talker:
        resolved, data = workspace(params(talker.url), tmp_path, questions(150), dropped=[])
        [found] = estimated(resolved, data, tmp_path).entries
        assert len(talker.asked) == found.probe == found.known == 20
        assert (found.requests, found.remaining) == (300, 280)
        again = estimated(resolved, data, tmp_path)
        assert len(talker.asked) == 20
        # The pace of the first probe is remembered.
        assert again.entries[0].hours == found.hours is not None
        assert again.entries[0].probe == 0
        probed = {json.dumps(body, sort_keys=True) for body in talker.asked}
        answers = run(resolved, data, tmp_path)
        assert len(talker.asked) == 300
        rest = [body for body in talker.asked if json.dumps(body, sort_keys=True) not in probed]
        assert len(rest) == 280
        asked = sum(len(body["messages"][0]["content"]) for body in rest)
        said = sum(length(body["messages"][0]["content"], body["seed"]) for body in rest)
        for interval, truth in (
            (found.prompt_tokens, asked),
            (found.completion_tokens, said),
            (found.tokens, asked + said),
            (found.cost_usd, (asked * PRICE_IN + said * PRICE_OUT) / 1e6),
        ):
            assert interval is not None
            assert interval.low < truth < interval.high
            assert interval.low < interval.value < interval.high < 2 * truth
        assert len(answers) == 300
        [after] = estimated(resolved, data, tmp_path).entries
        assert after.remaining == 0
        assert after.tokens is not None and after.hours is not None and after.cost_usd is not None
        assert after.tokens.high == after.hours.high == after.cost_usd.high == 0.0
        assert len(talker.asked) == 300


def test_a_prompt_of_the_entry_is_what_is_asked_and_paid_for(tmp_path: Path) -> None:
    with talking() as talker:
        given = params(talker.url)
        given["generate"]["teacher"]["elicit"] = {"system": "Be brief.", "template": "Think first: {prompt}"}
        resolved, data = workspace(given, tmp_path, questions(12))
        [found] = estimated(resolved, data, tmp_path, rows=5).entries
        assert len(talker.asked) == found.probe == 5 and found.requests == 24
        run(resolved, data, tmp_path)
        assert len(talker.asked) == 24
        for body in talker.asked:
            system, question = body["messages"]
            assert system["content"] == "Be brief." and question["content"].startswith("Think first: question ")


def test_the_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """Of a hundred pools whose lengths have a long tail, twenty are looked at: some tails are not among them."""
    held = 0
    for pool in range(100):
        lengths = np.array([float(length(f"{pool} {i}", 0)) for i in range(400)])
        probe, rest = lengths[:20], lengths[20:]
        interval = _interval(*_totals(probe, len(rest), len(rest), np.random.default_rng(pool)))
        held += interval.low <= rest.sum() <= interval.high
    assert 86 <= held <= 99


def test_a_cap_that_the_run_would_reach_is_foreseen_and_where(tmp_path: Path) -> None:
    with talking() as talker:
        given = params(talker.url, max_cost=0.02, max_tokens=10_000_000, concurrency=1)
        resolved, data = workspace(given, tmp_path, questions(150))
        found = estimated(resolved, data, tmp_path)
        cost, tokens = sorted(found.caps, key=lambda cap: cap.unit)
        assert (cost.unit, cost.reached, tokens.unit, tokens.reached) == ("max_cost", "yes", "max_tokens", "no")
        assert cost.at is not None
        foreseen = int(cost.at.split("after about ")[1].split(" of")[0])
        with pytest.raises(CapReached):
            run(resolved, data, tmp_path)
        assert foreseen * 0.7 < len(talker.asked) - 20 < foreseen * 1.3
        text = "\n".join(lines(found))
        assert "run.endpoints.teacher.max_cost is $0.02" in text
        assert "The run would stop there, in generate@teacher after about" in text


def test_batch_files_have_their_price_and_are_not_waited_for(tmp_path: Path) -> None:
    with talking() as talker:
        full, data = workspace(params(talker.url), tmp_path, questions(60))
        half = resolve(params(talker.url, batch={"price": 0.5}))
        [usual] = estimated(full, data, tmp_path).entries
        [batched] = estimated(half, data, tmp_path).entries
        assert usual.cost_usd is not None and batched.cost_usd is not None
        assert batched.cost_usd.value == pytest.approx(usual.cost_usd.value / 2)
        assert batched.hours is None and "24 hours" in batched.pace
        assert len(talker.asked) == 20


def test_hours_are_those_of_requests_always_in_flight(tmp_path: Path) -> None:
    with talking() as talker:
        few, data = workspace(params(talker.url, concurrency=2), tmp_path, questions(60))
        [found] = estimated(few, data, tmp_path).entries
        [eight] = estimated(resolve(params(talker.url, concurrency=16)), data, tmp_path).entries
        assert found.hours is not None and eight.hours is not None
        assert eight.hours.value == pytest.approx(found.hours.value / 8)
        assert "if 2 requests are always in flight" in found.pace


def test_what_a_server_does_not_tell_is_not_known(tmp_path: Path) -> None:
    with talking(usage=False) as talker:
        resolved, data = workspace(params(talker.url), tmp_path, questions(30))
        found = estimated(resolved, data, tmp_path)
        [entry] = found.entries
        assert entry.tokens is entry.cost_usd is found.total["cost_usd"] is None
        assert entry.hours is not None
        assert "tokens     not known" in "\n".join(lines(found))


def test_failures_of_the_probe_are_told(tmp_path: Path) -> None:
    with talking() as talker:
        resolved, data = workspace(params(talker.url), tmp_path, questions(10) + questions(10, "fails"))
        [found] = estimated(resolved, data, tmp_path).entries
        assert (found.failed, found.known) == (10, 10)
        nothing, empty = workspace(params(talker.url), tmp_path / "other", questions(3, "fails"))
        with pytest.raises(Refused, match="none of the 3 requests of the probe was answered: HTTP 400"):
            estimated(nothing, empty, tmp_path)


def test_a_local_model_costs_no_money_and_its_time_is_an_upper_bound(tmp_path: Path) -> None:
    pool = [prompt(f"add {n:03d} {3 * n:03d}") for n in range(40)]
    resolved, data = workspace(params(None), tmp_path, pool)
    found = estimated(resolved, data, tmp_path, rows=5)
    [entry] = found.entries
    assert (entry.requests, entry.probe, entry.remaining) == (80, 5, 75)
    assert entry.cost_usd is not None and entry.cost_usd.high == 0
    assert entry.hours is not None and 0 < entry.hours.low <= entry.hours.high < 0.1
    assert entry.prompt_tokens is not None and entry.prompt_tokens.low == entry.prompt_tokens.high
    text = "\n".join(lines(found))
    assert "money      none" in text and "at most: the probe took" in text


def test_served_models_are_estimated_where_they_are_judged_too(tmp_path: Path) -> None:
    with talking() as talker:
        resolved, data = workspace(params(talker.url, evaluated=True), tmp_path, questions(12))
        entries = chosen(resolved, [])
        assert [entry.label for entry in entries] == ["generate@teacher", "evaluate@teacher"]
        able, waiting = ready(resolved, entries, data)
        assert set(able["evaluate@teacher"]) == {"acquire@teacher", "ingest@bench"} and not waiting
        found = estimate(resolved, entries, data, tmp_path, 3)
        assert [(e.requests, e.probe) for e in found.entries] == [(24, 3), (4, 3)]
        total, parts = found.total["tokens"], [e.tokens for e in found.entries]
        assert total is not None and total.value == pytest.approx(sum(p.value for p in parts if p))
        assert [entry.label for entry in chosen(resolved, ["teacher", "teacher"])] == ["generate@teacher"]
        with pytest.raises(Refused, match=r"no generate\.absent"):
            chosen(resolved, ["absent"])


def test_all_that_judges_a_served_model_is_counted_and_what_is_asked_twice_once(tmp_path: Path) -> None:
    bench = {"model": "teacher", "pool": "bench"}
    with talking() as talker:
        given = params(talker.url, evaluated=True)
        given["evaluate"] |= {
            "drawn": {**bench, "use": "answers.sampled", "k": 2, "n": 4},
            "votes": {**bench, "use": "answers.majority", "n": 6},
        }
        given["compare"] = {"like": {"model": "base", "against": "teacher", "pool": "bench", "use": "fidelity.answers"}}
        resolved, data = workspace(given, tmp_path, questions(12))
        entries = chosen(resolved, [])
        assert [entry.label for entry in entries][1:] == [
            "evaluate@teacher", "evaluate@drawn", "evaluate@votes", "compare@like",
        ]  # fmt: skip
        found = estimate(resolved, entries, data, tmp_path, 3)
    # Greedy answers to four items are asked for once, and of six drawn answers four are those of before.
    asked = {entry.label: (entry.model, entry.requests) for entry in found.entries}
    assert asked == {
        "generate@teacher": ("teacher", 24), "evaluate@teacher": ("teacher", 4), "evaluate@drawn": ("teacher", 16),
        "evaluate@votes": ("teacher", 8),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("use", "asked"),
    [
        ({"use": "answers.greedy"}, [("one", 0.0, 1)]),
        ({"use": "answers.sampled", "n": 4, "temperature": 0.5}, [("one", 0.5, 4)]),
        ({"use": "fidelity.answers"}, [("one", 0.0, 1), ("two", 0.0, 1)]),
        ({"use": "memorisation.exposure", "among": "strangers"}, []),
        ({"use": "cost.latency"}, []),
        ({"use": "acceptance.decoded"}, []),
    ],
)
def test_what_an_evaluator_asks_is_heard_without_a_model(use: dict[str, object], asked: list[tuple]) -> None:
    given = ExamParams.model_validate({"model": "one", "pool": "bench", **use})
    models = [Path("one"), Path("two")][: 1 + given.beside()]
    heard = asked_of(given, models)
    assert sorted((folder.name, sampling.temperature, k) for folder, sampling, k, _ in heard) == asked
