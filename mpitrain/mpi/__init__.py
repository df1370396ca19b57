"""All that passes between ranks; the only room that knows mpi4py."""
