"""Answering only when sure: from which probability on, and what it gave. Plain Python, for exports are used without torch."""

from dataclasses import dataclass

from thumbnet.data.groups import of_groups
from thumbnet.judging.statistics import images_to_show
from thumbnet.words import counted


@dataclass(frozen=True)
class Threshold:
    """What answering only when sure would give: at `confidence` or more, `accuracy` on the part `coverage` of the images."""

    target: float
    confidence: float
    coverage: float
    accuracy: float
    interval95: tuple[float, float]
    images: int
    groups: int | None = None  # that these images are of, None where none was named

    def in_words(self) -> str:
        """What it comes down to, and a note where its images are too few to show the accuracy that was wanted."""
        low, high = self.interval95
        told = (
            f"sure from {self.confidence:.2%} on, chosen on the validation images: {self.coverage:.1%} of them are at or "
            f"above it, and {self.accuracy:.2%} of those are right (95 % interval {low:.2%} to {high:.2%}, "
            f"{counted(self.images, 'image')}{of_groups(self.groups)})"
        )
        needed = self.lacking
        if not needed:
            return told
        kind = "images" if self.groups is None else "groups"
        return f"{told}\nnote: too few {kind} to show {self.target:.2%}: it takes at least {needed:,} without a mistake"

    @property
    def lacking(self) -> int:
        """How many images, or groups, it takes to show the target, where there are fewer; else 0."""
        needed = images_to_show(self.target)
        return needed if (self.images if self.groups is None else self.groups) < needed else 0
