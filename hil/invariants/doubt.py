"""What definitely speaks against control in a cycle, judged from raw samples alone.

It knows nothing of the controller's own validation. Every doubt named here is one that the
controller must have too; it may have more, because it also judges jumps, estimates and plans.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

from controller.settings import Settings
from controller.signal import NS_PER_S, Sample, Snapshot, Status, Tag

_GOOD = Status.GOOD


class SignalJudge:
    """Tells whether one tag cannot be trusted: not delivered, no number, out of range, stale or
    frozen."""

    def __init__(self, tag: Tag, cycle_s: float) -> None:
        self.tag = tag
        self._stale_ns = round((tag.stale_after_s or 2 * cycle_s) * NS_PER_S)
        self._frozen_ns = round(tag.frozen_after_s * NS_PER_S)
        self._raw: float | None = None
        self._changed_ns = 0

    def bad(self, sample: Sample | None, now_ns: int) -> str:
        """Why the sample is bad at `now_ns` (ns since epoch); empty where nothing shows it is."""
        if sample is None:
            return "no sample"
        if sample.status is not _GOOD and not sample.status.is_good:
            return f"status {sample.status.name}"
        raw = sample.value
        if raw is None or isinstance(raw, str):
            return "no value"
        if not self.tag.low <= raw <= self.tag.high:
            return f"{raw:g} is outside [{self.tag.low:g}, {self.tag.high:g}] {self.tag.unit}"
        if not isfinite(raw):
            return "not a number"
        if now_ns - sample.time_ns > self._stale_ns:
            return f"{(now_ns - sample.time_ns) / NS_PER_S:g} s old"
        if self._frozen_ns:
            return self._frozen(float(raw), sample.time_ns)
        return ""

    def _frozen(self, raw: float, time_ns: int) -> str:
        if raw != self._raw:
            self._raw, self._changed_ns = raw, time_ns
        self._changed_ns = min(self._changed_ns, time_ns)
        still_ns = time_ns - self._changed_ns
        return f"unchanged for {still_ns / NS_PER_S:g} s" if still_ns >= self._frozen_ns else ""


class DoubtJudge:
    """Judges every cycle; keeps what it needs of the cycles before.

    The doubts are: a bad critical tag, a critical laboratory without a young sample, a CV whose
    failure is critical and that nothing measures, no setpoint in use, and a clock that jumped.
    """

    def __init__(self, settings: Settings, tags: Mapping[str, Tag]) -> None:
        cycle_s = settings.cycle_s
        self._cycle_ns = round(cycle_s * NS_PER_S)
        critical = [m.tag for m in (*settings.measured, *settings.feedforward) if m.critical]
        self._critical = [SignalJudge(tags[name], cycle_s) for name in dict.fromkeys(critical)]
        self._in_use = [SignalJudge(tags[mv.in_use], cycle_s) for mv in settings.manipulated]
        self._labs = {
            lab.name: round(lab.stale_after_s * NS_PER_S)
            for lab in settings.quality.values()
            if lab.critical
        }
        self._watched = [
            (SignalJudge(tags[cv.measured_by], cycle_s), round(cv.predict_for_s * NS_PER_S))
            for cv in settings.controlled
            if cv.on_failure == "critical" and cv.measured_by in tags
        ]
        self._lost_ns: dict[str, int] = {}
        self._newest_ns: dict[str, int] = {}
        self._last: tuple[int, int] | None = None

    def doubt(self, snapshot: Snapshot) -> str:
        """The first doubt of this cycle, in words; empty where there is none."""
        now_ns, samples = snapshot.time_ns, snapshot.samples
        last, self._last = self._last, (snapshot.cycle, now_ns)
        found = ""
        for judge in self._critical:
            # All of them every cycle: how long one has been frozen is counted here.
            why = judge.bad(samples.get(judge.tag.name), now_ns)
            if why:
                found = found or f"{judge.tag.name}: {why}"
        if self._watched:
            found = found or self._unmeasured(snapshot)
        if self._labs:
            found = found or self._no_result(now_ns)
            # A result that arrives now is used after the doubts of this cycle are known.
            self._hear(snapshot)
        if found:
            return found
        if last is not None:
            expected_ns = (snapshot.cycle - last[0]) * self._cycle_ns
            if abs(now_ns - last[1] - expected_ns) > self._cycle_ns:
                return f"the clock moved by {(now_ns - last[1]) / NS_PER_S:g} s"
        for judge in self._in_use:
            if not judge.bad(samples.get(judge.tag.name), now_ns):
                return ""
        return "no setpoint in use can be read"

    def _unmeasured(self, snapshot: Snapshot) -> str:
        found = ""
        for judge, predict_ns in self._watched:
            name = judge.tag.name
            if not judge.bad(snapshot.samples.get(name), snapshot.time_ns):
                self._lost_ns.pop(name, None)
                continue
            since_ns = self._lost_ns.setdefault(name, snapshot.time_ns)
            if snapshot.time_ns - since_ns >= predict_ns:
                found = f"{name}: lost for {(snapshot.time_ns - since_ns) / NS_PER_S:g} s"
        return found

    def _hear(self, snapshot: Snapshot) -> None:
        for result in snapshot.quality_results:
            if result.valid:
                newest_ns = self._newest_ns.get(result.source, 0)
                self._newest_ns[result.source] = max(newest_ns, result.time_ns)

    def _no_result(self, now_ns: int) -> str:
        for name, stale_ns in self._labs.items():
            newest_ns = self._newest_ns.get(name)
            if newest_ns is None:
                return f"{name}: no result yet"
            if now_ns - newest_ns > stale_ns:
                return f"{name}: newest sample {(now_ns - newest_ns) / NS_PER_S:g} s old"
        return ""
