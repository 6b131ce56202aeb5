"""A tuning as others read it: lines for the application file, a JSON document, words."""

from __future__ import annotations

from typing import Any

from controller.settings import Settings
from controller.workbench.closed_loop import STEP_SHARE
from controller.workbench.ensemble import PACE_SHARE
from controller.workbench.search import OVERSHOOT_MAX, UNDERSHOOT_MAX
from controller.workbench.tuning import TunedCv, Tuning


def yaml_lines(settings: Settings, tuning: Tuning) -> str:
    """What to write into the application file; only what changes."""
    lines = [
        "manipulated:",
        *(
            f"  - {{name: {mv.name}, move_suppression: {mv.move_suppression:g}}}"
            f"  # was {mv.configured:g}"
            for mv in tuning.mvs
        ),
    ]
    weights = {cv.output: cv.weight for cv in settings.controlled}
    changed = [cv for cv in tuning.cvs if abs(cv.weight / weights[cv.name] - 1.0) > 1e-3]
    if changed:
        lines.append("controlled:")
        lines += [
            f"  - {{output: {cv.name}, weight: {cv.weight:g}}}  # was {weights[cv.name]:g}"
            for cv in changed
        ]
    return "\n".join(lines) + "\n"


def document(settings: Settings, tuning: Tuning) -> dict[str, Any]:
    """The JSON document of a tuning; times in seconds, activity in the unit of the MV."""
    return {
        "application": settings.name,
        "reached": tuning.reached,
        "damped": tuning.damped,
        "members": tuning.members,
        "linearized": tuning.linearized,
        "cvs": [
            {
                "name": cv.name,
                "unit": cv.unit,
                "gain_uncertainty": cv.gain_uncertainty,
                "step": cv.nominal.size,
                "response_s": {
                    "wanted": cv.wanted_s,
                    "nominal": cv.nominal_s,
                    "worst": cv.worst_s,
                    "slowest_member": cv.slowest,
                },
                "overshoot": {
                    "nominal": cv.overshoot,
                    "worst": cv.worst_overshoot,
                    "worst_member": cv.worst,
                },
                "weight": cv.weight,
                "limit": cv.limit,
            }
            for cv in tuning.cvs
        ],
        "mvs": [
            {
                "name": mv.name,
                "unit": mv.unit,
                "move_suppression": mv.move_suppression,
                "configured": mv.configured,
                "activity": {"nominal": mv.activity, "worst": mv.worst_activity},
            }
            for mv in tuning.mvs
        ],
        "yaml": yaml_lines(settings, tuning),
    }


def duration(seconds: float) -> str:
    """A time as a person says it."""
    if not seconds < float("inf"):
        return "never"
    for length, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds >= 2.0 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"


def cv_rows(tuning: Tuning) -> list[tuple[str, ...]]:
    """A table of the CVs, its head first."""
    head = ("CV", "wanted", "nominal", "worst", "overshoot", "worst overshoot", "as wanted")
    return [head, *(_cv_row(cv) for cv in tuning.cvs)]


def _cv_row(cv: TunedCv) -> tuple[str, ...]:
    return (
        cv.name,
        duration(cv.wanted_s),
        duration(cv.nominal_s),
        duration(cv.worst_s),
        f"{cv.overshoot:.0%}",
        f"{cv.worst_overshoot:.0%}",
        "no" if cv.limit else "yes",
    )


def mv_rows(tuning: Tuning) -> list[tuple[str, ...]]:
    """A table of the MVs, its head first."""
    head = ("MV", "move suppression", "was", "sum of moves", "of the worst plant")
    rows = [
        (
            mv.name,
            f"{mv.move_suppression:g}",
            f"{mv.configured:g}",
            f"{mv.activity:.3g} {mv.unit}",
            f"{mv.worst_activity:.3g} {mv.unit}",
        )
        for mv in tuning.mvs
    ]
    return [head, *rows]


def findings(tuning: Tuning) -> list[str]:
    """What to know beside the tables: limits met, the worst plants, how it was judged."""
    said = [
        f"{cv.name} does not respond in {duration(cv.wanted_s)}: {cv.limit}. The fastest that is "
        f"reachable is {duration(cv.nominal_s)}."
        if tuning.damped
        else f"{cv.name}: {cv.limit}."
        for cv in tuning.cvs
        if cv.limit
    ]
    if tuning.members > 1:
        said += [
            f"{cv.name} is slowest with {cv.slowest}; least damped with {cv.worst}."
            for cv in tuning.cvs
        ]
    said.append(
        f"Response time: until 63 % of a step of {STEP_SHARE:.0%} of the range is done, dead time "
        f"included. {tuning.members} plants; lags and dead times differ by {PACE_SHARE:g} of the "
        f"largest gain uncertainty. Well damped: overshoot at most {OVERSHOOT_MAX:.0%}, then at "
        f"most {UNDERSHOOT_MAX:.1%} short."
    )
    if any(factor < 1.0 for factor in tuning.weights.cv):
        said.append(
            "A CV with a smaller weight also gives way sooner among those of its rank: where that "
            "must not be, give it a rank before theirs."
        )
    if tuning.linearized:
        said.append(
            "The model is nonlinear: the plants are linearizations at the operating point, so this "
            "holds near it."
        )
    return said
