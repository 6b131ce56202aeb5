"""Builds FMUs for the tests: in Python for both FMI versions, and in C where it must be exact."""

from __future__ import annotations

import inspect
import subprocess
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

from fmpy import platform_tuple
from fmpy.fmi3 import FMU3Slave

from controller.toolchain import compiler

# One source for both versions: the two packages differ in names only.
TANK = '''
import ctypes, os, time
from {package} import *

class {name}({slave}):
    """A tank with a free outlet: d(level)/dt = flow - level / hold_up."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.flow = 1.0
        self.hold_up = 2.0
        self.area = 1.0
        self.seed = 0
        self.trouble = 0
        self.level = 1.0
        self.temperature = 300.0
        self.full = False
        tunable = {version}Variability.tunable
        fixed = {version}Variability.fixed
        parameter, output = {version}Causality.parameter, {version}Causality.output
        whole = {version}Variability.discrete
        {time}
        numbers = (
            ("flow", {real}, {version}Causality.input, None),
            ("hold_up", {real}, parameter, tunable),
            ("area", {real}, parameter, fixed),
            ("seed", {integer}, parameter, fixed),
            ("trouble", {integer}, parameter, tunable),
        )
        for name, kind, causality, variability in numbers:
            start = getattr(self, name)
            self.register_variable(
                kind(name, causality=causality, variability=variability, start=start)
            )
        self.register_variable({real}("level", causality=output))
        self.register_variable({real}("temperature", causality=output))
        self.register_variable(Boolean("full", causality=output, variability=whole))

    def exit_initialization_mode(self):
        self.level = 1.0 / self.area + 0.001 * self.seed

    def do_step(self, time_s, step_s):
        if self.trouble == 1:
            while True:
                time.sleep(0.01)
        if self.trouble == 2:
            print("about to fall over")
            ctypes.string_at(0)
        if self.trouble == 3:
            raise ValueError("out of paper")
        if self.trouble == 4:
            self.level = float("nan")
        if self.trouble == 5:
            os._exit(7)
        self.level += step_s * (self.flow - self.level / self.hold_up) / self.area
        self.full = self.level > 5.0
        return True
'''

NAMES: Mapping[int, Mapping[str, str]] = {
    2: {
        "package": "pythonfmu",
        "slave": "Fmi2Slave",
        "version": "Fmi2",
        "real": "Real",
        "integer": "Integer",
        "time": "",
    },
    3: {
        "package": "pythonfmu3",
        "slave": "Fmi3Slave",
        "version": "Fmi3",
        "real": "Float64",
        "integer": "Int32",
        "time": (  # FMI 3 wants to see the clock
            'self.time = 0.0; self.register_variable(Float64("time", '
            "causality=Fmi3Causality.independent, variability=Fmi3Variability.continuous))"
        ),
    },
}


def tank(fmi: int, folder: Path, **options: bool) -> Path:
    """An FMU of the tank in FMI 2 or 3, with a parameter that troubles it on request."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"Tank{fmi}"
    script = folder / f"{name.lower()}.py"
    script.write_text(TANK.format(name=name, **NAMES[fmi]), encoding="utf-8")
    if fmi == 2:
        from pythonfmu.builder import FmuBuilder
    else:
        from pythonfmu3.builder import FmuBuilder
    settings = {"canHandleVariableCommunicationStepSize": True, **options}
    return Path(FmuBuilder.build_FMU(script, folder, **settings))


def rewritten(
    path: Path, to: Path, change: Callable[[str, bytes], bytes | None] = lambda _, content: content
) -> Path:
    """A copy of an FMU with each file's content changed, or left out where None."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            content = change(entry.filename, old.read(entry))
            if content is not None:
                new.writestr(entry.filename, content)
    return to


def described(path: Path, to: Path, old: str, new: str) -> Path:
    """A copy of an FMU with `old` replaced by `new` in its model description."""

    def change(name: str, content: bytes) -> bytes:
        if name != "modelDescription.xml":
            return content
        assert old.encode() in content
        return content.replace(old.encode(), new.encode())

    return rewritten(path, to, change)


