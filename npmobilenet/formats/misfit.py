"""What a model needs beside what a file holds: the differences, in one list for one message."""

from __future__ import annotations

from dataclasses import dataclass, field

LISTED = 20  # names of each kind in an error message


@dataclass
class Misfit:
    """The differences between what a graph needs and what a file holds."""

    missing: list[str] = field(default_factory=list)
    misshapen: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.missing) + len(self.misshapen) + len(self.extra)

    def __str__(self) -> str:
        kinds = {"missing": self.missing, "of another shape": self.misshapen, "left over": self.extra}
        parts = []
        for kind, names in kinds.items():
            parts += [f"{len(names)} {kind}: {in_a_row(names)}"] if names else []
        return "; ".join(parts)


def in_a_row(names: list[str], between: str = ", ") -> str:
    """The first names for a message, and how many more there are."""
    more = f", and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return between.join(names[:LISTED]) + more


def in_lines(problems: list[str]) -> str:
    """Problems for a message, a line each, and how many more there are."""
    more = [f"and {len(problems) - LISTED} more"] if len(problems) > LISTED else []
    return "".join(f"\n  {text}" for text in [*problems[:LISTED], *more])
