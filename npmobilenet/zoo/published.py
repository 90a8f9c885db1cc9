"""What was published: every row of the checkpoint tables as printed, and the training settings.

`checkpoints.py` makes the registry of these tables; docs/models.md prints them beside computed ones.
All cells are strings, so that "4.0" stays "4.0". A new published model is one more row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """One row of a published table; a field that its table has no column for stays "".

    `name`, `file` and `model` are the varying parts of the row's text, of its archive and of its
    canonical name (see `Table`).
    Units: `macs` and `params` in millions, `top1` and `top5` in percent, latencies in milliseconds.
    """

    name: str
    file: str
    macs: str
    params: str
    top1: str
    top5: str = ""
    pixel1: str = ""
    pixel2: str = ""
    pixel3: str = ""
    pixel4_edgetpu: str = ""
    pixel4_cpu: str = ""
    model: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """A published table.

    `columns` maps fields of `Row` to headings as printed. `label`, `url` and `model` hold `{name}`,
    `{file}` or `{model}`, which a row fills in: its text in the first column, the address of its
    archive, and the canonical name of its model.
    """

    title: str
    source: str
    columns: Mapping[str, str]
    label: str
    url: str
    model: str
    rows: tuple[Row, ...]

    def label_of(self, row: Row) -> str:
        """The text of the row's link, as printed."""
        return self.label.format(name=row.name)

    def url_of(self, row: Row) -> str:
        """The address that the row links to."""
        return self.url.format(name=row.name, file=row.file)

    def model_of(self, row: Row) -> str:
        """The canonical name of the row's model."""
        return self.model.format(name=row.name, file=row.file, model=row.model)

    def cells_of(self, row: Row) -> dict[str, str]:
        """Heading -> cell, as printed, in the table's order."""
        return {heading: getattr(row, field) for field, heading in self.columns.items()}


@dataclass(frozen=True, kw_only=True, eq=False)
class Setting:
    """One training setting: its name, value and remark as printed."""

    name: str
    value: str
    remark: str = ""


_V1_PAGE = "tensorflow/models research/slim/nets/mobilenet_v1.md"
_PAGE = "tensorflow/models research/slim/nets/mobilenet/README.md"
_V1_FILES = "http://download.tensorflow.org/models/mobilenet_v1_2018_08_02/"
_V1_COLUMNS = {"macs": "MACs (M)", "params": "params (M)", "top1": "top-1", "top5": "top-5"}
_V3_COLUMNS = {
    "macs": "MACs (M)",
    "params": "Params (M)",
    "top1": "Top1",
    "pixel1": "Pixel 1",
    "pixel2": "Pixel 2",
    "pixel3": "Pixel 3",
}

# fmt: off

# Source: tensorflow/models research/slim/nets/mobilenet_v1.md, the float checkpoints of 2018-08-02.
_V1_ROWS = (
    Row(name="1.0_224",  file="1.0_224",  macs="569", params="4.24", top1="70.9", top5="89.9"),
    Row(name="1.0_192",  file="1.0_192",  macs="418", params="4.24", top1="70.0", top5="89.2"),
    Row(name="1.0_160",  file="1.0_160",  macs="291", params="4.24", top1="68.0", top5="87.7"),
    Row(name="1.0_128",  file="1.0_128",  macs="186", params="4.24", top1="65.2", top5="85.8"),
    Row(name="0.75_224", file="0.75_224", macs="317", params="2.59", top1="68.4", top5="88.2"),
    Row(name="0.75_192", file="0.75_192", macs="233", params="2.59", top1="67.2", top5="87.3"),
    Row(name="0.75_160", file="0.75_160", macs="162", params="2.59", top1="65.3", top5="86.0"),
    Row(name="0.75_128", file="0.75_128", macs="104", params="2.59", top1="62.1", top5="83.9"),
    Row(name="0.50_224", file="0.5_224",  macs="150", params="1.34", top1="63.3", top5="84.9"),
    Row(name="0.50_192", file="0.5_192",  macs="110", params="1.34", top1="61.7", top5="83.6"),
    Row(name="0.50_160", file="0.5_160",  macs="77",  params="1.34", top1="59.1", top5="81.9"),
    Row(name="0.50_128", file="0.5_128",  macs="49",  params="1.34", top1="56.3", top5="79.4"),
    Row(name="0.25_224", file="0.25_224", macs="41",  params="0.47", top1="49.8", top5="74.2"),
    Row(name="0.25_192", file="0.25_192", macs="34",  params="0.47", top1="47.7", top5="72.3"),
    Row(name="0.25_160", file="0.25_160", macs="21",  params="0.47", top1="45.5", top5="70.3"),
    Row(name="0.25_128", file="0.25_128", macs="14",  params="0.47", top1="41.5", top5="66.3"),
)

