"""OpenCL C sources, found by `mpitrain.runtime.program`; NAME.cl has one caller NAME.py."""
