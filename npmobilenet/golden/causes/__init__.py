"""Causes of a divergence, proved on the whole layer.

`case.py`: a node whose values in a dump aren't right, and what a hypothesis changes. The hypotheses: `constants.py`
(weights and bias), `geometry.py` (where windows read), `results.py` (what lies behind the accumulators, places),
`multiplying.py`, `memory.py`, `channelwise.py`, `undumped.py` (seen in the node behind),
`functions.py` (ops without weights), `bits.py` (single numbers). `table.py` lists them, `search.py` tries and ranks.
"""
