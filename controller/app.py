"""Composition root: settings in, a wired application, its devices and its optimizer out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import casadi as ca
import numpy as np

from controller import wiring
from controller.advice import Advice
from controller.clock import SystemClock
from controller.cycle.application import Application
from controller.cycle.mode import ModeRules
from controller.drivers.connection import OwnedConnection
from controller.drivers.modbus import open_modbus_rtu, open_modbus_tcp
from controller.drivers.s7 import open_s7
from controller.errors import ModelError, SettingsError
from controller.historian.samples import Segment
from controller.mpc.condensed import CondensedQp, is_linear
from controller.mpc.ladder import make_ladder
from controller.mpc.problem import Horizon
from controller.mpc.regulator import lqr_weight
from controller.mpc.solvers import Solver
from controller.mpc.stage import Stage, make_stage
from controller.mpc.target import target_calculation
from controller.mpc.tree import scenario_tree
from controller.mpc.tree_rung import TreeRung
from controller.optimizer.advisor import Advisor
from controller.optimizer.problem import Decision, Limit, build_problem
from controller.ports import Clock
from controller.settings import Device, ModbusTcpDevice, S7Device, Settings, load, parse
from controller.signal import Tag
from controller.terminal import building, notice
from controller.toolchain import NoCompilerError, compiled_rung

RTI_ITERATIONS = 6
"""One is the rule; more after a jump of setpoint, limits or state."""


def build_application(settings: Settings, epoch: int) -> Application:
    """Compile everything the cycle needs. Touches no device.

    Raises:
        SettingsError: an address that its driver does not understand, or a model, disturbances
            and measurements that do not fit together.
    """
    tags = wiring.typed_tags(settings)
    mvs, cvs = wiring.manipulated(settings, tags), wiring.controlled(settings)
    estimator = wiring.estimator(settings)
    mpc = settings.mpc
    horizon = Horizon(mpc.step_s, mpc.horizon, settings.cycle_s, mpc.blocks)
    costs = wiring.economics(settings, mvs, cvs)
    stage = make_stage(estimator.augmented, mvs, cvs, horizon, costs)
    sqp, ipopt = mpc.iterations
    return Application(
        name=settings.name,
        cycle_s=settings.cycle_s,
        model=settings.model,
        tags=tuple(tag for tag in tags.values() if tag.access == "read"),
        measured=wiring.measured_outputs(settings),
        disturbances=wiring.measured_disturbances(settings),
        loops=wiring.slave_loops(settings),
        sources=wiring.quality_sources(settings),
        links=wiring.links(settings),
        mvs=mvs,
        cvs=cvs,
        guarded_mvs=wiring.guarded_mvs(settings, tags),
        guarded_devices=wiring.guarded_devices(settings),
        rules=ModeRules(
            settings.guard.ready_cycles, settings.guard.hold_cycles, settings.guard.rearm
        ),
        watchdog_cycles=settings.guard.watchdog_cycles,
        filter=estimator,
        target=target_calculation(estimator.augmented, mvs, cvs, currency=settings.currency),
        ladder=make_ladder(
            stage,
            (("sqp", sqp), ("ipopt", ipopt)),
            mpc.plan_age_max,
            (*_robust_rungs(settings, stage, costs), *fast_rungs(stage, mpc.engine)),
            lqr_weight(stage) if mpc.terminal == "lqr" else None,
        ),
        epoch=epoch,
        watches=wiring.watches(settings),
    )


def fast_rungs(stage: Stage, engine: str) -> tuple[tuple[str, Solver], ...]:
    """The rung above the general solvers: the condensed QP of a linear model, else the compiled
    real-time iteration; none, and one notice, on a machine without a C compiler."""
    if is_linear(stage):
        return (("condensed", CondensedQp(stage)),)
    if engine == "portable":
        return ()
    try:
        with building("compiling the controller"):
            return (("rti", compiled_rung(stage, RTI_ITERATIONS)),)
    except NoCompilerError as error:
        notice(f"slower plans: {error}")
        return ()


def _robust_rungs(
    settings: Settings, stage: Stage, costs: ca.Function | None
) -> tuple[tuple[str, Solver], ...]:
    """The scenario tree over the parameter sets, above all rungs of the nominal problem.

    Raises:
        SettingsError: a model with these parameters cannot be built.
    """
    robust = settings.mpc.robust
    if robust is None:
        return ()
    try:
        tree = scenario_tree(stage, robust.sets, robust.horizon, costs)
    except ModelError as error:
        where = settings.where("mpc.robust")
        raise SettingsError(error.what, where=where, mend=error.mend) from error
    return (("tree", TreeRung(tree, *settings.mpc.iterations)),)


def check_application(path: Path) -> str:
    """Everything that can be known of an application without its devices, in one line.

    Raises:
        SettingsError: whatever would keep it from running.
    """
    settings = load(path)
    application = build_application(settings, epoch=1)
    for device in open_devices(settings, SystemClock()):
        device.close()
    build_advice(settings)
    return str(application)


def settings_of(segment: Segment, directory: Path) -> Settings:
    """The settings kept with a journalled start.

    Relative paths in them start where the file was; if it is no longer there (the data came from
    another machine), from the data directory, then from the current one.

    Raises:
        SettingsError: they no longer fit this version, or name a model that is nowhere.
    """
    first: SettingsError | None = None
    for folder in (Path(segment.settings_path).parent, directory, Path.cwd()):
        try:
            path = folder / segment.settings_name
            return parse(segment.settings_text, path, segment.overrides)
        except SettingsError as error:
            first = first or error
    raise first or SettingsError("the journal keeps no settings", where=str(directory))


def application_of(segment: Segment, directory: Path) -> Application:
    """The application of a journalled start, from the settings kept with it.

    Raises:
        SettingsError: as `settings_of`.
    """
    return build_application(settings_of(segment, directory), segment.epoch)


def open_devices(settings: Settings, clock: Clock, seed: int = 0) -> tuple[OwnedConnection, ...]:
    """A transport per device; nothing connects before the first read.

    Raises:
        SettingsError: write tags that overlap or do not lie side by side.
    """
    # The protocol libraries report on stderr, in words of their own, what our errors already say.
    for library in ("pymodbus", "pymodbus.logging", "snap7"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    tags = wiring.typed_tags(settings)
    opened: list[OwnedConnection] = []
    for number, device in enumerate(settings.devices.values()):
        own = [tag for tag in tags.values() if tag.device == device.name]
        try:
            opened.append(_open(device, own, clock, seed + number))
        except SettingsError as error:
            for transport in opened:
                transport.close()
            where = settings.where(f"devices.{device.name}")
            raise SettingsError(error.what, where=f"{where} {error.where}", mend=error.mend) from (
                error
            )
    return tuple(opened)


def _open(device: Device, tags: Sequence[Tag], clock: Clock, seed: int) -> OwnedConnection:
    if isinstance(device, S7Device):
        return open_s7(
            device.name,
            tags,
            clock,
            host=device.host,
            port=device.port,
            rack=device.rack,
            slot=device.slot,
            timeout_s=device.timeout_s,
            connection_type=device.connection_type,
            seed=seed,
        )
    if isinstance(device, ModbusTcpDevice):
        return open_modbus_tcp(
            device.name,
            tags,
            clock,
            host=device.host,
            port=device.port,
            unit=device.unit,
            timeout_s=device.timeout_s,
            max_gap=device.max_gap,
            forbidden=device.forbidden,
            seed=seed,
        )
    return open_modbus_rtu(
        device.name,
        tags,
        clock,
        port=device.port,
        baudrate=device.baudrate,
        parity=device.parity,
        unit=device.unit,
        timeout_s=device.timeout_s,
        max_gap=device.max_gap,
        forbidden=device.forbidden,
        seed=seed,
    )


def build_advice(settings: Settings) -> Advice | None:
    """The slow layer of this application, or None when it has no optimizer.

    Raises:
        SettingsError: an objective or limit that the model does not know.
    """
    wanted = settings.optimizer
    if wanted is None:
        return None
    lab = settings.quality[wanted.quality]
    decisions = {
        mv.input: Decision(
            name=mv.name,
            unit=settings.tags[mv.setpoint].unit,
            low=mv.low,
            high=mv.high,
            radius=wanted.trust_region[mv.name],
            probe=wanted.probe[mv.name],
        )
        for mv in settings.manipulated
        if mv.name in wanted.trust_region
    }
    # A limit at the end of what is possible at all (a mass fraction of 0) constrains nothing.
    believable = {variable.name: variable.low for variable in settings.model.y}
    limits = tuple(
        Limit(
            output=cv.output,
            high=cv.high if np.isfinite(cv.high) else None,
            low=cv.low if cv.low > believable[cv.output] else None,
            backoff=wanted.backoff.get(cv.output, 0.0),
            sigma=lab.sigma[cv.output],
        )
        for cv in settings.controlled
        if cv.measured_by == wanted.quality
    )
    try:
        problem, economics = build_problem(
            settings.model,
            wanted.maximise,
            decisions,
            limits,
            sigma_objective=wanted.sigma,
            points=wanted.points,
            unit=wanted.unit,
        )
    except ModelError as error:
        raise SettingsError(
            error.what, where=settings.where("optimizer"), mend=error.mend
        ) from error
    in_use = {mv.name: mv.in_use for mv in settings.manipulated}
    measured = {f.input: f.tag for f in settings.feedforward}
    return Advice(
        advisor=Advisor(problem, economics, wanted.settle_s, delay_max_s=lab.delay_max_s),
        source=wanted.quality,
        decision_tags=tuple(in_use[d.name] for d in problem.decisions),
        disturbance_tags=tuple(measured.get(d.name, "") for d in problem.disturbances),
        disturbance_nominal=tuple(v.nominal for v in settings.model.d),
    )
