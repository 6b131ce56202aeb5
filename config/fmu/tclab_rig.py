"""Source of an FMU: the simulated Temperature Control Lab behind two power controllers.

The rig is `tclab.TCLabModel` (Kantor, CBE30338), a model of its own maker with its own equations,
sensor noise and A/D converter; this file only gives it the interface of FMI 3. Build it with

    pip install pythonfmu3 tclab
    pythonfmu3 build -f config/fmu/tclab_rig.py -d config/fmu --no-external-tool
"""

import contextlib
import io
import math
import random

import tclab
from pythonfmu3 import (
    Float64,
    Fmi3Causality,
    Fmi3Slave,
    Fmi3StepResult,
    Fmi3Variability,
    Int32,
)


class TCLabRig(Fmi3Slave):
    """Drives D1, D2 and powers P1, P2 in percent; temperatures T1, T2 in degC."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.description = "Temperature Control Lab, two heaters behind power controllers"
        self.time = 0.0
        self.D1 = self.D2 = 0.0
        self.P1 = self.P2 = 0.0
        self.T1 = self.T2 = 21.0
        self.lag = 3.0
        self.seed = 0
        self._rig = None
        continuous, output = Fmi3Variability.continuous, Fmi3Causality.output
        self.register_variable(
            Float64("time", causality=Fmi3Causality.independent, variability=continuous)
        )
        for name in ("D1", "D2"):
            self.register_variable(Float64(name, causality=Fmi3Causality.input, start=0.0))
        for name in ("P1", "P2", "T1", "T2"):
            self.register_variable(Float64(name, causality=output))
        parameter = Fmi3Causality.parameter
        self.register_variable(
            Float64("lag", causality=parameter, variability=Fmi3Variability.tunable, start=3.0)
        )
        self.register_variable(
            Int32("seed", causality=parameter, variability=Fmi3Variability.fixed, start=0)
        )

    def exit_initialization_mode(self):
        with contextlib.redirect_stdout(io.StringIO()):  # it greets whoever starts it
            # `synced=False` is tclab's own switch for a clock that the caller drives.
            self._rig = tclab.TCLabModel(synced=False)
        self._rig.tstart = self._rig.tlast = 0.0
        random.seed(self.seed)  # tclab draws its sensor noise there; this process is its own
        self._measure()

    def do_step(self, time_s, step_s):
        share = math.exp(-step_s / self.lag)
        self.P1 = self.D1 + (self.P1 - self.D1) * share
        self.P2 = self.D2 + (self.P2 - self.D2) * share
        self._rig.Q1(self.P1)
        self._rig.Q2(self.P2)
        self._rig.update(time_s + step_s)
        self._measure()
        return Fmi3StepResult()

    def _measure(self):
        self.T1, self.T2 = float(self._rig.T1), float(self._rig.T2)
