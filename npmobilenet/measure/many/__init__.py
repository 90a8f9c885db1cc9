"""More images than one machine wants: parts of them on a Dask cluster, each written whole, listed in a manifest.

sources.py cuts the input into parts, parts.py is what a worker does, run.py hands the parts out and keeps the manifest.
"""

from __future__ import annotations

from npmobilenet.measure.many.run import Done, embed_many, evaluate_many, predict_many

__all__ = ["Done", "embed_many", "evaluate_many", "predict_many"]
