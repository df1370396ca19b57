"""The experiments of arXiv 1702.01846 again, a task a file; benchmarks/redo.py runs them."""
