"""Which CVs are measured, which are predicted for a while, and which are dropped until then."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from controller.cycle.application import Application, CvWatch
from controller.cycle.state import CvFailure, LoopState
from controller.cycle.validate import Reading
from controller.signal import NS_PER_S

CvStatus = Literal["GOOD", "PREDICTED", "DROPPED"]


class WatchedCvs(NamedTuple):
    """Per CV its status; what is remembered of failures; what puts control in doubt; what happened,
    in words."""

    status: dict[str, CvStatus]
    failures: Mapping[str, CvFailure]
    doubts: tuple[str, ...]
    events: tuple[str, ...]


def watch_cvs(
    application: Application, state: LoopState, readings: Mapping[str, Reading], now_ns: int
) -> WatchedCvs:
    """The status of every CV in this cycle.

    A dropped CV is controlled again only when it has been measured for `ready_cycles` in a row: a
    sensor that comes and goes would pull the others about, and by then the estimate has followed
    it. From there its return is like that of any deviation, from where the MVs are.
    """
    status: dict[str, CvStatus] = {}
    failures: dict[str, CvFailure] = {}
    doubts: list[str] = []
    events: list[str] = []
    for watch in application.layout.watches:
        name = watch.name
        before = state.failures.get(name)
        measured = _measured(application, watch, state, readings, now_ns)
        if measured and (before is None or not before.dropped):
            status[name] = "GOOD"
            continue
        if measured and before is not None:
            if before.good + 1 >= application.rules.ready_cycles:
                status[name] = "GOOD"
                events.append(f"{name} is controlled again: it is measured")
                continue
            failure = CvFailure(before.since_ns, before.dropped, before.good + 1)
        else:
            # The clock may have been set back: nothing has failed later than now.
            since_ns = now_ns if before is None else min(before.since_ns, now_ns)
            failing_s = (now_ns - since_ns) / NS_PER_S
            expired = failing_s >= watch.predict_s
            dropped = before is not None and before.dropped
            if expired and watch.policy == "critical":
                doubts.append(f"{name}: {_for_too_long(watch, failing_s)}")
            elif expired and watch.policy == "drop" and not dropped:
                dropped = True
                events.append(f"{name} is dropped: {_for_too_long(watch, failing_s)}")
            failure = CvFailure(since_ns, dropped)
        failures[name] = failure
        status[name] = "DROPPED" if failure.dropped else "PREDICTED"
    if status and all(each == "DROPPED" for each in status.values()):
        doubts.append("every CV is dropped: nothing that is controlled is measured")
    return WatchedCvs(status, failures, tuple(doubts), tuple(events))


def _measured(
    application: Application,
    watch: CvWatch,
    state: LoopState,
    readings: Mapping[str, Reading],
    now_ns: int,
) -> bool:
    """Whether a tag or a quality source tells about the CV now."""
    for tag in watch.tags:
        if readings[tag].good:
            return True
    for name in watch.sources:
        sampled_ns = state.sampled_ns.get(name)
        limit_s = application.sources[name].stale_after_s
        if sampled_ns is not None and (now_ns - sampled_ns) / NS_PER_S <= limit_s:
            return True
    return not (watch.tags or watch.sources)


def _for_too_long(watch: CvWatch, failing_s: float) -> str:
    return f"not measured for {failing_s:g} s, {watch.predict_s:g} s may be predicted"
