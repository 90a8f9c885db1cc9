"""The tables: architectures (v1, v2, v3, v4, edgetpu), their row types (rows), published checkpoints (checkpoints)."""

from npmobilenet.zoo.edgetpu import EDGETPU
from npmobilenet.zoo.rows import Spec
from npmobilenet.zoo.v1 import V1
from npmobilenet.zoo.v2 import V2
from npmobilenet.zoo.v3 import (
    V3_LARGE,
    V3_LARGE_DETECTION,
    V3_LARGE_MINIMALISTIC,
    V3_SMALL,
    V3_SMALL_DETECTION,
    V3_SMALL_MINIMALISTIC,
)
from npmobilenet.zoo.v4 import V4_CONV_LARGE, V4_CONV_MEDIUM, V4_CONV_SMALL

SPECS: dict[str, Spec] = {
    spec.family: spec
    for spec in (
        V1,
        V2,
        V3_LARGE,
        V3_SMALL,
        V3_LARGE_MINIMALISTIC,
        V3_SMALL_MINIMALISTIC,
        V3_LARGE_DETECTION,
        V3_SMALL_DETECTION,
        EDGETPU,
        V4_CONV_SMALL,
        V4_CONV_MEDIUM,
        V4_CONV_LARGE,
    )
}
