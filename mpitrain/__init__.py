"""Data-parallel training of convolutional networks on whatever OpenCL devices an MPI job has."""
