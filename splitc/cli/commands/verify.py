"""`splitc verify`: check a bundle against the whole model."""

from splitc.cli.arguments.verify import VerifyArguments
from splitc.cli.facts.verify import VerifyFacts
from splitc.cli.streams import say
from splitc.cli.terminal import Text, print_json, results, stages
from splitc.common.custom_ops import find_custom_ops
from splitc.common.formatting import plural
from splitc.common.ort import use_custom_ops
from splitc.compile.check import check_bundle, open_to_check


def run(arguments: VerifyArguments) -> None:
    """Check a bundle, and show how far each cut is from the whole model."""
    use_custom_ops(find_custom_ops(arguments.custom_ops))
    with stages() as progress:
        progress("Checking files")
        opened = open_to_check(arguments.bundle)
        checked = check_bundle(opened, arguments.model, arguments.samples, progress, arguments.tolerance)
    if arguments.as_json:
        print_json(VerifyFacts(str(arguments.bundle), checked.against, dict(checked.cuts), checked.notes))
        return
    for key, found in checked.cuts:
        say(
            f"{key}: error {found.max_rel:.1e} of the output's scale (allowed: {found.tolerance:.0e}), "
            f"{plural(found.seeds, 'input')}"
        )
    for note in checked.notes:
        results().print(Text(f"note: {note}", style="yellow"))
    say(f"{len(checked.cuts)} cuts agree with {checked.against}")
