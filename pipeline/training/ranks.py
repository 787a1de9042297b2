"""Ranks: processes that train one student together, each from a share of every step's rows (`run: {ranks: 2}`).

Every rank holds all models and makes the same steps: what the rows of a rank add to a gradient, to a number of items or
to a loss is added up over all before it is used. `torchrun`'s agent starts them inside the stage, whose process keeps
the lock and the scratch folder; the first rank speaks and writes. Without ranks there is one, and nothing to add up.
"""

from __future__ import annotations

import datetime
import itertools
import logging
import multiprocessing.pool
import os
import pickle
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import distributed, nn

from pipeline.core.run import How
from pipeline.core.warm import die_with_parent
from pipeline.errors import Refused, TryAgain
from pipeline.model.load import device_of

Key = TypeVar("Key")
Made = TypeVar("Made")
# How long a rank may be busy while the others wait for it, as with the rows of a large table.
PATIENCE = datetime.timedelta(days=1)
# A rank that lost another waits for so long to be ended with it, so that the first one that ended is seen to be it.
GRACE_S = 10.0
# Numbers of gradients that are added up at once.
BUCKET = 1 << 24


class Here(NamedTuple):
    """Which rank this process is, of how many."""

    rank: int
    of: int

    @property
    def first(self) -> bool:
        """Whether it is the one that speaks and writes."""
        return self.rank == 0


def here() -> Here:
    """The rank that this process is: the only one, unless `start` began it."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return Here(0, 1)
    return Here(distributed.get_rank(), distributed.get_world_size())


def over_ranks(numbers: Mapping[Key, float]) -> dict[Key, float]:
    """The sum of each number over the ranks that have it. Every rank has to ask, and waits for all."""
    if here().of == 1:
        return dict(numbers)
    found: list[Any] = [None] * here().of
    distributed.all_gather_object(found, dict(numbers))
    total: dict[Key, float] = {}
    for name, number in (each for rank in found for each in rank.items()):
        total[name] = total.get(name, 0) + number
    return total


def lies_over(tensor: torch.Tensor) -> bool:
    """Whether each rank holds a part of a tensor (torch's DTensor, which takes long to import)."""
    return hasattr(tensor, "full_tensor")


def add_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Give every rank the sum of all ranks' gradients; where no rank has one there is none. Those that lie over the
    ranks were added up on their way there."""
    if here().of == 1:
        return
    every = [p for p in dict.fromkeys(parameters) if not lies_over(p)]
    reached = over_ranks({i: 1 for i, p in enumerate(every) if p.grad is not None})
    for bucket in _buckets([every[i] for i in sorted(reached)]):
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
        flat = torch.cat([grad.flatten() for grad in grads])
        distributed.all_reduce(flat)
        for p, grad, total in zip(bucket, grads, flat.split([p.numel() for p in bucket]), strict=True):
            p.grad = grad.copy_(total.view_as(p))


def by_first(make: Callable[[], Made], otherwise: Callable[[], Made]) -> Made:
    """What the first rank makes, and the others find once it has."""
    if here().first:
        made = make()
        over_ranks({})
        return made
    over_ranks({})
    return otherwise()


def device(how: How) -> str:
    """The device to run on, asked for in a way after which processes that use it can still be forked."""
    ranks = how.settings.ranks
    if ranks > 1:
        os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    on = device_of(how.settings)
    if on == "cuda" and ranks > max(1, there := torch.cuda.device_count()):
        raise Refused(f"run.ranks: {ranks}, and there are {there} GPUs here; write `ranks: {there}`, or `device: cpu`")
    return on


def start(work: Callable[[], None], how: How, on: str) -> None:
    """Do some work on every rank, each with a device of its own. What one refuses is refused; where one dies, the
    others are ended."""
    ranks = how.settings.ranks
    if ranks == 1:
        work()
        return
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # What it says of an end is said below, in a sentence.
    logging.disable()
    with tempfile.TemporaryDirectory() as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=ranks,
            run_id=how.label,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            start_method="fork",
            signals_to_handle="SIGINT,SIGTERM",
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            elastic_launch(config, _rank)(work, how, on, Path(folder))
        except SignalException as error:
            if error.sigval == signal.SIGINT:
                raise KeyboardInterrupt from None
            sys.exit(128 + error.sigval)
        except ChildFailedError as error:
            [(rank, failure), *_] = sorted(error.failures.items())
            if (told := Path(folder) / str(rank)).exists():
                # Of a rank that this process forked, in a folder that only this user can write to. Its cause is the
                # traceback over there, which `from` would take away.
                raise pickle.loads(told.read_bytes())  # noqa: B904
            if failure.exitcode > 0:
                raise RuntimeError(f"{how.label}: rank {rank} of {ranks} ended: {failure.message}") from None
            cause = ", as a machine out of memory does" if -failure.exitcode == signal.SIGKILL else ""
            raise TryAgain(
                f"{how.label}: rank {rank} of {ranks} was ended by {failure.signal_name()}{cause}, and the others with "
                f"it. Run `dvc repro` again: it goes on from the last checkpoint (`run.checkpoint_steps`)."
            ) from None
        finally:
            logging.disable(logging.NOTSET)
            for number, handler in handlers.items():
                signal.signal(number, handler)


def _rank(work: Callable[[], None], how: How, on: str, folder: Path) -> None:
    """One rank, from its beginning to its end."""
    die_with_parent()
    # Whoever started it ends it.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.disable(logging.NOTSET)
    rank = int(os.environ["RANK"])
    how.taken_over(speaks=rank == 0)
    try:
        if on == "cuda":
            torch.cuda.set_device(rank)
        elif sys.platform == "linux":
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        distributed.init_process_group("cpu:gloo,cuda:nccl" if on == "cuda" else "gloo", timeout=PATIENCE)
        work()
        distributed.destroy_process_group()
    except Exception as error:
        if _alone(error):
            time.sleep(GRACE_S)
        told = multiprocessing.pool.ExceptionWithTraceback(error, error.__traceback__)  # type: ignore[attr-defined]
        (folder / str(rank)).write_bytes(pickle.dumps(told))
        sys.exit(1)
    finally:
        how.close()


def _alone(error: Exception) -> bool:
    """Whether a rank found another gone in what all do at once, be it our sums or what torch does for shards."""
    *_, last = traceback.extract_tb(error.__traceback__)
    return isinstance(error, RuntimeError) and "torch/distributed/" in Path(last.filename).as_posix()


def _buckets(parameters: Iterable[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Parameters of one dtype, some at a time."""
    for _, alike in itertools.groupby(sorted(parameters, key=lambda p: str(p.dtype)), key=lambda p: p.dtype):
        bucket: list[nn.Parameter] = []
        for p in alike:
            bucket.append(p)
            if sum(each.numel() for each in bucket) >= BUCKET:
                yield bucket
                bucket = []
        if bucket:
            yield bucket
