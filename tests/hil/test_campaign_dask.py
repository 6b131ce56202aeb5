"""A campaign on a real Dask cluster: a scheduler and workers as processes, one of them killed."""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest
from distributed import KilledWorker
from distributed.client import FutureCancelledError

from controller.errors import DeviceUnreachable, ScenarioError
from hil.campaign import dask_cluster
from hil.campaign.campaign import orders_of
from hil.campaign.campaign_file import load_campaign
from hil.campaign.code_version import code_version
from hil.campaign.commands import campaign as verb
from hil.campaign.order import Order
from hil.campaign.parcel import Parcel
from tests.hil.test_campaign_runs import (
    ROOT,
    START,
    own_temporary,
    raw_jobs,
    small_campaign,
    wait_for,
)

JOBS = 16


@contextmanager
def _process(arguments: list[str], folder: Path, code: Path = ROOT) -> Generator[subprocess.Popen]:
    environment = own_temporary(folder) | {"PYTHONPATH": str(code)}
    with (folder / f"{arguments[0]}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dask", *arguments],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def _worker(address: str, folder: Path, code: Path = ROOT) -> object:
    options = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1"]
    return _process(["worker", address, *options], folder, code)


@pytest.fixture(scope="module")
def cluster(
    tmp_path_factory: pytest.TempPathFactory,
) -> Generator[tuple[str, list[subprocess.Popen], Path]]:
    folder = tmp_path_factory.mktemp("cluster")
    told = folder / "scheduler.json"
    options = ["--port", "0", "--no-dashboard", "--host", "127.0.0.1"]
    with ExitStack() as stack:
        command = ["scheduler", *options, "--scheduler-file", str(told)]
        stack.enter_context(_process(command, folder))
        wait_for(lambda: told.exists() and told.read_text().endswith("}"), "the scheduler")
        address = json.loads(told.read_text())["address"]
        workers = [stack.enter_context(_worker(address, folder)) for _ in range(3)]
        yield address, workers, folder


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_costs_no_job_and_doubles_none(
    cluster: tuple[str, list[subprocess.Popen], Path], tmp_path: Path
) -> None:
    address, workers, _ = cluster
    out = tmp_path / "out"
    command = [sys.executable, "-c", START, str(small_campaign(tmp_path, JOBS))]
    command += ["--scheduler", address, "--out", str(out), "--shard-rows", "1", "--json"]
    campaign = subprocess.Popen(
        command,
        cwd=ROOT,
        env=own_temporary(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:

        def three_done() -> bool:
            assert campaign.poll() is None, campaign.communicate()
            return len(list((out / "results").glob("*.parquet"))) >= 3

        wait_for(three_done, "three results")
        workers[0].kill()
        at_kill = len(raw_jobs(out))
        told, said = campaign.communicate(timeout=80)
    finally:
        campaign.kill()
    assert at_kill < JOBS
    assert campaign.returncode == 0, said
    assert sorted(raw_jobs(out)) == list(range(JOBS))
    found = json.loads(told)
    assert (found["jobs"], found["failures"], found["errors"]) == (JOBS, 0, {})
    assert workers[0].poll() is not None
    assert [worker.poll() for worker in workers[1:]] == [None, None]


@pytest.mark.slow
def test_a_worker_with_other_code_is_refused(
    cluster: tuple[str, list[subprocess.Popen], Path], tmp_path: Path
) -> None:
    address, _, folder = cluster
    other = tmp_path / "code"
    for package in ("controller", "hil", "plant_models"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, other / package, ignore=ignored)
    (other / "plant_models" / "one_more.py").write_text('"""One module more."""\n')
    with _worker(address, folder, other):
        error = _refused(tmp_path, address, workers=3)
    assert isinstance(error, ScenarioError)
    assert "the worker runs Loopwright 0." in error.what
    assert error.where.startswith("tcp://127.0.0.1:")
    assert "same version everywhere" in error.mend


def _refused(folder: Path, address: str, workers: int) -> Exception:
    """The error of the verb once so many workers are there."""
    from distributed import Client

    with Client(address, timeout=10, set_as_default=False) as client:
        client.wait_for_workers(workers, timeout=60)
    parser = argparse.ArgumentParser()
    verb.configure(parser)
    arguments = [str(small_campaign(folder, 2)), "--scheduler", address]
    with pytest.raises((ScenarioError, DeviceUnreachable)) as caught:
        verb.execute(parser.parse_args([*arguments, "--out", str(folder / "out")]))
    return caught.value


# --- what a healthy cluster does not do ------------------------------------------------------


class _Future:
    """A future that lands at once, with a row or an error."""

    def __init__(self, outcome: Any) -> None:
        self._outcome = outcome

    def add_done_callback(self, landed: Callable[[Any], None]) -> None:
        landed(self)

    def result(self) -> Any:
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self._outcome


class _Client:
    """A cluster of one thread whose answers are given: per job number, try by try."""

    def __init__(self, outcomes: dict[int, list[Any]]) -> None:
        self.outcomes = outcomes
        self.keys: list[str] = []

    def nthreads(self) -> dict[str, int]:
        return {"tcp://one": 1}

    def submit(self, work: object, order: Order, *, key: str, pure: bool) -> _Future:
        assert not pure
        self.keys.append(key)
        return _Future(self.outcomes[order.number].pop(0))


@pytest.fixture
def orders(tmp_path: Path) -> list[Order]:
    campaign = load_campaign(small_campaign(tmp_path, 3))
    return orders_of(campaign, Parcel("s.yaml", {}))


def test_a_job_whose_workers_always_die_is_a_row_that_failed(orders: list[Order]) -> None:
    killed = KilledWorker("key", SimpleNamespace(address="tcp://one"), 3)
    client = _Client({0: [{"job": 0}], 1: [killed, killed], 2: [killed, {"job": 2}]})
    rows = {row["job"]: row for row in dask_cluster._rows(client, orders)}
    assert rows[0] == {"job": 0}
    assert rows[2] == {"job": 2}
    assert rows[1]["passed"] is False
    assert rows[1]["error"].startswith("KilledWorker: ")
    assert len(set(client.keys)) == len(client.keys) == 5


def test_a_lost_scheduler_fails_no_job(orders: list[Order]) -> None:
    lost = FutureCancelledError("key", "scheduler-connection-lost")
    rows = dask_cluster._rows(_Client({0: [{"job": 0}], 1: [lost], 2: [lost]}), orders)
    assert next(rows) == {"job": 0}
    with pytest.raises(ConnectionError, match="scheduler-connection-lost"):
        next(rows)


def test_a_cluster_without_workers_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dask_cluster, "LOOK_S", 0.01)
    monkeypatch.setattr(dask_cluster, "ALONE_S", 0.02)
    with pytest.raises(DeviceUnreachable, match="has had no worker"):
        dask_cluster._next(SimpleQueue(), SimpleNamespace(nthreads=dict))


def test_workers_that_may_start_no_process_are_refused_where_jobs_are_replayed() -> None:
    told = {"tcp://one": (code_version(), True)}
    client = SimpleNamespace(wait_for_workers=lambda *_, **__: None, run=lambda *_, **__: told)
    dask_cluster._check_workers(client, "tcp://s", replays=False)
    with pytest.raises(ScenarioError, match="may start no process") as caught:
        dask_cluster._check_workers(client, "tcp://s", replays=True)
    assert "--no-nanny" in caught.value.mend


def test_a_scheduler_that_is_not_there_is_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hil.campaign.dask_cluster.CONNECT_S", 0.3)
    monkeypatch.setitem(os.environ, "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT", "0.3s")
    parser = argparse.ArgumentParser()
    verb.configure(parser)
    arguments = [str(small_campaign(tmp_path, 2)), "--scheduler", "tcp://127.0.0.1:1"]
    with pytest.raises(DeviceUnreachable, match="no Dask scheduler answers"):
        verb.execute(parser.parse_args([*arguments, "--out", str(tmp_path / "out")]))


@pytest.mark.parametrize("address", ["nonsense", "foo://x:1"])
def test_an_address_that_is_none_is_said_at_once(address: str, tmp_path: Path) -> None:
    (order,) = orders_of(load_campaign(small_campaign(tmp_path, 1)), Parcel("s.yaml", {}))
    begun_s = time.monotonic()
    with pytest.raises(DeviceUnreachable, match="no Dask scheduler answers"):
        list(dask_cluster.on_cluster([order], address))
    gc.collect()  # A client that never began would wait for its end here.
    assert time.monotonic() - begun_s < 10.0
