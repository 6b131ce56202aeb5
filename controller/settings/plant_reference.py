"""Finds the process model that a settings file names.

The model is foreign code: importing and calling it may fail in any way, and whatever it raises
becomes a ModelError that keeps its cause.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from controller.errors import LoopwrightError, ModelError

GROUP = "loopwright.plants"


def find_factory(reference: str, folder: Path) -> Callable[..., object]:
    """The callable behind `package.module:factory`, `path/file.py:factory` or an entry point.

    Args:
        folder: where a relative file path starts.

    Raises:
        ModelError: nothing there, or importing it fails.
    """
    if ":" not in reference:
        return _entry_point(reference)
    # A colon may also stand in a Windows path: the last one divides.
    source, _, name = reference.rpartition(":")
    module = _file(folder / source) if source.endswith(".py") else _module(source)
    factory = getattr(module, name, None)
    if not callable(factory):
        public = ", ".join(n for n, v in vars(module).items() if callable(v) and n[0] != "_")
        raise ModelError(f"{source} has no factory {name}", mend=f"It has: {public or 'none'}")
    return factory


def accepted_names(factory: Callable[..., object]) -> frozenset[str]:
    """Named arguments that the factory takes itself."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return frozenset()
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return frozenset(p.name for p in parameters if p.kind in named)


def call_factory(
    factory: Callable[..., object], reference: str, arguments: Mapping[str, object]
) -> object:
    """What the factory returns.

    Raises:
        ModelError: whatever the factory raised, in one line.
        LoopwrightError: what it raised of our own, as it is.
    """
    try:
        return factory(**arguments)
    except LoopwrightError:
        raise
    except Exception as error:
        raise ModelError(
            f"{reference} failed: {type(error).__name__}: {error}", mend="Mend the model"
        ) from error


def _entry_point(name: str) -> Callable[..., object]:
    found = {point.name: point for point in entry_points(group=GROUP)}
    if name not in found:
        known = ", ".join(sorted(found)) or "none"
        raise ModelError(
            f"no plant called {name} is installed",
            mend=f"Write module:factory or file.py:factory, or install it (installed: {known})",
        )
    try:
        return found[name].load()
    except Exception as error:
        raise _import_failed(name, error) from error


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise _import_failed(name, error) from error


def _file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ModelError(f"there is no file {path}", mend="Give the path relative to this file")
    # Two files of one name in different folders are two modules.
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    name = f"loopwright_plant_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ModelError(f"{path} is not a Python file", mend="Name a .py file")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up while it is being executed.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise _import_failed(str(path), error) from error
    return module


def _import_failed(name: str, error: Exception) -> ModelError:
    return ModelError(
        f"cannot import {name}: {type(error).__name__}: {error}",
        mend="Check the spelling, and that the package is installed",
    )
