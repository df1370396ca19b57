"""Labelled images: formats, their order in training, and each rank's part of a batch."""
