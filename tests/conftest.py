"""Makes the repository root importable, so that tests share modules as `tests.unit.…`."""