# Source: tensorflow/models research/slim/nets/mobilenet_v1.md, the checkpoints called ..._quant.
_V1_QUANT_ROWS = (
    Row(name="1.0_224",  file="1.0_224",  macs="569", params="4.24", top1="70.1", top5="88.9"),
    Row(name="1.0_192",  file="1.0_192",  macs="418", params="4.24", top1="69.2", top5="88.3"),
    Row(name="1.0_160",  file="1.0_160",  macs="291", params="4.24", top1="67.2", top5="86.7"),
    Row(name="1.0_128",  file="1.0_128",  macs="186", params="4.24", top1="63.4", top5="84.2"),
    Row(name="0.75_224", file="0.75_224", macs="317", params="2.59", top1="66.8", top5="87.0"),
    Row(name="0.75_192", file="0.75_192", macs="233", params="2.59", top1="66.1", top5="86.4"),
    Row(name="0.75_160", file="0.75_160", macs="162", params="2.59", top1="62.3", top5="83.8"),
    Row(name="0.75_128", file="0.75_128", macs="104", params="2.59", top1="55.8", top5="78.8"),
    Row(name="0.50_224", file="0.5_224",  macs="150", params="1.34", top1="60.7", top5="83.2"),
    Row(name="0.50_192", file="0.5_192",  macs="110", params="1.34", top1="60.0", top5="82.2"),
    Row(name="0.50_160", file="0.5_160",  macs="77",  params="1.34", top1="57.7", top5="80.4"),
    Row(name="0.50_128", file="0.5_128",  macs="49",  params="1.34", top1="54.5", top5="77.7"),
    Row(name="0.25_224", file="0.25_224", macs="41",  params="0.47", top1="48.0", top5="72.8"),
    Row(name="0.25_192", file="0.25_192", macs="34",  params="0.47", top1="46.0", top5="71.2"),
    Row(name="0.25_160", file="0.25_160", macs="21",  params="0.47", top1="43.4", top5="68.5"),
    Row(name="0.25_128", file="0.25_128", macs="14",  params="0.47", top1="39.5", top5="64.4"),
)

