"""Labelled images by sample number: where they come from, in which order, and which part a rank
takes."""
