"""Make tests/formats/torch_goldens.npz: what PyTorch computes for models of timm and torchvision, without weights.

A maintainer's program, not part of the package. It needs torch, timm and torchvision (an environment of its own):

    python tools/make_torch_goldens.py
    python tools/make_torch_goldens.py --fitted FOLDER timm/mobilenetv4_conv_large ...

The weights follow from the variables' names and shapes (tests/pytorch_maker.py: values_of), so the file holds names,
shapes and logits alone: for each model its constructor's options, its variables as JSON, and the logits of two inputs
(`pytorch_maker.picture`). `--fitted` writes whole files instead, to compare by hand: `.pth`, `.safetensors` and `.npz`
with input and logits, of random weights whose batch norm statistics are those of the input.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from pytorch_maker import Array, picture, state_of  # noqa: E402

TARGET = ROOT / "tests" / "formats" / "torch_goldens.npz"
SIZE, CLASSES = 64, 10
MODELS: tuple[tuple[str, dict[str, Any]], ...] = (
    *((f"timm/{name}", {}) for name in (
        "mobilenetv1_100h", "mobilenetv2_050", "mobilenetv2_110d", "mobilenetv3_large_100", "mobilenetv3_small_050",
        "mobilenetv3_large_150d", "mobilenetv3_rw", "tf_mobilenetv3_large_075", "tf_mobilenetv3_small_minimal_100",
        "mobilenet_edgetpu_100", "mobilenetv4_conv_small_035", "mobilenetv4_conv_small", "mobilenetv4_conv_medium",
    )),
    ("torchvision/mobilenet_v2", {}),
    ("torchvision/mobilenet_v2", {"width_mult": 0.35}),
    ("torchvision/mobilenet_v2", {"width_mult": 1.3}),
    ("torchvision/mobilenet_v3_large", {}),
    ("torchvision/mobilenet_v3_small", {}),
)  # fmt: skip


def module(name: str, options: dict[str, Any], classes: int) -> Any:
    """The network, in PyTorch."""
    package, _, bare = name.partition("/")
    if package == "timm":
        return importlib.import_module("timm").create_model(bare, num_classes=classes, **options)
    return getattr(importlib.import_module("torchvision").models, bare)(num_classes=classes, **options)


def logits(network: Any, x: Array) -> Array:
    """What the network gives for (N, H, W, 3)."""
    torch: Any = importlib.import_module("torch")
    with torch.no_grad():
        found: Array = network.eval()(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    return found


def fit(network: Any, x: Array) -> None:
    """Random weights that keep the variance, and batch norm's statistics of `x`."""
    torch: Any = importlib.import_module("torch")
    init = torch.nn.init
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            init.uniform_(layer.weight, 0.7, 1.3)
            init.normal_(layer.bias, 0.1, 0.3)
            layer.momentum = 1.0
        elif isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)):
            init.normal_(layer.weight, 0, (2 / layer.weight[0].numel()) ** 0.5)
            if layer.bias is not None:
                init.normal_(layer.bias, 0.1, 0.3)
    with torch.no_grad():
        network.train()(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))


def write_fitted(folder: Path, names: list[str]) -> None:
    """Whole files of these models."""
    torch: Any = importlib.import_module("torch")
    save_file = importlib.import_module("safetensors.torch").save_file
    folder.mkdir(parents=True, exist_ok=True)
    x = picture(96)
    for name in names:
        torch.manual_seed(1)
        network = module(name, {}, 1000)
        fit(network, x)
        stem = folder / name.replace("/", "__")
        torch.save(network.state_dict(), f"{stem}.pth")
        save_file(network.state_dict(), f"{stem}.safetensors")
        np.savez(f"{stem}.npz", x=x, logits=logits(network, x))


def write_goldens() -> None:
    """The file of the tests."""
    torch: Any = importlib.import_module("torch")
    x = picture(SIZE)
    arrays: dict[str, Array] = {}
    for number, (name, options) in enumerate(MODELS):
        network = module(name, options, CLASSES)
        shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
        state = {key: torch.from_numpy(value) for key, value in state_of(shapes).items()}
        network.load_state_dict(state)
        found = logits(network, x)
        spread = float(np.abs(found[0] - found[1]).max())
        if not (np.isfinite(found).all() and 0.01 < spread < 1e5):
            sys.exit(f"{name}: a network that is dead or out of hand: {found}")
        facts = json.dumps({"model": name, "options": options, "size": SIZE, "variables": shapes})
        arrays[f"facts:{number}"] = np.frombuffer(facts.encode(), np.uint8)
        arrays[f"logits:{number}"] = found
        print(f"{name} {options}: logits up to {np.abs(found).max():.3g}, apart by {spread:.3g}")
    np.savez_compressed(TARGET, **arrays)
    print(f"{TARGET}: {TARGET.stat().st_size:,} bytes")


def main() -> None:
    """Parse the command line and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="with --fitted: timm/NAME or torchvision/NAME")
    parser.add_argument("--fitted", type=Path, metavar="FOLDER", help="write whole files there")
    args = parser.parse_args()
    if args.fitted:
        write_fitted(args.fitted, args.names)
    else:
        write_goldens()


if __name__ == "__main__":
    main()
