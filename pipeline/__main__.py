"""The command line: `stillhouse <command>`, the same as `python -m pipeline <command>`.

`dvc.yaml` calls `plan` and `<stage> <instance>`; people call the rest.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline import warm
from pipeline.errors import Refused, printable

ABOUT = "From prompts to an evaluated student. `dvc repro` runs the graph; these commands check, ask and explain."
DATA = Path("data")
PARAMS = Path("params.yaml")


def run_stage(stage: str, instance: str) -> None:
    """Run one instance, after checking that the plan on disk is what the parameters say now."""
    from pipeline import plan
    from pipeline.execution import limit_threads
    from pipeline.stage import run_instance

    label = f"{stage}@{instance}"
    resolved = plan.resolve(plan.load(PARAMS), only=label)
    limit_threads(resolved.settings.threads)
    if label not in resolved.instances:
        names = ", ".join(i.name for i in resolved.of(stage)) or "none"
        raise Refused(f"{PARAMS} has no {plan.SECTION_OF[stage]}.{instance}; there are: {names}")
    chosen = resolved.instances[label]
    plan.current(chosen, DATA)
    # In a temporary experiment DVC_ROOT is the main workspace: its memo is shared.
    run_instance(chosen, resolved.settings, DATA, Path(os.environ.get("DVC_ROOT", ".")))


def run_plan() -> None:
    """Check `params.yaml` whole and write `data/plan/`."""
    from pipeline import plan

    resolved = plan.resolve(plan.load(PARAMS))
    plan.write(resolved, DATA)
    print(f"plan: {len(resolved.instances)} instances, all parameters valid")


def run_check() -> None:
    """Check `params.yaml` and write nothing."""
    from pipeline import plan

    resolved = plan.resolve(plan.load(PARAMS))
    print(f"params.yaml is valid: {len(resolved.instances)} instances")


def run_warm(command: list[str]) -> None:
    """Run a command, such as `dvc repro`, with a warm parent that its stages are forked from."""
    from pipeline import plan

    sys.exit(warm.run_beside(command, plan.resolve(plan.load(PARAMS)).settings.threads))


def parser() -> argparse.ArgumentParser:
    """All commands: those for people, then a command for every stage, which `dvc.yaml` calls."""
    from pipeline import commands as people
    from pipeline.plan import ALONE, STAGES
    from pipeline.plugins import KINDS

    top = argparse.ArgumentParser(prog="stillhouse", description=ABOUT)
    commands = top.add_subparsers(dest="verb", required=True, metavar="command")

    def add(name: str, run: Callable[..., None], text: str, more: str = "") -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}. {more}".rstrip())
        command.set_defaults(run=run)
        return command

    def as_json(command: argparse.ArgumentParser) -> None:
        command.add_argument("--json", action="store_true", dest="as_json", help="print JSON")

    add("plan", run_plan, "check params.yaml and resolve it into data/plan/")
    add("check", run_check, "check params.yaml and write nothing")
    more = "An instance that must run is taken from DVC's run cache where the same was run before."
    as_json(add("status", people.status, "what `dvc repro` would run now, and why", more))
    warm_one = add("warm", run_warm, "run a command, such as `dvc repro`, with the heavy imports paid once")
    warm_one.add_argument("command", nargs=argparse.REMAINDER, help="the command with its arguments")
    add("results", people.results, "the result of the last run, and where its time went")

    more = "The first 6 characters of an id are enough, if no other id begins with them."
    command = add("lineage", people.lineage, "from a model back to its prompts, or from a row to what it taught", more)
    text = "an instance (`kd`, `train@kd`, `examples/coverage`), or a row's prompt_id, response_id or example_id"
    command.add_argument("id", help=text)
    as_json(command)
    more = "Without a text, the views and their columns are listed. It can read the tables and nothing else."
    command = add("query", people.query, "what one SELECT says about the tables", more)
    command.add_argument(
        "sql", nargs="?", help='such as "select domain, avg(agreement.score) from scores_wide group by 1"'
    )
    as_json(command)
    command = add("methods", people.methods, "every method that `use:` may name, with its paper")
    command.add_argument("kind", nargs="?", choices=KINDS, help=f"one of {', '.join(KINDS)}", metavar="kind")
    command.add_argument("--markdown", action="store_true", help="print tables for a README")

    more = "It changes nothing; it asks each endpoint for a few tokens."
    command = add("doctor", people.doctor, "what would stop a run, found before it starts", more)
    command.add_argument(
        "--offline", action="store_true", help="ask no endpoint, and only warn of absent keys and GPUs"
    )
    more = "What it asks is kept in the memo, so the run does not ask it again; what the entry reads is made first."
    text = "a few prompts end to end on the screen: answers, scores and the tokens that would be trained on"
    command = add("preview", people.preview, text, more)
    command.add_argument("entry", nargs="?", help="an entry of generate (the first)")
    command.add_argument("--rows", type=_positive, default=10, metavar="N", help="how many prompts (10)")
    command.add_argument("--plain", action="store_true", help="no colours, as where the output is no terminal")
    command.add_argument("--full", action="store_true", help="cut no text")
    text = "the tokens, money and hours that asking will take, with intervals, from a probe"
    command = add("estimate", people.estimate, text, more)
    command.add_argument(
        "entries", nargs="*", metavar="entry", help="entries of generate (all, and served evaluations)"
    )
    command.add_argument("--rows", type=_positive, default=20, metavar="N", help="prompts that are probed (20)")
    as_json(command)
    command = add("ask", people.ask, "one model's answer to one question")
    command.add_argument("model", help="the name of an entry of acquire, train or distill")
    command.add_argument("question", help="what to ask")
    command.add_argument("--max-tokens", type=int, default=512, metavar="N", help="the longest answer (512)")
    command = add("use", people.use, "put a complete params file in place of params.yaml")
    command.add_argument("recipe", type=Path, help="such as recipes/<file>")
    command.add_argument("--force", action="store_true", help="even if params.yaml has changes that git does not hold")
    more = "fill learns the answers that the tables of responses hold, for example after `dvc pull`."
    command = add(
        "memo", people.memo, "the memo of requests: what it holds, forget old answers, learn recorded ones", more
    )
    command.add_argument("action", choices=("stats", "prune", "fill"), help="stats, prune or fill")
    command.add_argument("--days", type=float, default=90, metavar="N", help="prune what is older than N days (90)")
    text = "forget instances that no longer exist in dvc.lock, and locks of killed DVC processes"
    command = add("tidy", people.tidy, text, "Not while DVC runs.")
    command.add_argument("--orphans", action="store_true", help="remove data/.orphans too, the tables that nobody owns")

    for stage in STAGES:
        command = add(stage, functools.partial(run_stage, stage), _about(stage), "Called by `dvc repro`.")
        if stage == ALONE:
            command.set_defaults(instance=ALONE)
        else:
            command.add_argument("instance", help="the name of its entry in params.yaml")
    return top


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _about(stage: str) -> str:
    """What a stage's file says it does, read without importing it."""
    text = (Path(__file__).parent / "stages" / f"{stage}.py").read_text("utf-8")
    return text.split('"""')[1].split("\n")[0].partition(": ")[2].partition(".  ")[0].replace("%", "%%")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; a user's mistake is one message and an exit code, without a traceback."""
    warm.die_with_parent()
    given = list(sys.argv[1:] if argv is None else argv)
    delegated = warm.delegate(given)
    if delegated is not None:
        return delegated
    arguments = vars(parser().parse_args(given))
    verb, run = arguments.pop("verb"), arguments.pop("run")
    started = time.monotonic()
    try:
        run(**arguments)
    except Refused as error:
        # An error may quote what a model wrote.
        print(printable(f"{verb}: {error}"), file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # Whoever read the output has seen enough; Python must not try to flush what is left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print(f"{verb}: stopped after {time.monotonic() - started:.0f} s; what was received is kept", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