# Source: tensorflow/models research/slim/nets/mobilenet/README.md, "Mobilenet V2 Imagenet
# Checkpoints". A row links to two archives: mobilenet_v2_{name}.tgz (float) and, in the column
# "Quantized", quantized_v2_{file}.tgz.
_V2_ROWS = (
    Row(name="1.4_224",  file="224_140", macs="582", params="6.06", top1="75.0", top5="92.5", pixel1="138.0"),
    Row(name="1.3_224",  file="224_130", macs="509", params="5.34", top1="74.4", top5="92.1", pixel1="123.0"),
    Row(name="1.0_224",  file="224_100", macs="300", params="3.47", top1="71.8", top5="91.0", pixel1="73.8"),
    Row(name="1.0_192",  file="192_100", macs="221", params="3.47", top1="70.7", top5="90.1", pixel1="55.1"),
    Row(name="1.0_160",  file="160_100", macs="154", params="3.47", top1="68.8", top5="89.0", pixel1="40.2"),
    Row(name="1.0_128",  file="128_100", macs="99",  params="3.47", top1="65.3", top5="86.9", pixel1="27.6"),
    Row(name="1.0_96",   file="96_100",  macs="56",  params="3.47", top1="60.3", top5="83.2", pixel1="17.6"),
    Row(name="0.75_224", file="224_75",  macs="209", params="2.61", top1="69.8", top5="89.6", pixel1="55.8"),
    Row(name="0.75_192", file="192_75",  macs="153", params="2.61", top1="68.7", top5="88.9", pixel1="41.6"),
    Row(name="0.75_160", file="160_75",  macs="107", params="2.61", top1="66.4", top5="87.3", pixel1="30.4"),
    Row(name="0.75_128", file="128_75",  macs="69",  params="2.61", top1="63.2", top5="85.3", pixel1="21.9"),
    Row(name="0.75_96",  file="96_75",   macs="39",  params="2.61", top1="58.8", top5="81.6", pixel1="14.2"),
    Row(name="0.5_224",  file="224_50",  macs="97",  params="1.95", top1="65.4", top5="86.4", pixel1="28.7"),
    Row(name="0.5_192",  file="192_50",  macs="71",  params="1.95", top1="63.9", top5="85.4", pixel1="21.1"),
    Row(name="0.5_160",  file="160_50",  macs="50",  params="1.95", top1="61.0", top5="83.2", pixel1="14.9"),
    Row(name="0.5_128",  file="128_50",  macs="32",  params="1.95", top1="57.7", top5="80.8", pixel1="9.9"),
    Row(name="0.5_96",   file="96_50",   macs="18",  params="1.95", top1="51.2", top5="75.8", pixel1="6.4"),
    Row(name="0.35_224", file="224_35",  macs="59",  params="1.66", top1="60.3", top5="82.9", pixel1="19.7"),
    Row(name="0.35_192", file="192_35",  macs="43",  params="1.66", top1="58.2", top5="81.2", pixel1="14.6"),
    Row(name="0.35_160", file="160_35",  macs="30",  params="1.66", top1="55.7", top5="79.1", pixel1="10.5"),
    Row(name="0.35_128", file="128_35",  macs="20",  params="1.66", top1="50.8", top5="75.0", pixel1="6.9"),
    Row(name="0.35_96",  file="96_35",   macs="11",  params="1.66", top1="45.5", top5="70.4", pixel1="4.5"),
)

# Source: tensorflow/models research/slim/nets/mobilenet/README.md, "Mobilenet V3 Imagenet
# Checkpoints".
_V3_ROWS = (
    Row(name="Large dm=1 (float)", model="mobilenet_v3_large_1.0_224",
        file="v3-large_224_1.0_float", macs="217", params="5.4", top1="75.2",
        pixel1="51.2", pixel2="61",   pixel3="44"),
    Row(name="Large dm=1 (8-bit)", model="mobilenet_v3_large_1.0_224_uint8",
        file="v3-large_224_1.0_uint8", macs="217", params="5.4", top1="73.9",
        pixel1="44",   pixel2="42.5", pixel3="32"),
    Row(name="Large dm=0.75 (float)", model="mobilenet_v3_large_0.75_224",
        file="v3-large_224_0.75_float", macs="155", params="4.0", top1="73.3",
        pixel1="39.8", pixel2="48",   pixel3="34"),
    Row(name="Small dm=1 (float)", model="mobilenet_v3_small_1.0_224",
        file="v3-small_224_1.0_float", macs="66", params="2.9", top1="67.5",
        pixel1="15.8", pixel2="19.4", pixel3="14.4"),
    Row(name="Small dm=1 (8-bit)", model="mobilenet_v3_small_1.0_224_uint8",
        file="v3-small_224_1.0_uint8", macs="66", params="2.9", top1="64.9",
        pixel1="15.5", pixel2="15",   pixel3="10.7"),
    Row(name="Small dm=0.75 (float)", model="mobilenet_v3_small_0.75_224",
        file="v3-small_224_0.75_float", macs="44", params="2.4", top1="65.4",
        pixel1="12.8", pixel2="15.9", pixel3="11.6"),
)

