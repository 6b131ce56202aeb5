"""From a file to an application, in three steps: YAML, shape, meaning.

Each step collects all of its problems before it gives up; a later step needs the earlier one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from pydantic import ValidationError

from controller.errors import SettingsError
from controller.settings import yaml_core
from controller.settings.application import GuardSettings, Settings
from controller.settings.context import Context
from controller.settings.devices import in_unit, resolve_devices, resolve_tags
from controller.settings.layers import (
    resolve_estimator,
    resolve_mpc,
    resolve_optimizer,
    resolve_quality,
)
from controller.settings.loops import (
    resolve_controlled,
    resolve_feedforward,
    resolve_manipulated,
    resolve_measured,
)
from controller.settings.model_forms import check_sampling, resolve_model
from controller.settings.overrides import lay_over
from controller.settings.problems import Problems, add_shape_problems
from controller.settings.schema import ApplicationFile
from controller.settings.yaml_core import Document, written

_NOTHING: Mapping[str, object] = MappingProxyType({})


def load(path: str | Path, overrides: Mapping[str, object] = _NOTHING) -> Settings:
    """The application that a file describes, checked against its process model.

    Args:
        overrides: values by path, laid over the file: `{"guard.hold_cycles": 3,
            "devices.reactor.port": 12345, "manipulated.F_B.rate": "0.2 kg/s/min"}`. An entry of
            a list is given by its number from 0, or by its name, output, input or `on`.

    Raises:
        SettingsError: everything wrong with the file, in `problems`.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"cannot read the file: {error.strerror}",
            where=str(path),
            mend="Check the path and the permissions",
        ) from None
    return parse(yaml_core.decode(path, raw), path, overrides)


def changed(settings: Settings, overrides: Mapping[str, object]) -> Settings:
    """The same file with further overrides; those that `settings` has already stay.

    The text read before is used again, so an edit of the file meanwhile changes nothing.

    Raises:
        SettingsError: as `load`.
    """
    return parse(settings.text, settings.path, {**settings.overrides, **overrides})


def parse(text: str, path: Path, overrides: Mapping[str, object] = _NOTHING) -> Settings:
    """As `load`, from text; relative paths in it start at the folder of `path`.

    Raises:
        SettingsError: as `load`.
    """
    document = yaml_core.read(path, text)
    if not isinstance(document.data, dict):
        raise SettingsError(
            "the file is not a section with keys",
            where=f"{path}:1:1",
            mend="Begin with loopwright: 1",
        )
    problems = Problems(document, lay_over(document, overrides))
    raw = _shape(document, problems)
    context = Context(raw, problems)
    context.model = resolve_model(context, path.parent)
    settings = _resolve(context, text, path)
    problems.raise_found()
    return replace(settings, overrides=MappingProxyType(dict(overrides)))


def _shape(document: Document, problems: Problems) -> ApplicationFile:
    try:
        return ApplicationFile.model_validate(document.data)
    except ValidationError as error:
        add_shape_problems(problems, error)
    problems.raise_found()
    raise AssertionError("a file of wrong shape has at least one problem")


def _resolve(context: Context, text: str, path: Path) -> Settings:
    raw = context.raw
    cycle_s = context.seconds(("cycle",), raw.cycle)
    resolve_tags(context)
    devices = resolve_devices(context, cycle_s)
    measured = resolve_measured(context)
    feedforward = resolve_feedforward(context)
    manipulated = resolve_manipulated(context)
    controlled = resolve_controlled(context)
    quality = resolve_quality(context)
    estimator = resolve_estimator(context, measured, controlled)
    mpc = resolve_mpc(context, cycle_s)
    check_sampling(context, cycle_s, mpc.step_s)
    optimizer = resolve_optimizer(context, manipulated)
    context.problems.raise_found()
    if context.model is None:
        raise AssertionError("a missing model has been noted as a problem")
    tags = {
        name: in_unit(tag, context.bound[name]) if name in context.bound else tag
        for name, tag in context.tags.items()
    }
    document = context.problems.document
    return Settings(
        name=raw.name,
        currency=raw.currency,
        path=path,
        text=text,
        cycle_s=cycle_s,
        data_dir=path.parent / (raw.data_dir or f"data/{raw.name}"),
        devices=MappingProxyType(devices),
        tags=MappingProxyType(tags),
        model=context.model,
        model_ref=raw.model.plant or "written in this file",
        measured=measured,
        feedforward=feedforward,
        manipulated=manipulated,
        controlled=controlled,
        quality=quality,
        estimator=estimator,
        mpc=mpc,
        optimizer=optimizer,
        guard=GuardSettings(**raw.guard.model_dump()),
        positions=MappingProxyType({written(p): v for p, v in document.values.items()}),
    )
