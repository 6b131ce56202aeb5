"""The handshake, held by a STEP 7 program that we do not run: awlsim behind real S7 sockets."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from awlsim.common.exceptions import AwlSimError
from snap7.client import Client

from tests.peers.awl_plc import AwlPlc, LoopSettings

pytestmark = pytest.mark.peer

REMOTE, PERMIT = 1, 2


@dataclass(frozen=True, slots=True)
class Answer:
    """DB20.20–39, as the controller reads it."""

    heartbeat: int
    sequence: int
    mode: int
    saturation: int
    in_use: float
    pv: float
    output: float

    @property
    def remote(self) -> bool:
        return bool(self.mode & REMOTE)


class Controller:
    """The other end of the socket: writes DB20.0–11 in one frame, reads DB20.20–39."""

    def __init__(self, plc: AwlPlc) -> None:
        self.plc = plc
        self.client = Client()
        self.client.connect("127.0.0.1", 0, 1, tcp_port=plc.port)
        self.heartbeat = 0
        self.sequence = 0
        self.epoch = 1

    def write(self, setpoint: float, request: int = 1, alive: bool = True) -> None:
        self.sequence = (self.sequence + 1) % 65536
        self.heartbeat = (self.heartbeat + alive) % 65536
        frame = struct.pack(">4Hf", self.heartbeat, self.sequence, self.epoch, request, setpoint)
        self.client.db_write(20, 0, bytearray(frame))

    def read(self) -> Answer:
        return Answer(*struct.unpack(">4H3f", self.client.db_read(20, 20, 20)))

    def cycle(self, setpoint: float, request: int = 1, alive: bool = True) -> Answer:
        """One controller cycle, which is one scan of the PLC here."""
        self.write(setpoint, request, alive)
        self.plc.scan()
        return self.read()

    def silence(self, scans: int) -> Answer:
        """The controller is dead: the PLC scans on."""
        for _ in range(scans):
            self.plc.scan()
        return self.read()


@pytest.fixture(name="plc")
def _plc() -> Iterator[AwlPlc]:
    with AwlPlc(LoopSettings()) as plc:
        yield plc


@pytest.fixture(name="controller")
def _controller(plc: AwlPlc) -> Iterator[Controller]:
    controller = Controller(plc)
    yield controller
    controller.client.disconnect()


def test_starts_in_local_at_the_operators_setpoint(controller: Controller) -> None:
    answer = controller.silence(1)
    assert not answer.remote
    assert answer.mode == PERMIT
    assert answer.in_use == 80.0
    assert answer.pv == pytest.approx(80.0)


def test_echoes_heartbeat_and_sequence_of_the_frame_it_acted_on(controller: Controller) -> None:
    for _ in range(3):
        answer = controller.cycle(80.0)
        assert answer.heartbeat == controller.heartbeat
        assert answer.sequence == controller.sequence
    controller.write(80.0)
    assert controller.read().sequence == controller.sequence - 1  # not scanned yet


def test_a_heartbeat_left_from_before_the_restart_is_not_alive(controller: Controller) -> None:
    controller.heartbeat = 41
    assert not controller.cycle(90.0, alive=False).remote
    assert not controller.cycle(90.0, alive=False).remote
    assert controller.cycle(80.0).remote


def test_remote_only_with_request_permit_and_heartbeat(plc: AwlPlc, controller: Controller) -> None:
    controller.cycle(80.0, request=0)
    assert controller.cycle(80.0).mode == REMOTE | PERMIT
    assert not controller.cycle(80.0, request=0).remote
    assert not controller.cycle(80.0, request=2).remote  # only bit 0 asks
    plc.set("permit", False)
    assert controller.cycle(80.0).mode == 0
    plc.set("permit", True)
    assert controller.cycle(80.0).remote


def test_setpoint_is_followed_at_the_rate_limit_and_the_process_follows(
    controller: Controller,
) -> None:
    controller.cycle(80.0, request=0)
    in_use = [controller.cycle(93.0).in_use for _ in range(5)]
    assert in_use == pytest.approx([85.0, 90.0, 93.0, 93.0, 93.0])
    answer = [controller.cycle(93.0) for _ in range(80)][-1]
    assert answer.pv == pytest.approx(93.0, abs=0.1)
    assert answer.output == pytest.approx(93.0, abs=0.2)
    assert answer.saturation == 0


@pytest.mark.parametrize(("wanted", "kept"), [(140.0, 100.0), (-20.0, 70.0)])
def test_setpoint_is_clamped(controller: Controller, wanted: float, kept: float) -> None:
    controller.cycle(80.0, request=0)
    answer = [controller.cycle(wanted) for _ in range(10)][-1]
    assert answer.remote
    assert answer.in_use == kept


@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf])
def test_setpoint_that_is_no_number_is_refused(controller: Controller, garbage: float) -> None:
    controller.cycle(80.0, request=0)
    assert controller.cycle(garbage).in_use == 80.0  # also as the very first one in REMOTE
    controller.cycle(84.0)
    for _ in range(3):
        answer = controller.cycle(garbage)
        assert answer.in_use == 84.0
    assert controller.cycle(85.0).in_use == 85.0


def test_refused_setpoint_at_takeover_stops_the_operators_ramp(
    plc: AwlPlc, controller: Controller
) -> None:
    controller.cycle(80.0, request=0)
    plc.set("local_sp", 95.0)
    assert controller.silence(1).in_use == 85.0
    assert [controller.cycle(math.nan).in_use for _ in range(3)] == [85.0, 85.0, 85.0]


def test_watchdog_drops_to_local_after_three_cycles_and_holds(controller: Controller) -> None:
    controller.cycle(80.0, request=0)
    controller.cycle(84.0)
    controller.cycle(84.0)
    assert controller.silence(2).remote
    answer = controller.silence(1)
    assert not answer.remote
    assert answer.mode == PERMIT
    assert answer.in_use == 84.0
    assert controller.silence(50).in_use == 84.0


def test_a_frame_with_a_standing_heartbeat_does_not_keep_it_alive(controller: Controller) -> None:
    controller.cycle(80.0, request=0)
    controller.cycle(84.0)
    remote = [controller.cycle(86.0, alive=False).remote for _ in range(4)]
    assert remote == [True, True, False, False]


def test_heartbeat_may_wrap_around(controller: Controller) -> None:
    controller.heartbeat = 65533
    controller.cycle(80.0)
    assert all(controller.cycle(80.0).remote for _ in range(6))
    assert controller.heartbeat < 10


def test_an_old_frame_that_comes_late_is_not_acted_on(controller: Controller) -> None:
    controller.cycle(80.0, request=0)
    controller.cycle(84.0)
    newest = controller.sequence
    for age, request, remote in ((1, 0, True), (20, 1, True), (32767, 1, False)):
        controller.sequence = (newest - age - 1) % 65536
        answer = controller.cycle(90.0, request)
        assert answer.in_use == 84.0
        assert answer.sequence == newest
        assert answer.remote is remote  # it does not feed the watchdog either
    controller.sequence = newest
    assert controller.cycle(85.0).in_use == 85.0


def test_sequence_may_wrap_around(controller: Controller) -> None:
    controller.sequence = 65530
    controller.cycle(80.0, request=0)
    assert all(controller.cycle(80.0).remote for _ in range(10))
    assert controller.sequence < 10


def test_a_restarted_controller_waits_in_local_until_its_heartbeat_moves(
    controller: Controller,
) -> None:
    controller.cycle(80.0, request=0)
    assert controller.cycle(84.0).remote
    controller.epoch, controller.heartbeat, controller.sequence = 2, 0, 0
    answer = controller.cycle(90.0)
    assert not answer.remote
    assert answer.in_use == 84.0
    answer = controller.cycle(84.5)
    assert answer.remote
    assert answer.in_use == 84.5


def test_return_after_the_watchdog_is_bumpless(plc: AwlPlc, controller: Controller) -> None:
    controller.cycle(80.0, request=0)
    controller.cycle(84.0)
    controller.silence(5)
    plc.set("local_sp", 78.0)  # the operator took over meanwhile
    assert [controller.silence(1).in_use for _ in range(2)] == [79.0, 78.0]
    answer = controller.cycle(78.0)  # the controller starts at what it read
    assert answer.remote
    assert answer.in_use == 78.0
    in_use = controller.cycle(100.0).in_use
    assert in_use == 83.0  # even a wrong setpoint moves it one step only
    assert controller.cycle(83.0, request=0).in_use == 83.0


def test_configured_fallback_is_reached_by_a_ramp() -> None:
    with AwlPlc(LoopSettings(use_fallback=True, fallback=72.0)) as plc:
        controller = Controller(plc)
        try:
            controller.cycle(80.0, request=0)
            controller.cycle(84.0)
            controller.cycle(84.0)
            assert [controller.silence(1).in_use for _ in range(6)] == pytest.approx(
                [84.0, 84.0, 79.0, 74.0, 72.0, 72.0]
            )
            controller.cycle(72.0)
            controller.cycle(74.0)
            # Handing back on purpose is no emergency: no fallback.
            assert controller.cycle(74.0, request=0).in_use == 74.0
            assert controller.silence(9).in_use == 74.0
        finally:
            controller.client.disconnect()


def test_process_value_from_the_field_and_saturation() -> None:
    with AwlPlc(LoopSettings(out_high=90.0, low=0.0, high=150.0, step=50.0)) as plc:
        controller = Controller(plc)
        try:
            controller.write(130.0, request=0)
            plc.scan(pv=79.5)
            assert controller.read().pv == 79.5
            controller.write(130.0)
            plc.scan(pv=79.5)
            answer = controller.read()
            assert (answer.saturation, answer.output) == (1, 90.0)
            controller.write(20.0)
            for _ in range(3):
                plc.scan(pv=79.5)
            answer = controller.read()
            assert (answer.saturation, answer.output) == (2, 0.0)
            assert plc.setpoint_in_use == 20.0
            assert plc.remote
            plc.scan(pv=-200.0)
            assert controller.read().saturation == 1  # never both bits
        finally:
            controller.client.disconnect()


def test_unknown_field_is_refused(plc: AwlPlc) -> None:
    with pytest.raises(AwlSimError, match="not found"):
        plc.set("permitt", True)
