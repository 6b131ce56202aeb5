"""One thread for the numerical libraries; imported before they are.

Matrices here are small: a second thread of OpenBLAS only waits for the first, on a busy machine
for milliseconds. The libraries read their environment when they are loaded.
"""

from __future__ import annotations

import os

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
