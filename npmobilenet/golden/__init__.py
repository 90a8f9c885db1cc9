"""Golden tools: record what a model computes, compare dumps, explain a value, tell a dump's arithmetic, export vectors.

    from npmobilenet import golden
    golden.record("model.tflite", "random:0", "ours")
    result = golden.diff("ours", "theirs", names="names.json")
    print(result.verdict)

recording.py writes dumps, dump.py reads them and anyone else's (foreign_dumps.py). comparing.py compares them,
diff_verdict.py says what came of it (diff_report.py as a page), causes/ why. explaining.py takes one value apart, step
by step (derivation.py); identifying.py tells which arithmetic a dump follows. Both use single_node.py, which runs one
node of a model alone. inputs.py is where models and values come from, exporting/ writes test vectors.
digest.py hashes a run, so that two machines are compared by a string.
"""

from __future__ import annotations

from npmobilenet.golden.comparing import diff
from npmobilenet.golden.diff_report import write_report
from npmobilenet.golden.diff_verdict import Comparison, Diff, TensorDiff, Tolerance
from npmobilenet.golden.digest import Digest, digest, read_digest
from npmobilenet.golden.dump import Dump
from npmobilenet.golden.explaining import Explanation, explain
from npmobilenet.golden.exporting import export
from npmobilenet.golden.identifying import Identification, identify
from npmobilenet.golden.recording import record

__all__ = [
    "Comparison",
    "Diff",
    "Digest",
    "Dump",
    "Explanation",
    "Identification",
    "TensorDiff",
    "Tolerance",
    "diff",
    "digest",
    "explain",
    "export",
    "identify",
    "read_digest",
    "record",
    "write_report",
]