# Source: tensorflow/models research/slim/nets/mobilenet/README.md, "Minimalistic checkpoints".
_V3_MINIMALISTIC_ROWS = (
    Row(name="Large minimalistic (float)", model="mobilenet_v3_large_minimalistic_1.0_224",
        file="v3-large-minimalistic_224_1.0_float", macs="209", params="3.9", top1="72.3",
        pixel1="44.1", pixel2="51",   pixel3="35"),
    Row(name="Large minimalistic (8-bit)", model="mobilenet_v3_large_minimalistic_1.0_224_uint8",
        file="v3-large-minimalistic_224_1.0_uint8", macs="209", params="3.9", top1="71.3",
        pixel1="37",   pixel2="35",   pixel3="27"),
    Row(name="Small minimalistic (float)", model="mobilenet_v3_small_minimalistic_1.0_224",
        file="v3-small-minimalistic_224_1.0_float", macs="65", params="2.0", top1="61.9",
        pixel1="12.2", pixel2="15.1", pixel3="11"),
)

# Source: tensorflow/models research/slim/nets/mobilenet/README.md, "Edge TPU checkpoints".
_EDGETPU_ROWS = (
    Row(name="MobilenetEdgeTPU dm=0.75 (8-bit)", model="mobilenet_edgetpu_0.75_224_uint8",
        file="mobilenet_edgetpu_224_0.75", macs="624", params="2.9", top1="73.5",
        pixel4_edgetpu="3.1", pixel4_cpu="13.8"),
    Row(name="MobilenetEdgeTPU dm=1 (8-bit)", model="mobilenet_edgetpu_1.0_224_uint8",
        file="mobilenet_edgetpu_224_1.0", macs="990", params="4.0", top1="75.6",
        pixel4_edgetpu="3.6", pixel4_cpu="20.6"),
)
# fmt: on

V1 = Table(
    title="MobileNet V1",
    source=_V1_PAGE,
    columns=_V1_COLUMNS,
    label="MobileNet_v1_{name}",
    url=_V1_FILES + "mobilenet_v1_{file}.tgz",
    model="mobilenet_v1_{file}",
    rows=_V1_ROWS,
)
V1_UINT8 = replace(
    V1,
    title="MobileNet V1, 8-bit",
    label="MobileNet_v1_{name}_quant",
    url=_V1_FILES + "mobilenet_v1_{file}_quant.tgz",
    model="mobilenet_v1_{file}_uint8",
    rows=_V1_QUANT_ROWS,
)

V2 = Table(
    title="MobileNet V2",
    source=_PAGE,
    columns={
        "macs": "MACs (M)",
        "params": "Parameters (M)",
        "top1": "Top 1 Accuracy",
        "top5": "Top 5 Accuracy",
        "pixel1": "Mobile CPU (ms) Pixel 1",
    },
    label="float_v2_{name}",
    url="https://storage.googleapis.com/mobilenet_v2/checkpoints/mobilenet_v2_{name}.tgz",
    model="mobilenet_v2_{name}",
    rows=_V2_ROWS,
)
V2_UINT8 = replace(
    V2,
    title="MobileNet V2, 8-bit",
    label="quantized_v2_{name}",
    url="https://storage.googleapis.com/mobilenet_v2/checkpoints/quantized_v2_{file}.tgz",
    model="mobilenet_v2_{name}_uint8",
)

V3 = Table(
    title="MobileNet V3",
    source=_PAGE,
    columns=_V3_COLUMNS,
    label="{name}",
    url="https://storage.googleapis.com/mobilenet_v3/checkpoints/{file}.tgz",
    model="{model}",
    rows=_V3_ROWS,
)
V3_MINIMALISTIC = replace(V3, title="MobileNet V3 minimalistic", rows=_V3_MINIMALISTIC_ROWS)

