"""Watches over a job: a clock, a process that speaks for a dead rank, and what signals ask for."""
