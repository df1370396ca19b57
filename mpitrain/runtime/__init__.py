"""Devices, programs, arrays and matrix products; the only room that knows pyopencl."""

import os

# mpitrain/runtime/program.py keeps binaries itself; pyopencl's cache behind it would take locks
# between ranks.
os.environ.setdefault("PYOPENCL_NO_CACHE", "1")
