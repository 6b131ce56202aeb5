"""What is measured, moved and controlled: names against the model, numbers in its units."""

from __future__ import annotations

from controller.settings import quantity
from controller.settings.application import Controlled, Feedforward, Manipulated, Measured
from controller.settings.context import UNKNOWN, Context
from controller.settings.quantity import QuantityError
from controller.settings.schema import ControlledSection, ManipulatedSection
from controller.settings.yaml_core import KeyPath
from controller.signal import Tag
from plant_models.variable import Variable


def resolve_measured(context: Context) -> tuple[Measured, ...]:
    seen: dict[str, KeyPath] = {}
    result: list[Measured] = []
    for i, section in enumerate(context.raw.measured):
        path: KeyPath = ("measured", i)
        output = context.variable((*path, "output"), section.output, "output")
        context.once(seen, (*path, "output"), "output", section.output)
        context.bind((*path, "tag"), context.tag((*path, "tag"), section.tag, "read"), output)
        sigma = UNKNOWN
        if output is not None:
            sigma = context.positive((*path, "sigma"), section.sigma, output.unit)
        result.append(Measured(section.output, section.tag, sigma, section.critical))
    return tuple(result)


def resolve_feedforward(context: Context) -> tuple[Feedforward, ...]:
    seen: dict[str, KeyPath] = {}
    result: list[Feedforward] = []
    for i, section in enumerate(context.raw.feedforward):
        path: KeyPath = ("feedforward", i)
        variable = context.variable((*path, "input"), section.input, "disturbance")
        context.once(seen, (*path, "input"), "input", section.input)
        context.bind((*path, "tag"), context.tag((*path, "tag"), section.tag, "read"), variable)
        result.append(Feedforward(section.input, section.tag, section.critical))
    return tuple(result)


def resolve_manipulated(context: Context) -> tuple[Manipulated, ...]:
    names: dict[str, KeyPath] = {}
    inputs: dict[str, KeyPath] = {}
    result: list[Manipulated] = []
    for i, section in enumerate(context.raw.manipulated):
        path: KeyPath = ("manipulated", i)
        context.once(names, (*path, "name"), "MV", section.name)
        context.once(inputs, (*path, "input"), "input", section.input)
        result.append(_manipulated(context, path, section))
    return tuple(result)


def _manipulated(context: Context, path: KeyPath, section: ManipulatedSection) -> Manipulated:
    variable = context.variable((*path, "input"), section.input, "input")
    setpoint = context.tag((*path, "setpoint"), section.setpoint, "write")
    context.tag((*path, "request"), section.request, "write")
    in_use = context.tag((*path, "in_use"), section.in_use, "read")
    context.tag((*path, "mode"), section.mode, "read")
    context.tag((*path, "saturation"), section.saturation, "read")
    context.bind((*path, "setpoint"), setpoint, variable)
    context.bind((*path, "in_use"), in_use, variable)
    _check_device(context, path, section)
    low = high = rate = UNKNOWN
    target: float | None = None
    price = 0.0
    if variable is not None:
        unit = variable.unit
        low, high = context.pair((*path, "range"), section.range, unit)
        rate = context.positive((*path, "rate"), section.rate, unit, per="s")
        _check_range(context, path, variable, setpoint, low, high)
        if section.target is not None:
            target = context.value((*path, "target"), section.target, unit)
            if target < low or target > high:
                what = f"{target:g} {unit} is outside the range {low:g} … {high:g} {unit}"
                context.add((*path, "target"), what, "Choose a target inside the range")
        price = _price(context, (*path, "price"), section.price, unit)
    return Manipulated(
        name=section.name,
        input=section.input,
        setpoint=section.setpoint,
        request=section.request,
        in_use=section.in_use,
        mode=section.mode,
        saturation=section.saturation,
        low=low,
        high=high,
        rate_per_s=rate,
        move_suppression=float(section.move_suppression),
        target_weight=float(section.target_weight),
        target=target,
        price=price,
    )


def _price(context: Context, path: KeyPath, given: float | str, unit: str) -> float:
    """A price per `unit` and hour; `0.3 EUR/kg` of a flow in kg/s is 1080 EUR/h per kg/s."""
    per = "1" if unit in ("", "1") else f"({unit})"
    return context.value(path, given, f"{context.raw.currency}/{per}/hour")


def _check_device(context: Context, path: KeyPath, section: ManipulatedSection) -> None:
    """Setpoint, request and handshake travel in one frame, so they are on one device."""
    setpoint, request = (context.raw.tags.get(n) for n in (section.setpoint, section.request))
    if setpoint is None:
        return
    device = context.raw.devices.get(setpoint.device)
    if device is not None and device.handshake is None:
        context.add(
            (*path, "setpoint"),
            f"device {setpoint.device} has no handshake, so its PLC would not notice our death",
            f"Add devices.{setpoint.device}.handshake",
        )
    if request is not None and request.device != setpoint.device:
        context.add(
            (*path, "request"),
            f"tag {section.request} is on device {request.device}, the setpoint on "
            f"{setpoint.device}",
            f"Name a tag on {setpoint.device}",
        )


