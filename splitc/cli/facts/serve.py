"""What `splitc serve` prints."""

from dataclasses import dataclass

from splitc.common.records import Amount, PositiveCount, Sha256


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A file that the server runs.

    Attributes:
        file: its name in metrics.
        times: how often one request runs it.
        max_batch: how many requests may run as one.
        run_s: median seconds of a run, by the size of the batch; only sizes that were tried.
    """

    file: str
    times: PositiveCount
    max_batch: PositiveCount
    run_s: dict[str, Amount]


@dataclass(frozen=True, slots=True)
class ServedFacts:
    """What the cloud does of one cut.

    Attributes:
        model: the name that clients ask for: the model's, a dot, and the id of the cut.
        pairing: digest of what both sides compute, which a client's cut must have, too.
        kind: the kind of the cut, in words.
    """

    model: str
    pairing: Sha256
    kind: str
    runs: tuple[FileFacts, ...]


@dataclass(frozen=True, slots=True)
class ServeFacts:
    """A server that listens; printed once, when it does.

    Attributes:
        url: where it listens.
    """

    url: str
    models: tuple[ServedFacts, ...]
