"""From the names of classes in data to the outputs of a model."""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

from npmobilenet.errors import InputError
from npmobilenet.images.labels import label_names, synonyms
from npmobilenet.modeldata import ModelInfo

# "n01496331" or "n01496331_electric_ray": WordNet's id of a noun synset, and words.
SYNSET = re.compile(r"(n\d{8})(?:[\s_]+(.*))?")
LISTED = 20  # classes named in one message
MOST_DIGITS = 9


def normal(text: str) -> str:
    """Names are compared without regard to case, and with underscores and hyphens as spaces."""
    return " ".join(re.sub(r"[_\-]", " ", text).casefold().split())


def synset_of(text: str) -> tuple[str, str] | None:
    """The synset id that a name begins with and the words after it; None without one. Digits aren't words."""
    match = SYNSET.fullmatch(text.strip())
    if match is None:
        return None
    words = (match[2] or "").strip()
    return match[1], "" if re.fullmatch(r"[\d\s_.]*", words) else words


class ClassFinder:
    """Finds a model's outputs by label, by the index of a label, or by synset id.

    The index of a label counts the model's labels from 0. The background output of 1001-class models is not among
    them: adding it is the model's business (`ModelInfo.label_offset`), so data are labelled 0 to 999 for any model.

    Raises `WeightFileError` if the labels don't fit the outputs.
    """

    def __init__(self, info: ModelInfo, outputs: int) -> None:
        self.name = info.name
        self.offset = info.label_offset
        self.outputs = outputs
        names = label_names(info, outputs)
        self.names: tuple[str, ...] = names or tuple(f"class {i}" for i in range(outputs))
        self.in_synset_order = info.labels == "imagenet"
        self._labels: dict[str, set[int]] = defaultdict(set)
        self._normal: dict[str, set[int]] = defaultdict(set)
        self._synonyms: dict[str, set[int]] = defaultdict(set)
        for i, name in enumerate(names or ()):
            self._labels[name].add(i)
            self._normal[normal(name)].add(i)
            self._synonyms[normal(name)].add(i)
        if isinstance(info.labels, str) and info.labels:
            for i, line in enumerate(synonyms(info.labels), self.offset):
                for name in [line, *line.split(", ")]:
                    self._synonyms[normal(name)].add(i)
                    self._synonyms[normal(re.sub(r" \([^)]*\)$", "", name))].add(i)  # "crane (bird)" is a crane

    def match(self, texts: Iterable[str], where: str) -> dict[str, int]:
        """The output for each text. Raises one `InputError` that lists those that match none, or more than one."""
        texts = list(dict.fromkeys(texts))
        found = {text: self._candidates(text) for text in texts}
        self._settle_by_order(found)
        wrong = [self._complaint(text, outputs) for text, outputs in found.items() if len(outputs) != 1]
        chosen = {text: next(iter(outputs)) for text, outputs in found.items() if len(outputs) == 1}
        wrong += self._doubles(chosen)
        if wrong:
            more = f"; and {len(wrong) - LISTED} more" if len(wrong) > LISTED else ""
            raise InputError(
                f"{where}: {len(wrong)} of {len(texts)} classes don't match those of {self.name}: "
                f"{'; '.join(wrong[:LISTED])}{more}. A class is a label, the index of a label "
                f"(0 to {self.outputs - self.offset - 1}), or a synset id with words (n01496331_electric_ray); "
                "synset ids alone tell the class only where all of ImageNet's 1000 occur"
            )
        return chosen

    def _candidates(self, text: str) -> set[int]:
        for names, key in ((self._labels, text), (self._normal, normal(text))):
            if names.get(key):
                return set(names[key])
        if re.fullmatch(r"[0-9]+", text):
            index = int(text) if len(text) <= MOST_DIGITS else self.outputs
            return {self.offset + index} if self.offset + index < self.outputs else set()
        synset = synset_of(text)
        if synset is not None:
            return set(self._synonyms.get(normal(synset[1]), ())) if synset[1] else set()
        return set(self._synonyms.get(normal(text), ()))

    def _settle_by_order(self, found: dict[str, set[int]]) -> None:
        """Two uses of the order of synset ids, in which the bundled labels stand.

        If all of the classes are there, the ids alone tell them; if some are, those that are sure enclose others.
        """
        if not self.in_synset_order:
            return
        ids = {text: synset[0] for text in found if (synset := synset_of(text))}
        distinct = sorted(set(ids.values()))
        if len(distinct) == self.outputs - self.offset:
            for text, synset_id in ids.items():
                found[text] = {self.offset + distinct.index(synset_id)}
            return
        sure = {ids[text]: next(iter(found[text])) for text in ids if len(found[text]) == 1}
        for text, synset_id in ids.items():
            if len(found[text]) > 1:
                low = max((output for s, output in sure.items() if s < synset_id), default=-1)
                high = min((output for s, output in sure.items() if s > synset_id), default=self.outputs)
                found[text] = {o for o in found[text] if low < o < high} or found[text]

    def _complaint(self, text: str, outputs: set[int]) -> str:
        if outputs:
            return (
                f"'{text}' may be any of {', '.join(f'{i - self.offset} ({self.names[i]})' for i in sorted(outputs))}"
            )
        synset = synset_of(text)
        if synset is not None and not synset[1]:
            return f"'{text}'"
        if re.fullmatch(r"[0-9]+", text):
            return f"'{text[:20]}' (beyond the last label, {self.outputs - self.offset - 1}; indices start at 0)"
        near = difflib.get_close_matches(normal(synset[1] if synset else text), self._synonyms, 1)
        return f"'{text[:80]}'" + (f" (did you mean '{near[0]}'?)" if near else "")

    def _doubles(self, chosen: Mapping[str, int]) -> list[str]:
        texts: dict[int, list[str]] = defaultdict(list)
        for text, output in chosen.items():
            texts[output].append(text)
        return [
            f"{' and '.join(repr(t) for t in same)} are both '{self.names[output]}'"
            for output, same in texts.items()
            if len(same) > 1
        ]
