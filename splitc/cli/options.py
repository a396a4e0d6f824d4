"""The commands besides `compile`; each calls one function and prints what it returns."""

import click

from splitc.cli.values import DIM, FILE, FOLDER

_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
_dims = click.option(
    "--dim", "dims", multiple=True, type=DIM, help="Size of a symbolic dimension; repeatable."
)
_samples = click.option(
    "--samples",
    multiple=True,
    type=FILE,
    help="Inputs (.npz), one array per input; repeatable.  [default: random]",
)
_simplify = click.option("--simplify/--no-simplify", default=True, help="Clean the graph with onnxsim first.")
_cache = click.option(
    "--cache-dir", type=FOLDER, help="Where measurements are kept.  [default: the user's cache folder]"
)
