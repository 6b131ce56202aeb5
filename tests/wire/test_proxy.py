"""Real S7 and Modbus sockets to the virtual PLC, through the proxy: whole, cut, late, refused."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest
from pymodbus.client import ModbusTcpClient
from pymodbus.exceptions import ModbusException
from snap7.client import Client

from controller.errors import ScenarioError
from controller.settings.application import Handshake
from controller.signal import NS_PER_S, Tag
from hil.faults.kinds import LinkFault
from hil.link.proxy import FaultProxy
from hil.link.servers import ModbusServer, S7Server
from hil.link.watch import Permit, Role, WireWatch
from hil.plc.pid import PidTuning
from hil.plc.virtual import PERMIT, REMOTE, SlaveLoop, VirtualPlc
from hil.plc_memory import DeviceMemory
from plant_models.williams_otto import plant

HOST = "127.0.0.1"
S7_TAGS = [
    Tag("R.HB", "reactor", "DB20.DBW0:UINT", "uint16"),
    Tag("R.SEQ", "reactor", "DB20.DBW2:UINT", "uint16"),
    Tag("TR.REQ", "reactor", "DB20.DBW6:UINT", "uint16"),
    Tag("TR.SP", "reactor", "DB20.DBD8:REAL", "float32", low=70, high=100),
    Tag("R.HBE", "reactor", "DB20.DBW20:UINT", "uint16"),
    Tag("TR.MODE", "reactor", "DB20.DBW24:UINT", "uint16"),
    Tag("TR.SPU", "reactor", "DB20.DBD28:REAL", "float32"),
    Tag("TR.PV", "reactor", "DB20.DBD32:REAL", "float32"),
]
SKID_TAGS = [
    Tag("S.HB", "skid", "holding:100:uint16", "uint16"),
    Tag("S.SEQ", "skid", "holding:101:uint16", "uint16"),
    Tag("FB.REQ", "skid", "holding:103:uint16", "uint16"),
    Tag("FB.SP", "skid", "holding:104:float32", "float32", byte_order="CDAB", low=3, high=6),
    Tag("S.HBE", "skid", "holding:120:uint16", "uint16"),
    Tag("FB.MODE", "skid", "holding:122:uint16", "uint16"),
    Tag("FB.SPU", "skid", "holding:124:float32", "float32", byte_order="CDAB"),
    Tag("FB.PV", "skid", "holding:126:float32", "float32", byte_order="CDAB"),
]
PERMITS = [
    Permit(S7_TAGS[0], Role.HEARTBEAT),
    Permit(S7_TAGS[1], Role.SEQUENCE),
    Permit(Tag("R.EPOCH", "reactor", "DB20.DBW4:UINT", "uint16"), Role.EPOCH),
    Permit(S7_TAGS[2], Role.REQUEST),
    Permit(S7_TAGS[3], Role.SETPOINT, 0.25, "TR.REQ", 0.01),
    Permit(SKID_TAGS[0], Role.HEARTBEAT),
    Permit(SKID_TAGS[1], Role.SEQUENCE),
    Permit(Tag("S.EPOCH", "skid", "holding:102:uint16", "uint16"), Role.EPOCH),
    Permit(SKID_TAGS[2], Role.REQUEST),
    Permit(SKID_TAGS[3], Role.SETPOINT, 0.05, "FB.REQ", 0.001),
]


class Lines:
    """The virtual PLC behind two servers, two proxies and the witness."""

    def __init__(self, stack: ExitStack) -> None:
        self.memory = {
            "reactor": DeviceMemory("reactor", S7_TAGS),
            "skid": DeviceMemory("skid", SKID_TAGS),
        }
        loops = [
            SlaveLoop(
                name="T_R", setpoint="TR.SP", request="TR.REQ", in_use="TR.SPU", mode="TR.MODE",
                pv="TR.PV", measures="T_R", drives="T_J_sp",
                tuning=PidTuning(4.0, 400.0, 20.0, 180.0),
                setpoint_low=60.0, setpoint_high=110.0, start_setpoint=76.25,
            ),
            SlaveLoop(
                name="F_B", setpoint="FB.SP", request="FB.REQ", in_use="FB.SPU", mode="FB.MODE",
                pv="FB.PV", measures="F_B", drives="F_B_valve",
                tuning=PidTuning(5.0, 8.0, 0.0, 100.0),
                setpoint_low=0.0, setpoint_high=10.0, start_setpoint=4.625,
            ),
        ]  # fmt: skip
        handshakes = {
            "reactor": Handshake("R.HB", "R.SEQ", "R.HBE"),
            "skid": Handshake("S.HB", "S.SEQ", "S.HBE"),
        }
        self.plc = VirtualPlc(
            plant(), loops, {}, self.memory, handshakes, cycle_s=30.0, watchdog_cycles=3, seed=1
        )
        self.watch = WireWatch(
            {"reactor": "s7", "skid": "modbus"}, PERMITS,
            now_ns=lambda: self.plc.time_ns, in_use=self.plc.setpoint_in_use,
        )  # fmt: skip
        s7 = stack.enter_context(S7Server(self.memory["reactor"]))
        modbus = stack.enter_context(ModbusServer(self.memory["skid"]))
        self.s7_proxy = stack.enter_context(
            FaultProxy("s7", s7.port, on_frame=self.watch.listener("reactor"))
        )
        self.modbus_proxy = stack.enter_context(
            FaultProxy("modbus", modbus.port, on_frame=self.watch.listener("skid"))
        )


@pytest.fixture
def lines() -> Iterator[Lines]:
    with ExitStack() as stack:
        yield Lines(stack)


def _s7_client(port: int, timeout_s: float = 2.0) -> Client:
    client = Client()
    client.connect(HOST, 0, 1, tcp_port=port)
    client.connection.timeout = timeout_s
    client.connection.socket.settimeout(timeout_s)
    return client


def _modbus_client(port: int, timeout_s: float = 2.0) -> ModbusTcpClient:
    client = ModbusTcpClient(HOST, port=port, timeout=timeout_s, retries=0)
    assert client.connect()
    return client


def test_command_scan_status_over_real_sockets(lines: Lines) -> None:
    reactor = _s7_client(lines.s7_proxy.port)
    with closing(_modbus_client(lines.modbus_proxy.port)) as skid:
        for cycle, (temperature, flow) in enumerate([(76.25, 4.625), (76.5, 4.675)], start=1):
            block = struct.pack(">4Hf", cycle, cycle, 0, 1, temperature)
            reactor.db_write(20, 0, bytearray(block))
            high, low = struct.unpack(">2H", struct.pack(">f", flow))
            skid.write_registers(100, [cycle, cycle, 0, 1, low, high], device_id=1)
            lines.plc.scan(30 * cycle * NS_PER_S, 30.0)
        heartbeat, _, mode, _, in_use, pv = struct.unpack(">4H2f", reactor.db_read(20, 20, 16))
        assert (heartbeat, mode) == (2, REMOTE | PERMIT)
        assert in_use == 76.5
        assert pv == pytest.approx(lines.plc.outputs()["T_R"], abs=1e-5)
        registers = skid.read_holding_registers(120, count=8, device_id=1).registers
        assert (registers[0], registers[2]) == (2, REMOTE | PERMIT)
        (in_use,) = struct.unpack(">f", struct.pack(">2H", registers[5], registers[4]))
        assert in_use == pytest.approx(4.675)
        assert skid.read_holding_registers(128, count=1, device_id=1).exception_code == 2
        assert skid.read_coils(0, count=1, device_id=1).exception_code == 2
        assert lines.watch.violations == ()
        assert lines.watch.writes == 4
        skid.write_registers(104, [0, 0], device_id=1)
        assert [v.tag for v in lines.watch.violations] == ["FB.SP", "FB.SP"], "range and step"
    reactor.disconnect()


def test_a_cut_cable_swallows_and_its_connections_are_closed_afterwards(lines: Lines) -> None:
    proxy = lines.s7_proxy
    client = _s7_client(proxy.port, timeout_s=0.2)
    client.db_read(20, 0, 12)
    writes = lines.watch.writes
    proxy.begin("cable_cut")
    with pytest.raises(Exception, match=r"(?i)time"):
        client.db_write(20, 0, bytearray(12))
    assert proxy.dropped_bytes > 0
    assert lines.watch.writes == writes, "what the cable swallowed never reached the PLC"
    proxy.end("cable_cut")
    assert not proxy.faults
    client.disconnect()
    again = _s7_client(proxy.port)
    assert len(again.db_read(20, 0, 12)) == 12
    again.disconnect()


def _knock(proxy: FaultProxy) -> str:
    """What becomes of who wants to connect."""
    try:
        socket.create_connection((HOST, proxy.port), timeout=0.1).close()
    except TimeoutError:
        return "no answer"
    except ConnectionRefusedError:
        return "refused"
    return "accepted"


def test_behind_a_cut_cable_nobody_answers_whatever_else_is_wrong(lines: Lines) -> None:
    proxy, seen = lines.modbus_proxy, list[str]()
    for begins, fault in [
        (True, "cable_cut"), (True, "refuse"), (False, "cable_cut"), (True, "cable_cut"),
        (False, "refuse"), (False, "cable_cut"),
    ]:  # fmt: skip
        (proxy.begin if begins else proxy.end)(fault)
        seen += [_knock(proxy), _knock(proxy)]
    silent = "no answer"
    assert seen[:4] == [silent] * 4
    assert seen[4:6] == ["refused"] * 2
    assert seen[6:10] == [silent] * 4
    assert seen[10:] == ["accepted"] * 2


def test_no_reset_gets_through_a_cut_cable(lines: Lines) -> None:
    proxy = lines.modbus_proxy
    with socket.create_connection((HOST, proxy.port), timeout=5.0) as open_one:
        request = struct.pack(">HHHBBHH", 1, 0, 6, 1, 3, 100, 2)
        open_one.sendall(request)
        assert len(open_one.recv(64)) == 13
        proxy.begin("cable_cut")
        for fault in ("reset", "refuse"):
            proxy.begin(fault)
            proxy.end(fault)
        open_one.settimeout(0.1)
        with pytest.raises(TimeoutError):
            open_one.recv(1)
        proxy.end("cable_cut")
        open_one.settimeout(5.0)
        assert open_one.recv(1) == b"", "the PLC has given the connection up meanwhile"


def test_a_cut_modbus_line_times_out_and_comes_back(lines: Lines) -> None:
    proxy = lines.modbus_proxy
    with closing(_modbus_client(proxy.port, timeout_s=0.2)) as client:
        assert not client.read_holding_registers(100, count=2, device_id=1).isError()
        proxy.begin(LinkFault.CABLE_CUT)
        with pytest.raises(ModbusException):
            client.read_holding_registers(100, count=2, device_id=1)
        proxy.end(LinkFault.CABLE_CUT)
    with closing(_modbus_client(proxy.port)) as client:
        assert not client.read_holding_registers(100, count=2, device_id=1).isError()


class _Echo:
    """A plain TCP server that answers every chunk with itself."""

    def __init__(self) -> None:
        self._listener = socket.create_server((HOST, 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            with peer:
                try:
                    while chunk := peer.recv(65536):
                        peer.sendall(chunk)
                except OSError:
                    continue

    def close(self) -> None:
        if self._listener.fileno() < 0:
            return
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5.0)


REQUEST = struct.pack(">HHHBBHH", 1, 0, 6, 1, 3, 100, 2)


def _round_trip_s(line: socket.socket, frame: bytes = REQUEST) -> float:
    start = time.perf_counter()
    line.sendall(frame)
    answer = b""
    while len(answer) < len(frame):
        chunk = line.recv(4096)
        assert chunk, "closed in the middle of an answer"
        answer += chunk
    assert answer == frame
    return time.perf_counter() - start


@pytest.fixture
def echo() -> Iterator[_Echo]:
    with closing(_Echo()) as server:
        yield server


def _connect(port: int) -> socket.socket:
    line = socket.create_connection((HOST, port), timeout=5.0)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return line


def test_delay_is_felt_both_ways_and_in_order(echo: _Echo) -> None:
    with FaultProxy("modbus", echo.port, seed=5) as proxy, _connect(proxy.port) as line:
        assert _round_trip_s(line) < 0.06
        proxy.begin("delay", {"delay_ms": 30.0, "jitter_ms": 10.0})
        assert 0.06 <= _round_trip_s(line) < 2.0
        frames = b"".join(struct.pack(">HHHB", n, 0, 2, 1) + b"\x07" for n in range(50))
        line.sendall(frames)
        proxy.end("delay")
        received = b""
        while len(received) < len(frames):
            received += line.recv(4096)
        assert received == frames
        assert _round_trip_s(line) < 0.06


def test_reset_breaks_old_and_new_connections_until_it_ends(echo: _Echo) -> None:
    with FaultProxy("modbus", echo.port) as proxy:
        with _connect(proxy.port) as line:
            _round_trip_s(line)
            proxy.begin("reset")
            with pytest.raises(ConnectionResetError):
                line.recv(1)
        with pytest.raises(ConnectionError), _connect(proxy.port) as line:
            _round_trip_s(line)
        proxy.end("reset")
        with _connect(proxy.port) as line:
            _round_trip_s(line)
        assert proxy.connections == 3


def test_refuse_answers_nobody_and_keeps_the_port(echo: _Echo) -> None:
    with FaultProxy("modbus", echo.port) as proxy:
        with _connect(proxy.port) as line:
            _round_trip_s(line)
            proxy.begin("refuse")
            with pytest.raises(ConnectionResetError):
                line.recv(1)
        with pytest.raises(ConnectionRefusedError):
            _connect(proxy.port)
        proxy.end("refuse")
        with _connect(proxy.port) as line:
            _round_trip_s(line)


def test_a_dead_plc_resets_the_caller(echo: _Echo) -> None:
    echo.close()
    with (
        FaultProxy("modbus", echo.port) as proxy,
        pytest.raises(ConnectionError),
        _connect(proxy.port) as line,
    ):
        line.recv(1)


def test_a_connection_made_during_a_reset_does_not_outlive_it(echo: _Echo) -> None:
    with FaultProxy("modbus", echo.port) as proxy:
        proxy.begin("reset")
        with _connect(proxy.port) as silent:
            give_up_s = time.monotonic() + 5.0
            while not proxy.connections and time.monotonic() < give_up_s:
                time.sleep(0.001)  # the kernel takes connections before the proxy does
            proxy.end("reset")
            with pytest.raises(ConnectionResetError):
                silent.recv(1)


def test_refusing_twice_is_refusing_once(echo: _Echo) -> None:
    with FaultProxy("modbus", echo.port) as proxy:
        proxy.begin("refuse")
        proxy.begin("refuse")
        proxy.end("refuse")
        with _connect(proxy.port) as line:
            _round_trip_s(line)


def test_a_storm_breaks_idle_connections_again_and_again(echo: _Echo) -> None:
    with FaultProxy("modbus", echo.port) as proxy:
        proxy.begin("reconnect_storm", {"period_ms": 20.0})
        for _ in range(3):
            with _connect(proxy.port) as idle, pytest.raises(ConnectionResetError):
                idle.recv(1)
        proxy.end("reconnect_storm")
        with _connect(proxy.port) as line:
            _round_trip_s(line)


def test_a_storm_keeps_the_time_of_a_scenario_that_is_faster_than_ours(echo: _Echo) -> None:
    with FaultProxy("modbus", echo.port, speed=50.0) as proxy:
        begun_s = time.monotonic()
        proxy.begin("reconnect_storm", {"period_ms": 10_000.0})
        with _connect(proxy.port) as idle, pytest.raises(ConnectionResetError):
            idle.recv(1)
        assert 0.19 < time.monotonic() - begun_s < 5.0


def test_a_half_open_connection_is_dead_while_new_ones_work(lines: Lines) -> None:
    proxy = lines.modbus_proxy
    with closing(_modbus_client(proxy.port, timeout_s=0.2)) as old:
        assert not old.read_holding_registers(100, count=2, device_id=1).isError()
        proxy.begin("half_open")
        with closing(_modbus_client(proxy.port)) as new:
            with pytest.raises(ModbusException):
                old.read_holding_registers(100, count=2, device_id=1)
            assert proxy.dropped_bytes == len(REQUEST)
            assert not new.read_holding_registers(100, count=2, device_id=1).isError()
            proxy.end("half_open")
            assert not new.read_holding_registers(100, count=2, device_id=1).isError()


def test_an_unknown_fault_is_refused(echo: _Echo) -> None:
    with FaultProxy("modbus", echo.port) as proxy, pytest.raises(ScenarioError, match="gremlins"):
        proxy.begin("gremlins")


def test_the_overhead_of_a_request_is_small(echo: _Echo) -> None:
    with FaultProxy("modbus", echo.port) as proxy:
        with _connect(echo.port) as line:
            direct_s = min(_round_trip_s(line) for _ in range(300))
        with _connect(proxy.port) as line:
            through_s = min(_round_trip_s(line) for _ in range(300))
    assert through_s - direct_s < 500e-6
