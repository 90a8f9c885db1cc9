"""What a model computes on the way: the range of every layer, and how many of its outputs an activation cut off.

Usage: python examples/taps.py MODEL IMAGE
"""

import os
import sys

import npmobilenet as nm


def main(model_path: str, image_path: str) -> None:
    """Print one line for each convolution: its accumulators' range, and the share below 0 and above 6."""
    model = nm.load(model_path)
    x = model.preprocess(image_path)
    _, sums = model.run(x, taps="acc:*")  # under each name that a layer has: its tensor's, and its endpoints'
    seen = set()
    print(f"{'least':>9} {'greatest':>9} {'< 0':>5} {'> 6':>5}  layer")
    for name, acc in sums.items():
        layer = name.removeprefix("acc:")
        tensor = model.graph.endpoints.get(layer, layer)
        if tensor not in seen:
            seen.add(tensor)
            print(f"{acc.min():9.3f} {acc.max():9.3f} {(acc < 0).mean():5.0%} {(acc > 6).mean():5.0%}  {tensor}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        main(sys.argv[1], sys.argv[2])
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough: `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
