"""Reads the file that describes an application, and says precisely what is wrong with it."""

from __future__ import annotations

from controller.settings.application import (
    Controlled,
    Device,
    Disturbance,
    EstimatorSettings,
    Feedforward,
    GuardSettings,
    Handshake,
    Lab,
    Manipulated,
    Measured,
    ModbusRtuDevice,
    ModbusTcpDevice,
    MpcSettings,
    OptimizerSettings,
    S7Device,
    Settings,
)
from controller.settings.load import changed, load, parse
from controller.settings.schema import json_schema

__all__ = [
    "Controlled",
    "Device",
    "Disturbance",
    "EstimatorSettings",
    "Feedforward",
    "GuardSettings",
    "Handshake",
    "Lab",
    "Manipulated",
    "Measured",
    "ModbusRtuDevice",
    "ModbusTcpDevice",
    "MpcSettings",
    "OptimizerSettings",
    "S7Device",
    "Settings",
    "changed",
    "json_schema",
    "load",
    "parse",
]
