"""The model section of an application file: every form in which a process model can be written."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from controller.settings.schema_types import STRICT, Number, Pair, Quantity, Text


class ModelPart(BaseModel):
    """One part of the description of a model."""

    model_config = STRICT


class VariableSection(ModelPart):
    """A variable of a model that is written in this file."""

    name: Text
    """Its name, by which the rest of the file calls it."""
    unit: str = "1"
    """Engineering unit, 1 for none."""
    range: Pair
    """Where the model makes sense: [low, high]."""
    nominal: Quantity
    """Operating point that the model counts deviations from."""
    description: str = ""
    """What it is."""


Variables = Annotated[list[VariableSection], Field(min_length=1)]
MatrixRows = Annotated[list[list[Number]], Field(min_length=1)]


class StateSpaceSection(ModelPart):
    """Linear model x' = A x + B u + Bd d, y = C x + D u + Dd d, around the nominal values."""

    sample: Quantity | None = None
    """Sample time of a discrete model; left out for a continuous one."""
    time_unit: Literal["s", "min", "h"] = "s"
    """Of a continuous model: A, B and Bd are per second, minute or hour."""
    states: Variables
    """The states, in the order of the rows of A."""
    inputs: Variables
    """What is manipulated, in the order of the columns of B."""
    disturbances: list[VariableSection] = []
    """Measured disturbances, in the order of the columns of Bd."""
    outputs: Variables
    """The outputs, in the order of the rows of C."""
    A: MatrixRows
    """Rows of A: states to states."""
    B: MatrixRows
    """Rows of B: inputs to states."""
    C: MatrixRows
    """Rows of C: states to outputs."""
    D: MatrixRows | None = None
    """Rows of D: inputs to outputs at once."""
    Bd: MatrixRows | None = None
    """Rows of Bd: disturbances to states."""
    Dd: MatrixRows | None = None
    """Rows of Dd: disturbances to outputs at once."""


class CellSection(ModelPart):
    """How one output answers one input: a lag or an integration, with dead time."""

    output: Text
    """The output that answers."""
    input: Text
    """The input or disturbance that acts."""
    gain: Quantity | None = None
    """Of a lag: change of the output per change of the input, in the end."""
    slope: Quantity | None = None
    """Of an integration, instead of a gain: change of the output per input and time."""
    tau: Quantity | None = None
    """Time constant; needed with a gain."""
    tau2: Quantity | None = None
    """Second time constant."""
    lead: Quantity | None = None
    """With two time constants: lead time; below zero, the first answer is the wrong way."""
    delay: Quantity = 0.0
    """Dead time."""


class TransferFunctionsSection(ModelPart):
    """Matrix of transfer functions with dead time, sampled, around the nominal values."""

    sample: Quantity
    """Sample time; cycle and MPC step are whole multiples of it."""
    inputs: Variables
    """What is manipulated."""
    disturbances: list[VariableSection] = []
    """Measured disturbances."""
    outputs: Variables
    """The outputs."""
    cells: Annotated[list[CellSection], Field(min_length=1)]
    """One entry per output and input that acts on it."""


class ResponseSection(ModelPart):
    """How one output answers a step of one input, sample by sample."""

    output: Text
    """The output that answers."""
    input: Text
    """The input or disturbance that steps."""
    coefficients: Annotated[list[Number], Field(min_length=1)]
    """Change of the output per unit of the input, 1, 2, … samples after the step."""


class StepResponseSection(ModelPart):
    """Step-response (dynamic matrix) model around the nominal values."""

    sample: Quantity
    """Time between two coefficients; cycle and MPC step are whole multiples of it."""
    inputs: Variables
    """What is manipulated."""
    disturbances: list[VariableSection] = []
    """Measured disturbances."""
    outputs: Variables
    """The outputs."""
    responses: Annotated[list[ResponseSection], Field(min_length=1)]
    """One entry per output and input that acts on it."""
    integrating: list[Text] = []
    """Outputs that go on with their last slope."""
    tolerance: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Allows a smaller model whose responses are off by this share of the largest coefficient."""


class SchedulePointSection(ModelPart):
    """The linear model at one value of the scheduling variable: one of the two forms."""

    at: Quantity
    """Value of the scheduling variable."""
    state_space: StateSpaceSection | None = None
    """Linear model in state space; its nominal values are the operating point here."""
    transfer_functions: TransferFunctionsSection | None = None
    """Transfer functions; their nominal values are the operating point here."""


class ScheduledSection(ModelPart):
    """Gain scheduling: linear models with the same variables, interpolated."""

    variable: Text
    """Measured disturbance, input or output that chooses."""
    points: Annotated[list[SchedulePointSection], Field(min_length=2)]
    """The models, by rising value."""
    start: Annotated[int, Field(ge=1)] = 1
    """Number of the point, from 1, whose nominal values are those of the whole."""


class ModelSection(ModelPart):
    """The controller's model of the process: exactly one of these forms."""

    plant: Text | None = None
    """module:factory, file.py:factory, or an entry point in `loopwright.plants`."""
    parameters: dict[str, Quantity] = {}
    """Parameters of the plant's model that differ from its nominal ones."""
    state_space: StateSpaceSection | None = None
    """Linear model in state space, continuous or discrete."""
    transfer_functions: TransferFunctionsSection | None = None
    """Matrix of transfer functions with dead time."""
    step_response: StepResponseSection | None = None
    """Step-response (dynamic matrix) model."""
    scheduled: ScheduledSection | None = None
    """Linear models at several operating points, interpolated."""
