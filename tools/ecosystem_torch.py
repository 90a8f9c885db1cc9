"""PyTorch's weights as people have them, and .tflite files that litert-torch makes of PyTorch's networks.

A state dict's golden holds the logits, which are the endpoint `Logits` here; an export's is that of LiteRT's reference
kernels, which its input, channels first, is given.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ecosystem_keras import Array
from make_torch_goldens import fit, logits, module
from pytorch_maker import picture

SIZE = 96
TIMM = (
    "mobilenetv1_100", "mobilenetv1_100h", "mobilenetv1_125", "mobilenetv2_035", "mobilenetv2_050", "mobilenetv2_075",
    "mobilenetv2_100", "mobilenetv2_140", "mobilenetv2_110d", "mobilenetv2_120d", "mobilenetv3_large_075",
    "mobilenetv3_large_100", "mobilenetv3_small_050", "mobilenetv3_small_075", "mobilenetv3_small_100",
    "mobilenetv3_rw", "tf_mobilenetv3_large_075", "tf_mobilenetv3_large_100", "tf_mobilenetv3_large_minimal_100",
    "tf_mobilenetv3_small_075", "tf_mobilenetv3_small_100", "tf_mobilenetv3_small_minimal_100",
    "mobilenet_edgetpu_100", "mobilenetv4_conv_small_035", "mobilenetv4_conv_small_050", "mobilenetv4_conv_small",
    "mobilenetv4_conv_medium",
)  # fmt: skip
TORCHVISION = (
    *(("mobilenet_v2", width) for width in (0.25, 0.35, 0.5, 0.75, 1.0, 1.3, 1.4)),
    *(("mobilenet_v3_large", width) for width in (0.75, 1.0, 1.25)),
    *(("mobilenet_v3_small", width) for width in (0.75, 1.0)),
)


def _prefixed(prefix: str) -> Callable[[Any], Any]:
    return lambda network: {prefix + name: value for name, value in network.state_dict().items()}


def _training(network: Any) -> Any:
    """As a training loop saves it, with its optimizer, its options and a second copy of averages."""
    torch: Any = importlib.import_module("torch")
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    dead = {name: value * 0 for name, value in network.state_dict().items()}
    return {
        "epoch": 7, "arch": "mobilenet", "state_dict": dead, "state_dict_ema": network.state_dict(),
        "optimizer": optimizer.state_dict(), "args": argparse.Namespace(lr=0.1, path="x"), "metric": 71.5,
    }  # fmt: skip


def _half(network: Any) -> Any:
    return {name: value.half() if value.is_floating_point() else value for name, value in network.state_dict().items()}


# What stands around the weights -> what is given to torch.save.
FORMS: dict[str, Callable[[Any], Any]] = {
    "plain": lambda network: network.state_dict(),
    "DataParallel": _prefixed("module."),
    "Lightning": lambda network: {"state_dict": _prefixed("model.")(network), "pytorch-lightning_version": "2.5"},
    "compiled": _prefixed("_orig_mod."),
    "training": _training,
    "half": _half,
}
FORMS_OF: tuple[tuple[str, dict[str, Any]], ...] = (
    ("timm/mobilenetv2_050", {}),
    ("torchvision/mobilenet_v2", {"width_mult": 0.35}),
)
EXPORTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("torchvision/mobilenet_v2", {"width_mult": 0.35}), ("torchvision/mobilenet_v3_small", {}),
    ("torchvision/mobilenet_v3_large", {}), ("timm/mobilenetv1_100", {}), ("timm/mobilenetv3_small_050", {}),
    ("timm/tf_mobilenetv3_small_minimal_100", {}), ("timm/mobilenetv4_conv_small_035", {}),
    ("timm/mobilenetv4_hybrid_medium", {}),
)  # fmt: skip


def _name(name: str, options: dict[str, Any]) -> str:
    return name.replace("/", "_") + "".join(f"_{value:g}" for value in options.values())


def _fitted(name: str, options: dict[str, Any], x: Array, classes: int = 10) -> Any:
    torch: Any = importlib.import_module("torch")
    torch.manual_seed(1)
    network = module(name, options, classes)
    fit(network, x)
    return network.eval()


def make_torch(folder: Path, kinds: list[str]) -> None:
    """Write `.pth` and `.safetensors` of each model, and of some in each of `FORMS`."""
    torch: Any = importlib.import_module("torch")
    save_file: Any = importlib.import_module("safetensors.torch").save_file
    x = picture(SIZE)
    rows: list[tuple[str, dict[str, Any]]] = [(f"timm/{name}", {}) for name in TIMM]
    rows += [(f"torchvision/{name}", {} if width == 1 else {"width_mult": width}) for name, width in TORCHVISION]
    for name, options in rows:
        forms = FORMS if (name, options) in FORMS_OF else {"plain": FORMS["plain"]}
        if kinds and _name(name, options) not in kinds:
            continue
        network = _fitted(name, options, x)
        for form, wrapped in forms.items():
            stem = folder / (f"torch-{_name(name, options)}" + ("" if form == "plain" else f"-{form}"))
            torch.save(wrapped(network), f"{stem}.pth")
            if form == "plain":
                save_file(network.state_dict(), f"{stem}.safetensors")
            if form == "half":  # what is compared is what the file holds
                network.half().float()
            np.savez_compressed(f"{stem}.npz", input=x, output_0=logits(network, x), model=np.array(name))
            print(stem.name, flush=True)


def make_exports(folder: Path, kinds: list[str]) -> None:
    """Write the .tflite of each network by litert-torch's default way, and its weights as 8-bit ones alone."""
    torch: Any = importlib.import_module("torch")
    litert_torch: Any = importlib.import_module("litert_torch")
    tflite: Any = importlib.import_module("ecosystem_tflite")
    x = picture(SIZE)
    for name, options in EXPORTS:
        if kinds and _name(name, options) not in kinds:
            continue
        sample = torch.zeros(1, 3, SIZE, SIZE)
        stem = folder / f"export-{_name(name, options)}-float"
        litert_torch.convert(_fitted(name, options, x), (sample,)).export(f"{stem}.tflite")
        files = [Path(f"{stem}.tflite"), *_quantized(stem)]
        for file in files:
            data = file.read_bytes()
            tflite.save(file.with_suffix(".npz"), tflite.golden(data, x))
            print(file.stem, flush=True)


def _quantized(stem: Path) -> list[Path]:
    """The same with ai-edge-quantizer: weights alone, and weights with inputs quantized while running."""
    package: Any = importlib.import_module("ai_edge_quantizer")
    recipes: Any = importlib.import_module("ai_edge_quantizer.recipe")
    made = []
    for kind, recipe in (("weight_only", recipes.weight_only_wi8_afp32()), ("dynamic", recipes.dynamic_wi8_afp32())):
        quantizer = package.Quantizer(f"{stem}.tflite")
        quantizer.load_quantization_recipe(recipe)
        target = stem.with_name(stem.name.replace("-float", f"-{kind}") + ".tflite")
        target.unlink(missing_ok=True)
        quantizer.quantize().export_model(str(target))
        made.append(target)
    return made
