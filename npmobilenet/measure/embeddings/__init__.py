"""Pictures to vectors: embed.py runs, spool.py keeps what is done, files.py writes; fit.py makes classifiers of them.

transformer.py has `MobileNetFeatures`, which is `model.features` as a part of scikit-learn's pipelines.
"""

from __future__ import annotations

from npmobilenet.measure.embeddings.embed import Embedded, embed
from npmobilenet.measure.embeddings.files import OUTPUTS, check_output, write_vectors
from npmobilenet.measure.embeddings.fit import Fitted, fit

__all__ = ["OUTPUTS", "Embedded", "Fitted", "check_output", "embed", "fit", "write_vectors"]
