"""Gradients to a mean and weights to every rank: codecs, the wire between ranks, and what
introduces the two."""
