"""Everything about an application that does not change between cycles, ready to compute with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from controller.cycle.guard import GuardedDevice, GuardedMv
from controller.cycle.mode import ModeRules
from controller.estimation.augmented import PLAUSIBLE_SPANS
from controller.estimation.estimator import Estimator
from controller.estimation.evaluation import augmented_spans
from controller.mpc.ladder import Ladder
from controller.mpc.problem import ControlledVariable, ManipulatedVariable
from controller.mpc.target import TargetCalculation
from controller.signal import Tag
from plant_models.process import ProcessModel, Vector, names
from plant_models.variable import Variable


@dataclass(frozen=True, slots=True)
class MeasuredOutput:
    """An output of the model that a tag measures every cycle."""

    output: int
    tag: str
    sigma: float
    critical: bool


@dataclass(frozen=True, slots=True)
class MeasuredDisturbance:
    """A measured disturbance of the model and its tag."""

    input: int
    tag: str
    critical: bool


@dataclass(frozen=True, slots=True)
class SlaveLoop:
    """The tags through which the PLC tells about an MV's slave loop; `target` is where it rests
    without a proposal, or None."""

    mv: str
    in_use: str
    mode: str
    saturation: str
    target: float | None


@dataclass(frozen=True, slots=True)
class QualitySource:
    """A late measurement: output indices and sigmas by the names that its results use.

    A critical one puts control in doubt when its newest usable sample is older than
    `stale_after_s`; missing results mean no information, never that all is well.
    """

    name: str
    outputs: Mapping[str, int]
    sigma: Mapping[str, float]
    delay_max_s: float
    gate: float
    stale_after_s: float
    critical: bool


NEAR = 0.02
"""Share of a state's span within which the plant is close to a target."""

FailurePolicy = Literal["predict", "drop", "critical"]
"""What becomes of a CV that has not been measured for too long: it is predicted all the same, it is
no longer controlled, or control is put in doubt."""


@dataclass(frozen=True, slots=True)
class CvWatch:
    """What happens to a CV when everything that measures it fails.

    Attributes:
        name: of the CV.
        tags, sources: the tags and quality sources that measure it; one good one is enough. A
            source is good while its newest usable sample is not older than its `stale_after_s`.
            A CV that nothing measures is a pure prediction and cannot fail.
        predict_s: as long as this the model's prediction stands in, in seconds.
        policy: what happens then.
    """

    name: str
    tags: tuple[str, ...]
    sources: tuple[str, ...] = ()
    predict_s: float = 0.0
    policy: FailurePolicy = "predict"


