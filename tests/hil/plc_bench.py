"""A virtual PLC with one loop on a small heated tank, and the hands of a controller on it."""

from __future__ import annotations

import numpy as np

from controller.settings.application import Handshake
from controller.signal import NS_PER_S, Tag
from hil.plc.pid import PidTuning
from hil.plc.virtual import PERMIT, REMOTE, SlaveLoop, VirtualPlc
from hil.plc_memory import DeviceMemory
from plant_models.process import Plant, Vector
from plant_models.variable import Variable

DEVICE = "reactor"
HANDSHAKE = Handshake("HB", "SEQ", "HBE", "EPOCH", "SEQE")
ADDRESSES = {
    "HB": "DB20.DBW0:UINT", "SEQ": "DB20.DBW2:UINT", "EPOCH": "DB20.DBW4:UINT",
    "REQ": "DB20.DBW6:UINT", "SP": "DB20.DBD8:REAL",
    "HBE": "DB20.DBW20:UINT", "SEQE": "DB20.DBW22:UINT", "MODE": "DB20.DBW24:UINT",
    "SAT": "DB20.DBW26:UINT", "SPU": "DB20.DBD28:REAL", "PV": "DB20.DBD32:REAL",
    "OUT": "DB20.DBD36:REAL", "DV": "DB20.DBD40:REAL",
}  # fmt: skip
LOOP = SlaveLoop(
    name="T", setpoint="SP", request="REQ", in_use="SPU", mode="MODE", saturation="SAT", pv="PV",
    output="OUT", measures="T", drives="heat", tuning=PidTuning(2.0, 50.0, 0.0, 100.0),
    setpoint_low=20.0, setpoint_high=90.0, setpoint_rate_per_s=0.1, start_setpoint=50.0,
)  # fmt: skip


class Tank:
    """Heated first-order process: 100 s behind its heat, cooled by the feed."""

    inputs = (Variable("heat", "percent", 0, 100, 30), Variable("feed", "kg/s", 0, 2, 1))
    outputs = (Variable("T", "degC", 0, 200, 50), Variable("feed", "kg/s", 0, 2, 1))

    def reset(self, seed: int) -> Vector:
        del seed
        self._t = 50.0
        return np.array([self._t, 1.0])

    def advance(self, u: Vector, dt_s: float) -> Vector:
        self._t += (20.0 + u[0] / u[1] - self._t) * dt_s / 100.0
        return np.array([self._t, u[1]])


class Bench:
    """A virtual PLC with one loop, and the hands of a controller on its memory."""

    def __init__(self, loop: SlaveLoop = LOOP, noise: dict[str, float] | None = None) -> None:
        tags = [
            Tag(name, DEVICE, address, "uint16" if address.endswith("UINT") else "float32")
            for name, address in ADDRESSES.items()
        ]
        self.memory = DeviceMemory(DEVICE, tags)
        plant: Plant = Tank()
        self.plc = VirtualPlc(
            plant, [loop], {"DV": "feed"}, {DEVICE: self.memory}, {DEVICE: HANDSHAKE},
            cycle_s=10.0, watchdog_cycles=3, seed=7, noise=noise,
        )  # fmt: skip
        self.now_s = 0
        self.heartbeat = 0

    def command(self, setpoint: float, request: int = 1, epoch: int = 5) -> None:
        self.heartbeat += 1
        frame = {"SP": setpoint, "REQ": request, "EPOCH": epoch, "SEQ": self.heartbeat}
        for name, value in {**frame, "HB": self.heartbeat}.items():
            self.memory.set(name, value)

    def scan(self, count: int = 1, dt_s: int = 1) -> None:
        for _ in range(count):
            self.now_s += dt_s
            self.plc.scan(self.now_s * NS_PER_S, dt_s)

    def get(self, tag: str) -> float:
        return self.memory.get(tag)

    def to_remote(self, setpoint: float = 50.0) -> None:
        self.command(setpoint)
        self.scan()
        self.command(setpoint)
        self.scan()
        assert self.get("MODE") == REMOTE | PERMIT
