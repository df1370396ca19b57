"""Data-parallel training of convolutional networks on whatever OpenCL devices an MPI job has."""

__version__ = "0.1.0"
