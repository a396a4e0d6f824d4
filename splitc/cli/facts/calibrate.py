"""What `splitc calibrate` prints."""

from dataclasses import dataclass

from splitc.profile.targets.calibration_effect import Effect, Rescaled


@dataclass(frozen=True, slots=True)
class CalibrateFacts:
    """What the kept runs change in the predictions for a target.

    Attributes:
        runs: the runs that the target is calibrated with; none if it is not calibrated.
        rescaled: the kinds of work whose times changed, the largest change first.
        notes: what a user should know of the runs, a sentence each.
    """

    target: str
    runs: tuple[Effect, ...]
    rescaled: tuple[Rescaled, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClearFacts:
    """What `--clear` did.

    Attributes:
        forgotten: whether the target was calibrated before.
    """

    target: str
    forgotten: bool