@dataclass(frozen=True, slots=True)
class Link:
    """The heartbeat echo of a device that takes our frames."""

    device: str
    heartbeat_echo: str


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """What every cycle needs of the wiring, in the order and form in which it is needed.

    Attributes:
        loops: each guarded MV with its slave loop.
        mv_inputs: per MV its index into the model's u; mv_low, mv_high: its engineering limits.
        mv_believable, disturbance_believable: per MV and measured disturbance, the range beyond
            which what a PLC reports is garbage.
        cv_low, cv_high, setpoint, resting: what holds unless somebody wishes otherwise (NaN: none).
        cv_rows: per CV its index into the model's y; funnelled: whether one is approached in time.
        setpoints: the CVs that have one.
        z_believable: per augmented state, the range beyond which the estimate makes no sense.
        x_near: how far from a steady state a plant is close to it, per state (nx,).
        every, none: 1.0 and 0.0 per MV.
        outputs: names of the model's outputs; measured, sigmas: what tags measure of them.
        critical_tags: not one of them may be bad.
        watches: one for every CV, in their order.
    """

    loops: tuple[tuple[GuardedMv, SlaveLoop], ...]
    mv_inputs: tuple[int, ...]
    mv_low: Vector
    mv_high: Vector
    mv_believable: tuple[tuple[float, float], ...]
    disturbance_believable: tuple[tuple[float, float], ...]
    cv_low: Vector
    cv_high: Vector
    cv_rows: list[int]
    funnelled: bool
    setpoint: Vector
    setpoints: Mapping[str, float]
    resting: Vector
    z_believable: tuple[tuple[float, float], ...]
    x_near: Vector
    every: Vector
    none: Vector
    outputs: tuple[str, ...]
    measured: tuple[int, ...]
    sigmas: tuple[float, ...]
    critical_tags: tuple[str, ...]
    watches: tuple[CvWatch, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Application:
    """The wiring and the compiled computations of one application; immutable.

    Attributes:
        watches: what happens to a CV that is not measured; a CV without an entry is predicted for
            as long as it takes.
        layout: what follows from the rest, worked out once.
        tags: every tag that is read, validated each cycle.
        watchdog_cycles: heartbeat echo standing still that long puts the link in doubt.
        epoch: number of this start of the controller, sent to the PLC.
    """

    name: str
    cycle_s: float
    model: ProcessModel
    tags: tuple[Tag, ...]
    measured: tuple[MeasuredOutput, ...]
    disturbances: tuple[MeasuredDisturbance, ...]
    loops: tuple[SlaveLoop, ...]
    sources: Mapping[str, QualitySource]
    links: tuple[Link, ...]
    mvs: tuple[ManipulatedVariable, ...]
    cvs: tuple[ControlledVariable, ...]
    guarded_mvs: tuple[GuardedMv, ...]
    guarded_devices: tuple[GuardedDevice, ...]
    rules: ModeRules
    watchdog_cycles: int
    filter: Estimator
    target: TargetCalculation
    ladder: Ladder
    epoch: int
    watches: tuple[CvWatch, ...] = ()
    layout: Layout = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Work out the layout. Raises ValueError: a watch that names no CV, tag or source."""
        object.__setattr__(self, "layout", _layout(self))

    def __str__(self) -> str:
        return (
            f"{self.name}: {len(self.tags)} tags read every {self.cycle_s:g} s, "
            f"{len(self.mvs)} MVs, {len(self.cvs)} CVs; {self.ladder.stage}"
        )


def _layout(application: Application) -> Layout:
    model, mvs, cvs = application.model, application.mvs, application.cvs
    augmented = application.filter.augmented
    nominals = (*(v.nominal for v in model.x), *[0.0] * augmented.nw)
    rest = {loop.mv: loop.target for loop in application.loops if loop.target is not None}
    setpoints = {cv.name: cv.setpoint for cv in cvs if cv.setpoint is not None}
    observed = (*application.measured, *application.disturbances)
    return Layout(
        loops=tuple(zip(application.guarded_mvs, application.loops, strict=True)),
        mv_inputs=tuple(mv.input for mv in mvs),
        mv_low=constant([mv.low for mv in mvs]),
        mv_high=constant([mv.high for mv in mvs]),
        mv_believable=tuple(_believable(model.u[mv.input]) for mv in mvs),
        disturbance_believable=tuple(
            _believable(model.d[m.input]) for m in application.disturbances
        ),
        cv_low=constant([cv.low for cv in cvs]),
        cv_high=constant([cv.high for cv in cvs]),
        cv_rows=[cv.output for cv in cvs],
        funnelled=any(cv.approach_s for cv in cvs),
        setpoint=constant([setpoints.get(cv.name, np.nan) for cv in cvs]),
        setpoints=setpoints,
        resting=constant([rest.get(mv.name, np.nan) for mv in mvs]),
        z_believable=tuple(
            (middle - PLAUSIBLE_SPANS * span, middle + PLAUSIBLE_SPANS * span)
            for middle, span in zip(nominals, augmented_spans(augmented).tolist(), strict=True)
        ),
        x_near=constant([NEAR * variable.span for variable in model.x]),
        every=constant([1.0] * len(mvs)),
        none=constant([0.0] * len(mvs)),
        outputs=names(model.y),
        measured=tuple(m.output for m in application.measured),
        sigmas=tuple(m.sigma for m in application.measured),
        critical_tags=tuple(m.tag for m in observed if m.critical),
        watches=_watches(application),
    )


def constant(values: list[float]) -> Vector:
    """An array that many cycles share, so nobody may write to it."""
    array = np.array(values, dtype=np.float64)
    array.setflags(write=False)
    return array


def _believable(variable: Variable) -> tuple[float, float]:
    """At most a span outside the range in which the model makes sense: what a PLC reports beyond
    that is garbage, and the estimate would not forget it."""
    return variable.low - variable.span, variable.high + variable.span


def _watches(application: Application) -> tuple[CvWatch, ...]:
    """The watch of every CV; one without is predicted from whatever measures its output."""
    wanted = {watch.name: watch for watch in application.watches}
    strange = {
        *(set(wanted) - {cv.name for cv in application.cvs}),
        *({tag for w in wanted.values() for tag in w.tags} - {t.name for t in application.tags}),
        *({name for w in wanted.values() for name in w.sources} - set(application.sources)),
    }
    if strange:
        raise ValueError(f"CV watches name what is not there: {', '.join(sorted(strange))}")
    return tuple(
        wanted.get(cv.name)
        or CvWatch(
            cv.name,
            tuple(m.tag for m in application.measured if m.output == cv.output),
            tuple(s.name for s in application.sources.values() if cv.output in s.outputs.values()),
        )
        for cv in application.cvs
    )
