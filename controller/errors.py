"""Every error that Loopwright raises, drawn as one tree.

LoopwrightError                what, where, how to mend; knows its exit code
├── SettingsError     exit 2   a file the user wrote: file:line:column path
├── ScenarioError     exit 2   a scenario that cannot be run
├── ModelError        exit 2   a process model that does not fit its use
├── PlantError        exit 3   a plant of somebody else that stops working in the middle of a run
├── DeviceError       exit 3   a PLC or its connection
│   ├── DeviceUnreachable      nobody answers at that address
│   ├── DeviceTimeout          it answered before, now it does not
│   ├── DeviceProtocolError    it answered, but not what the protocol allows
│   └── DeviceRefused          it understood and said no (exception code, PUT/GET, DB length)
├── WriteRefused      exit 3   a value the guard or the write table does not allow
├── JournalError      exit 3   the journal cannot keep what it was given
├── ReplayError       exit 3   a journal that cannot be replayed
├── ProcessLost       exit 3   a process at work on a run or an episode was killed
└── ClockError        exit 3   the clock jumped
"""

from __future__ import annotations


class LoopwrightError(Exception):
    """Base of the tree. `what` happened, `where` (file:line, tag, device), how to `mend` it."""

    exit_code = 3

    def __init__(self, what: str, *, where: str = "", mend: str = "") -> None:
        self.what = what
        self.where = where
        self.mend = mend
        super().__init__(what)

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}. {self.mend}" if self.mend else text


class SettingsError(LoopwrightError):
    """A configuration file is wrong; `problems` lists every one found, this error the first."""

    exit_code = 2

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        mend: str = "",
        problems: tuple[SettingsError, ...] = (),
    ) -> None:
        super().__init__(what, where=where, mend=mend)
        self.problems = problems or (self,)

    def __str__(self) -> str:
        if self.problems == (self,):
            return super().__str__()
        return "\n".join(str(problem) for problem in self.problems)


class ScenarioError(LoopwrightError):
    """A scenario cannot be run as written."""

    exit_code = 2


class ModelError(LoopwrightError):
    """A process model does not fit the use made of it."""

    exit_code = 2


class PlantError(LoopwrightError):
    """The plant hung, crashed, or gave up in the middle of a run."""


class DeviceError(LoopwrightError):
    """A PLC, or the connection to it."""


class DeviceUnreachable(DeviceError):
    """Nobody answers at the configured address."""


class DeviceTimeout(DeviceError):
    """No answer within the time-out; the socket has been dropped."""


class DeviceProtocolError(DeviceError):
    """An answer that the protocol does not allow; the socket has been dropped."""


class DeviceRefused(DeviceError):
    """The device understood the request and refused it."""


class WriteRefused(LoopwrightError):
    """A value that must not leave this process."""


class JournalError(LoopwrightError):
    """The journal cannot keep what it was given (disk full, file damaged, closed)."""


class ReplayError(LoopwrightError):
    """A journal that cannot be replayed."""


class ProcessLost(LoopwrightError):
    """A process was killed in the middle of its work, as where memory runs short."""


class ClockError(LoopwrightError):
    """The clock jumped, or runs backwards."""