def _check_range(
    context: Context,
    path: KeyPath,
    variable: Variable,
    setpoint: Tag | None,
    low: float,
    high: float,
) -> None:
    """The MV may not reach beyond what the model describes or what its tag permits."""
    unit = variable.unit
    here = f"the range {low:g} … {high:g} {unit}"
    allowance = 1e-9 * abs(high - low)
    if low < variable.low - allowance or high > variable.high + allowance:
        context.add(
            (*path, "range"),
            f"{here} leaves that of model input {variable.name}, {variable.low:g} … "
            f"{variable.high:g} {unit}",
            "Narrow it",
        )
    if setpoint is None:
        return
    try:
        a, b = quantity.affine(setpoint.unit, unit)
    except QuantityError:
        return  # noted where the tag was bound
    tag_low, tag_high = a * setpoint.low + b, a * setpoint.high + b
    if tag_low == float("-inf") or tag_high == float("inf"):
        context.add(
            (*path, "setpoint"),
            f"setpoint tag {setpoint.name} has no range",
            f"Add tags.{setpoint.name}.range: what may be written at all",
        )
    elif low < tag_low - allowance or high > tag_high + allowance:
        context.add(
            (*path, "range"),
            f"{here} is not inside that of setpoint tag {setpoint.name}, {tag_low:g} … "
            f"{tag_high:g} {unit}",
            "Narrow this one, or widen that of the tag",
        )


def resolve_controlled(context: Context) -> tuple[Controlled, ...]:
    seen: dict[str, KeyPath] = {}
    result: list[Controlled] = []
    for i, section in enumerate(context.raw.controlled):
        path: KeyPath = ("controlled", i)
        output = context.variable((*path, "output"), section.output, "output")
        context.once(seen, (*path, "output"), "output", section.output)
        _check_source(context, (*path, "measured_by"), section)
        if (section.zone is None) == (section.setpoint is None):
            found = "neither zone nor setpoint" if section.zone is None else "zone and setpoint"
            context.add(path, f"found {found}, expected one of them", "Write one of them")
        low, high = float("-inf"), float("inf")
        setpoint: float | None = None
        margin = price = 0.0
        if output is not None:
            price = _price(context, (*path, "price"), section.price, output.unit)
            margin = context.positive((*path, "margin"), section.margin, output.unit, zero=True)
        if output is not None and section.zone is not None:
            low, high = context.pair((*path, "zone"), section.zone, output.unit)
            if 2.0 * margin >= high - low:
                what = f"{margin:g} {output.unit} on both sides leaves nothing of the zone"
                context.add((*path, "margin"), what, "Take a smaller margin")
        if output is not None and section.setpoint is not None:
            setpoint = context.value((*path, "setpoint"), section.setpoint, output.unit)
            if setpoint < output.low or setpoint > output.high:
                what = f"{setpoint:g} {output.unit} is outside that of the model: {output}"
                context.add((*path, "setpoint"), what, "Choose a setpoint that the model knows")
        result.append(
            Controlled(
                section.output,
                section.measured_by,
                low,
                high,
                setpoint,
                float(section.weight),
                margin,
                section.rank,
                price,
                context.seconds((*path, "approach"), section.approach, zero=True),
                context.seconds((*path, "ramp"), section.ramp, zero=True),
                section.on_failure,
                _predict_for(context, path, section),
                *_tuning(context, path, section),
            )
        )
    return tuple(result)


def _tuning(
    context: Context, path: KeyPath, section: ControlledSection
) -> tuple[float | None, float]:
    """The two numbers that `tune` starts from: wanted response time, share of gain uncertainty."""
    response_s = None
    if section.response is not None:
        response_s = context.seconds((*path, "response"), section.response)
    share = context.positive((*path, "gain_uncertainty"), section.gain_uncertainty, "1", zero=True)
    if share >= 1.0:
        context.add(
            (*path, "gain_uncertainty"),
            f"found {section.gain_uncertainty}, with which not even the sign of a gain is known",
            "Write a share below 100 %",
        )
    return response_s, share


def _predict_for(context: Context, path: KeyPath, section: ControlledSection) -> float:
    """How long a prediction may stand in; refused where losing the measurement sheds at once."""
    raw, source = context.raw, section.measured_by
    critical = any(m.tag == source and m.critical for m in raw.measured)
    if source in raw.quality:
        critical = raw.quality[source].critical
    predict_s = context.seconds((*path, "predict_for"), section.predict_for, zero=True)
    if critical and (section.on_failure == "drop" or predict_s > 0.0):
        context.add(
            (*path, "on_failure" if section.on_failure == "drop" else "predict_for"),
            f"{source} is critical, so its loss sheds before {section.output} could be predicted "
            "or dropped",
            f"Write critical: false where {source} is declared",
        )
    return predict_s


def _check_source(context: Context, path: KeyPath, section: ControlledSection) -> None:
    """A CV is seen by a lab that measures it, or by the tag under which it is in `measured`."""
    raw, source = context.raw, section.measured_by
    if source in raw.quality:
        if section.output not in raw.quality[source].measures:
            context.add(
                path,
                f"{source} does not measure {section.output}",
                f"Add {section.output} to quality.{source}.measures, or name another source",
            )
        return
    if not context.known(path, "tag or quality source", source, [*raw.quality, *raw.tags]):
        return
    if not any(m.tag == source and m.output == section.output for m in raw.measured):
        context.add(
            path,
            f"tag {source} is not listed in measured for output {section.output}",
            f"Add {{output: {section.output}, tag: {source}, sigma: …}} to measured",
        )
