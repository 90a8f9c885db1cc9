"""The photos that look most like one: nearest by the angle between their vectors.

Usage: npmobilenet embed PHOTOS -o vectors.npz --l2 --model MODEL
       python examples/search.py MODEL QUERY.jpg [vectors.npz [COUNT]]

Without vectors, those of the photos beside the query are made first.

Brute force in NumPy: a product of a matrix and a vector, 1 ms for 1,000 photos. From 100,000 on, hnswlib or FAISS are
worth their packages; they are used where they are installed and the photos are so many.
"""

import sys
from pathlib import Path

import numpy as np

import npmobilenet as nm

MANY = 100_000


def nearest(vectors: np.ndarray, query: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices and cosines of the `count` rows nearest to the query, nearest first; all are of length 1."""
    count = min(count, len(vectors))
    if len(vectors) >= MANY:
        try:
            return by_faiss(vectors, query, count)
        except ImportError:
            pass
        try:
            return by_hnswlib(vectors, query, count)
        except ImportError:
            pass
    cosines = vectors @ query
    best = np.argsort(-cosines, kind="stable")[:count]
    return best, cosines[best]


def by_faiss(vectors: np.ndarray, query: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The same by FAISS, exactly (pip install faiss-cpu)."""
    import faiss

    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    cosines, best = index.search(query[None], count)
    return best[0], cosines[0]


def by_hnswlib(vectors: np.ndarray, query: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Nearly the same by hnswlib, in a time that hardly grows with their number (pip install hnswlib)."""
    import hnswlib

    index = hnswlib.Index("ip", vectors.shape[1])
    index.init_index(len(vectors))
    index.add_items(vectors)
    index.set_ef(max(4 * count, 100))
    best, distances = index.knn_query(query, count)
    return best[0].astype(np.int64), 1 - distances[0]


def main(model_path: str, query: str, path: str = "", count: int = 5) -> None:
    """Print a line for each of the nearest photos."""
    model = nm.load(model_path)
    if path:
        with np.load(path, allow_pickle=False) as arrays:
            vectors, names, facts = arrays["vectors"], arrays["names"], arrays["facts"].tolist()
        if "l2=yes" not in facts:
            sys.exit(f"{path}: these vectors have any length; make them with: npmobilenet embed ... --l2")
    else:
        names = sorted(p for p in Path(query).parent.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png", ".bmp"))
        vectors = model.features(names, l2=True)
    vector = model.features(query, l2=True)[0]
    if not len(vectors) or len(vector) != vectors.shape[1]:
        sys.exit(f"{path}: vectors {vectors.shape}, and {model_path} gives {len(vector)} values: another model?")
    for i, cosine in zip(*nearest(vectors, vector, count), strict=True):
        print(f"{cosine:.3f}  {names[i]}")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4, 5):
        sys.exit(__doc__)
    main(*sys.argv[1:4], *map(int, sys.argv[4:]))
