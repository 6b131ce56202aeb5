"""Runs the jobs of a campaign on a Dask cluster, whose workers may come, go and die."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Any
from uuid import uuid4

from controller.errors import DeviceUnreachable, ScenarioError
from hil.campaign.code_version import code_version
from hil.campaign.extras import require
from hil.campaign.job import MEND_NO_PROCESS, NO_PROCESS, execute
from hil.campaign.order import Order, Row, failure

TRIES = 2
"""Of a job that the cluster has given up because the workers that had it died. Dask gives up after
four of them (`distributed.scheduler.allowed-failures`), also a job that only waited there."""

JOBS_PER_THREAD = 2
"""One at work, one that waits: no worker stands still, and one that dies takes little with it."""

CONNECT_S, LOOK_S, ALONE_S = 15.0, 5.0, 120.0


def on_cluster(orders: Sequence[Order], scheduler: str) -> Iterator[Row]:
    """Rows as they come. Jobs are handed out in small batches, so that a worker that joins late
    gets its share; one that dies only costs time.

    Args:
        scheduler: its address, such as tcp://10.0.0.5:8786.

    Raises:
        ScenarioError: distributed is not installed; a worker has no Loopwright, or another one.
        DeviceUnreachable: no scheduler answers, or it has no worker.
    """
    require("distributed", "--scheduler")
    from distributed import Client
    from distributed.comm.core import connect
    from distributed.security import Security

    async def called() -> None:
        # Before there is a client: one that cannot begin waits long for its own end.
        options: dict[str, Any] = Security().get_connection_args("client")
        (await connect(scheduler, timeout=CONNECT_S, **options)).abort()

    # A lost connection is told by our error, in one line instead of its tracebacks.
    for name in ("distributed.client", "distributed.utils"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        asyncio.run(called())
        client = Client(scheduler, timeout=CONNECT_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise DeviceUnreachable(
            f"no Dask scheduler answers ({error or type(error).__name__})",
            where=f"--scheduler {scheduler}",
            mend="Start one with: dask scheduler, and workers with: dask worker ADDRESS",
        ) from error
    try:
        with client:
            _check_workers(client, scheduler, any(order.replay for order in orders))
            yield from _rows(client, orders)
    except (OSError, TimeoutError) as error:
        raise DeviceUnreachable(
            f"the Dask scheduler was lost ({error or type(error).__name__})",
            where=f"--scheduler {scheduler}",
            mend="Start again: only the jobs that are missing run",
        ) from error


def _check_workers(client: Any, scheduler: str, replays: bool) -> None:
    """Every worker runs our code; those that join later are checked by each job."""
    from distributed import TimeoutError as LateError

    def told() -> tuple[str, bool]:
        # Inside, so that it travels whole to a worker without Loopwright.
        import multiprocessing

        daemon = multiprocessing.current_process().daemon
        try:
            from hil.campaign.code_version import code_version
        except ImportError:
            return "none", daemon
        return code_version(), daemon

    try:
        client.wait_for_workers(1, timeout=CONNECT_S)
    except (LateError, TimeoutError) as error:
        raise DeviceUnreachable(
            "the Dask scheduler has no worker",
            where=f"--scheduler {scheduler}",
            mend=f"Start some with: dask worker {scheduler}",
        ) from error
    for worker, (found, daemon) in client.run(told, on_error="ignore").items():
        if replays and daemon:
            raise ScenarioError(NO_PROCESS, where=str(worker), mend=MEND_NO_PROCESS)
        if found != code_version():
            raise ScenarioError(
                f"the worker runs Loopwright {found}, the campaign {code_version()}",
                where=str(worker),
                mend="Install the same version everywhere, and restart the workers",
            )


def _rows(client: Any, orders: Sequence[Order]) -> Iterator[Row]:
    from distributed import KilledWorker
    from distributed.client import FutureCancelledError

    name = f"campaign-{uuid4().hex[:12]}"
    waiting, tries = deque(orders), Counter[int]()
    flying: dict[Any, Order] = {}
    landed: SimpleQueue[Any] = SimpleQueue()
    while waiting or flying:
        # Asked anew each time: the cluster may have grown.
        threads = sum(client.nthreads().values())
        while waiting and len(flying) < max(1, JOBS_PER_THREAD * threads):
            order = waiting.popleft()
            tries[order.number] += 1
            key = f"{name}-{order.number}-{tries[order.number]}"
            future = client.submit(execute, order, key=key, pure=False)
            flying[future] = order
            future.add_done_callback(landed.put)
        future = _next(landed, client)
        order = flying.pop(future)
        try:
            yield future.result()
        except KilledWorker as error:
            if tries[order.number] < TRIES:
                waiting.append(order)
            else:
                yield failure(order, f"KilledWorker: {error}")
        except FutureCancelledError as error:
            raise ConnectionError(error.reason) from error


def _next(landed: SimpleQueue[Any], client: Any) -> Any:
    """The next future that is done.

    Raises:
        DeviceUnreachable: for a long time there was no worker.
    """
    alone_s = 0.0
    while True:
        try:
            return landed.get(timeout=LOOK_S)
        except Empty:
            alone_s = 0.0 if client.nthreads() else alone_s + LOOK_S
        if alone_s >= ALONE_S:
            raise DeviceUnreachable(
                f"the cluster has had no worker for {ALONE_S:g} s",
                where="--scheduler",
                mend="Start workers, and this campaign again: only missing jobs run",
            )