EDGETPU = Table(
    title="MobileNet EdgeTPU",
    source=_PAGE,
    columns={
        "macs": "MACs (M)",
        "params": "Params (M)",
        "top1": "Top1",
        "pixel4_edgetpu": "Pixel 4 Edge TPU",
        "pixel4_cpu": "Pixel 4 CPU",
    },
    label="{name}",
    url="https://storage.cloud.google.com/mobilenet_edgetpu/checkpoints/{file}.tgz",
    model="{model}",
    rows=_EDGETPU_ROWS,
)

TABLES = (V1, V1_UINT8, V2, V2_UINT8, V3, V3_MINIMALISTIC, EDGETPU)

# fmt: off

# Source: tensorflow/models research/slim/nets/mobilenet/README.md, "Training", "V3".
# On 8 GPUs they give 74.6 % top-1; the published 75.2 % come from the same settings on a 2x2 TPU.
V3_TRAINING = (
    Setting(name="Final Top 1 Accuracy",       value="74.6"),
    Setting(name="learning_rate",              value="0.16",
            remark="Total learning rate. (Per clone learning rate is 0.02)"),
    Setting(name="rmsprop_momentum",           value="0.9"),
    Setting(name="rmsprop_decay",              value="0.9"),
    Setting(name="rmsprop_epsilon",            value="0.002"),
    Setting(name="learning_rate_decay_factor", value="0.99"),
    Setting(name="optimizer",                  value="RMSProp"),
    Setting(name="warmup_epochs",              value="5",
            remark="Slim uses per clone epoch, so the the flag value is 0.6"),
    Setting(name="num_epochs_per_decay",       value="3",
            remark="Slim uses per clone epoch, so the  flag value is 0.375"),
    Setting(name="batch_size (per chip)",      value="192"),
    Setting(name="moving_average_decay",       value="0.9999"),
    Setting(name="weight_decay",               value="1e-5"),
    Setting(name="init_stddev",                value="0.008"),
    Setting(name="dropout_keep_prob",          value="0.8"),
    Setting(name="bn_moving_average_decay",    value="0.997"),
    Setting(name="bn_epsilon",                 value="0.001"),
    Setting(name="label_smoothing",            value="0.1"),
)

# Source: tensorflow/models research/slim/nets/mobilenet/README.md, "Training", "V2": flags of
# slim's train_image_classifier. 72.0 % top-1 after about 700,000 steps on 8 GPUs, 5.5 million on one.
V2_TRAINING = (
    Setting(name="--model_name",                 value='"mobilenet_v2"'),
    Setting(name="--learning_rate",              value="0.045 * NUM_GPUS",
            remark="slim internally averages clones so we compensate"),
    Setting(name="--preprocessing_name",         value='"inception_v2"'),
    Setting(name="--label_smoothing",            value="0.1"),
    Setting(name="--moving_average_decay",       value="0.9999"),
    Setting(name="--batch_size",                 value="96"),
    Setting(name="--num_clones",                 value="NUM_GPUS",
            remark="you can use any number here between 1 and 8 depending on your hardware setup."),
    Setting(name="--learning_rate_decay_factor", value="0.98"),
    Setting(name="--num_epochs_per_decay",       value="2.5 / NUM_GPUS",
            remark="train_image_classifier does per clone epochs"),
)
# fmt: on

# The sha256 of archives, where they are known; `pull` compares them, and records those of the others at their first
# fetch. Source: TensorFlow, tensorflow/workspace2.bzl, tflite_mobilenet_float and tflite_mobilenet_quant.
_V1 = "http://download.tensorflow.org/models/mobilenet_v1_2018_08_02/mobilenet_v1_1.0_224"
SHA256: Mapping[str, str] = {
    f"{_V1}.tgz": "2fadeabb9968ec6833bee903900dda6e61b3947200535874ce2fe42a8493abc0",
    f"{_V1}_quant.tgz": "d32432d28673a936b2d6281ab0600c71cf7226dfe4cdcef3012555f691744166",
}
