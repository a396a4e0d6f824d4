"""What `splitc verify` prints."""

from dataclasses import dataclass

from splitc.bundle.manifest import CheckEntry


@dataclass(frozen=True, slots=True)
class VerifyFacts:
    """How far each cut of a bundle is from the whole model.

    Attributes:
        bundle: the folder.
        against: what the cuts were compared with, in words.
        cuts: by their ids.
        notes: what a user should know of how the cuts were compared, a sentence each.
    """

    bundle: str
    against: str
    cuts: dict[str, CheckEntry]
    notes: tuple[str, ...]
