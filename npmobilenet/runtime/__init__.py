"""From a model to its results: fusion, plan, binding, memory, taps, engine, turns and threads."""
