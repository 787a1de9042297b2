"""The flow `rounds`: writes a round of the section `rounds:` into `params.yaml`, brings the graph up to date, looks at
what the round brought, and goes on or stops.

    python -m flows.rounds [kd] [--most 5] [--patience 1] [--least-diversity 0.5] [--max-cost 20]

A round is plain entries (`stillhouse unroll --rounds 1`), so a run that was killed goes on where it stopped;
`stillhouse rounds` tells what each has brought.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict, dataclass

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed, Failed, State

from flows.distill import distill, ended


class RoundsError(Exception):
    """The rounds cannot go on; the message says what to do."""


@dataclass(frozen=True)
class Row:
    """What a round brought: its student's accuracy, its gain over the student it began with and the interval of that,
    distinct pairs of neighbouring tokens among a thousand that were trained on, and the cost of all answers so far in
    US dollars."""

    round: int
    model: str
    accuracy: float
    gain: float
    low: float
    high: float
    diversity: float
    cost_usd: float


@dataclass(frozen=True)
class Stop:
    """When to stop: after `most` rounds; after `patience` in a row whose gain is not clear of zero; where diversity
    falls below this share of the first round's; where all answers have cost as much."""

    most: int = 5
    patience: int = 1
    least_diversity: float = 0.5
    max_cost: float | None = None

    def why(self, rows: list[Row]) -> str | None:
        """Why no round is to follow these; None if one is."""
        if len(rows) >= self.most:
            return f"{self.most} rounds are done"
        last = rows[-self.patience :]
        if len(last) == self.patience and all(row.low <= 0 for row in last):
            return f"no significant gain in {self.patience} round{'s' * (self.patience > 1)}"
        if rows and rows[-1].diversity < self.least_diversity * rows[0].diversity:
            return f"diversity fell to {rows[-1].diversity:.1f} of {rows[0].diversity:.1f} in the first round"
        if rows and self.max_cost is not None and rows[-1].cost_usd >= self.max_cost:
            return f"answers have cost {rows[-1].cost_usd:.2f} of {self.max_cost:.2f} US dollars"
        return None


@flow(name="rounds", persist_result=False)
def rounds(
    training: str | None = None,
    most: int = 5,
    patience: int = 1,
    least_diversity: float = 0.5,
    max_cost: float | None = None,
) -> State:
    """Go on with rounds until a rule says stop.

    Args:
        training: The student that is watched: `kd` for `train.kd_<round>` of `rounds:`. Empty: the only one.
        most: How many rounds there may be.
        patience: Stop after so many rounds in a row whose gain is not clear of zero.
        least_diversity: Stop where what is trained on is less diverse than this share of the first round's.
        max_cost: Stop where all answers have cost so many US dollars. An endpoint's own `max_cost` is never passed.
    """
    stop, log = Stop(most, patience, least_diversity, max_cost), get_run_logger()
    try:
        while True:
            found = json.loads(_stillhouse("rounds", "--json", *([training] if training else [])))
            rows = [Row(**row) for row in found["rounds"]]
            if rows:
                log.info(f"round {rows[-1].round}: {rows[-1].gain:+.1f} points, {rows[-1].accuracy:.1f} % in all")
                table = [asdict(row) for row in rows]
                create_table_artifact(table, key="rounds", description="what every round brought")
            if why := stop.why(rows):
                return Completed(name="Stopped", message=f"{why}; the last student is {rows[-1].model}")
            if found["written"] == len(rows):
                log.info(_stillhouse("unroll", "--rounds", "1").strip())
            state = distill(return_state=True)
            if not state.is_completed():
                # Anew: one that another run ended in counts as one of several, and loses its name and message.
                return State(type=state.type, name=state.name, message=state.message)
    except RoundsError as error:
        return Failed(message=str(error))


def _stillhouse(*arguments: str) -> str:
    """What a command of the pipeline prints; flows import nothing of it."""
    done = subprocess.run([sys.executable, "-m", "pipeline", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RoundsError(f"stillhouse {arguments[0]} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def main(arguments: list[str] | None = None) -> int:
    """Run the flow here and now; the exit code is that of `flows.distill`."""
    parser = argparse.ArgumentParser(prog="python -m flows.rounds", description=__doc__)
    parser.add_argument("training", nargs="?", help="whose rounds are watched, as kd for train.kd_<round>")
    for name, value in asdict(Stop()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int if isinstance(value, int) else float, default=value)
    given = parser.parse_args(arguments)
    from flows.server import running

    url = running()
    with temporary_settings({PREFECT_API_URL: url} if url else {}):
        return ended(rounds(**vars(given), return_state=True))


if __name__ == "__main__":
    sys.exit(main())