COUNTER = r"""
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
/* Counts its events: at every whole second it stops, early, and wants event mode. */
static struct { double rate, count, time, gain, ends; int mode; bool events, early; } m;
enum { INSTANTIATED, INITIALISING, EVENT, STEP };
#define KNOWN(expected) if (m.mode != (expected)) return 3

void *fmi3InstantiateCoSimulation(const char *name, const char *token, const char *resources,
    bool visible, bool logging, bool events, bool early, const unsigned *required, size_t n,
    void *environment, void *log, void *update) {
    if (strcmp(token, "the-right-token")) return NULL;
    memset(&m, 0, sizeof m);
    m.gain = 1.0; m.rate = 1.0; m.ends = 1e9; m.events = events; m.early = early;
    return &m;
}
void fmi3FreeInstance(void *c) {}
int fmi3EnterInitializationMode(void *c, bool t, double tolerance, double start, bool s, double e) {
    KNOWN(INSTANTIATED); m.mode = INITIALISING; m.time = start; return 0;
}
int fmi3ExitInitializationMode(void *c) {
    KNOWN(INITIALISING); m.mode = m.events ? EVENT : STEP; return 0;
}
int fmi3EnterEventMode(void *c) { KNOWN(STEP); m.mode = EVENT; return 0; }
int fmi3EnterStepMode(void *c) { KNOWN(EVENT); m.mode = STEP; return 0; }
static int rounds;
int fmi3UpdateDiscreteStates(void *c, bool *again, bool *ends, bool *n, bool *v, bool *next,
                             double *at) {
    KNOWN(EVENT);
    *ends = *n = *v = *next = false;
    *again = m.gain > 50.0 || rounds++ % 3 != 2;   /* settles at the third round, or never */
    if (!*again && m.time > 0.0) m.count += m.gain;
    return 0;
}
int fmi3DoStep(void *c, double t, double h, bool no_set, bool *event, bool *ends, bool *early,
               double *reached) {
    KNOWN(STEP);
    double due = (double)(long)(t + 1e-9) + 1.0, target = t + h;
    *event = *early = false;
    *reached = target;
    if (m.early && m.gain == 13.0) { *early = true; *reached = t; return 0; }
    if (m.events && due <= target + 1e-9) {
        *event = true; *reached = due; *early = due < target - 1e-9;
    }
    m.time = *reached;
    *ends = m.time >= m.ends;
    return 0;
}
int fmi3Terminate(void *c) { return 0; }
static double *place(unsigned reference) {
    switch (reference) {
    case 1: return &m.rate; case 2: return &m.count; case 3: return &m.time;
    case 4: return &m.gain; case 5: return &m.ends; default: return NULL;
    }
}
int fmi3GetFloat64(void *c, const unsigned *r, size_t n, double *v, size_t nv) {
    for (size_t i = 0; i < n; i++) v[i] = *place(r[i]);
    return 0;
}
int fmi3SetFloat64(void *c, const unsigned *r, size_t n, const double *v, size_t nv) {
    if (m.mode == STEP && m.events && r[0] == 4) return 3;   /* a tunable needs event mode */
    for (size_t i = 0; i < n; i++) *place(r[i]) = v[i];
    return 0;
}
"""

COUNTER_XML = """<?xml version="1.0" encoding="UTF-8"?>
<fmiModelDescription fmiVersion="3.0" modelName="counter" instantiationToken="the-right-token">
  <CoSimulation modelIdentifier="counter" hasEventMode="true" mightReturnEarlyFromDoStep="true"
    canHandleVariableCommunicationStepSize="true"/>
  <UnitDefinitions>
    <Unit name="K"><BaseUnit K="1"/></Unit>
    <Unit name="degC"><BaseUnit K="1" offset="273.15"/></Unit>
  </UnitDefinitions>
  <TypeDefinitions><Float64Type name="Heat" unit="K" min="200" max="400"/></TypeDefinitions>
  <ModelVariables>
    <Float64 name="time" valueReference="0" causality="independent" variability="continuous"/>
    <Float64 name="rate" valueReference="1" causality="input" start="300" declaredType="Heat"/>
    <Float64 name="count" valueReference="2" causality="output" initial="calculated"
      description="events so far, weighted"/>
    <Float64 name="own_time" valueReference="3" causality="output" initial="calculated" unit="K"/>
    <Float64 name="gain" valueReference="4" causality="parameter" variability="tunable" start="1"/>
    <Float64 name="ends" valueReference="5" causality="parameter" variability="fixed" start="1e9"/>
    <Float64 name="profile" valueReference="6" causality="input" start="0 0">
      <Dimension start="2"/>
    </Float64>
  </ModelVariables>
  <ModelStructure>
    <Output valueReference="2"/><Output valueReference="3"/>
    <InitialUnknown valueReference="2"/><InitialUnknown valueReference="3"/>
  </ModelStructure>
</fmiModelDescription>
"""


def counter(folder: Path, token: str = "the-right-token") -> Path:
    """An FMI 3 FMU in C with event mode, early return, units, and a token that it insists on."""
    folder.mkdir(parents=True, exist_ok=True)
    every = [name for name, _ in inspect.getmembers(FMU3Slave) if name.startswith("fmi3")]
    missing = [name for name in every if f" {name}(" not in COUNTER.replace("*", " ")]
    source, library = folder / "counter.c", folder / "counter.so"
    # FMI wants every function to be there; those that the counter lacks answer "error".
    source.write_text(COUNTER + "".join(f"int {name}(void) {{ return 3; }}\n" for name in missing))
    subprocess.run(
        [compiler(), "-shared", "-fPIC", "-O1", "-w", "-o", str(library), str(source)], check=True
    )
    path = folder / f"counter-{len(token)}.fmu"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("modelDescription.xml", COUNTER_XML.replace("the-right-token", token))
        archive.write(library, f"binaries/{platform_tuple}/counter.so")
    return path
