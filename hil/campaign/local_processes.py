"""Runs the jobs of a campaign on processes of this machine."""

from __future__ import annotations

import multiprocessing as mp
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from hil.campaign.order import Order, Row, failure
from hil.interrupts import end_with_parent, interrupts_held

Work = Callable[[Order], Row]


def on_processes(orders: Sequence[Order], processes: int, work: Work) -> Iterator[Row]:
    """Rows as they come. When a process dies, every job that was at work is tried again, one at a
    time; the one that ends its process again, alone in it, is a row that failed.

    Args:
        work: a function of a module, for every process imports it anew.

    Raises:
        Exception: whatever `work` raises.
    """
    waiting, suspects = deque(orders), deque[Order]()
    while waiting or suspects:
        flying: dict[Future[Row], Order] = {}
        with _pool(processes) as pool:
            try:
                while suspects:
                    row = _submit(pool, work, suspects[0]).result()
                    suspects.popleft()
                    yield row
                while waiting or flying:
                    while waiting and len(flying) < 2 * processes:
                        # Taken out only when it flies: a pool that is broken refuses it.
                        flying[_submit(pool, work, waiting[0])] = waiting[0]
                        waiting.popleft()
                    done, _ = wait(flying, return_when=FIRST_COMPLETED)
                    for future in done:
                        row = future.result()
                        del flying[future]
                        yield row
            except BrokenProcessPool:
                if suspects:
                    yield failure(suspects.popleft(), "its process died, twice")
                    continue
                finished, lost = _divide(flying)
                suspects.extend(lost)
                yield from finished
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _divide(flying: dict[Future[Row], Order]) -> tuple[list[Row], list[Order]]:
    """What was done before the pool broke, and the jobs that were lost with it."""
    finished: list[Row] = []
    lost: list[Order] = []
    for future, order in flying.items():
        if future.done() and not future.cancelled() and future.exception() is None:
            finished.append(future.result())
        else:
            lost.append(order)
    return finished, lost


def _pool(processes: int) -> ProcessPoolExecutor:
    context = mp.get_context("spawn")
    # None outlives the campaign, however that ends.
    return ProcessPoolExecutor(processes, mp_context=context, initializer=end_with_parent)


def _submit(pool: ProcessPoolExecutor, work: Work, order: Order) -> Future[Row]:
    """Hand out a job; a pool starts its processes when they are first needed."""
    with interrupts_held():
        return pool.submit(work, order)
