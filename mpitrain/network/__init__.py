"""Named layers: their shapes, memory and parameters, and the graph that runs them."""
