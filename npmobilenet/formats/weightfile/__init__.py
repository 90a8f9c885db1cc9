"""The weight file: one HDF5 container of a `ModelData`, written to the same bytes every time.

weights/README.md is the format on one page. In short: root attributes name the format, its schema
and three sha256 sums; the datasets `graph` and `info` hold JSON; the group `tensors` holds one
contiguous dataset for each constant of the graph.

The reader trusts nothing. A link is looked at before it is followed, and a dataset's kind, dtype,
shape and stored size before it is read; nothing is allocated that the file isn't large enough to
hold; everything read is checked against a sum. The reasons are known holes of another HDF5 loader,
Keras': external links and storage (CVE-2026-1669), declared sizes far above the stored ones
(CVE-2026-0897).
"""

from __future__ import annotations

from npmobilenet.formats.weightfile.limits import MAX_FILE_BYTES
from npmobilenet.formats.weightfile.reader import read, sha256
from npmobilenet.formats.weightfile.schema import FORMAT, SCHEMA, encode_name
from npmobilenet.formats.weightfile.writer import write

__all__ = ["FORMAT", "MAX_FILE_BYTES", "SCHEMA", "encode_name", "read", "sha256", "write"]
