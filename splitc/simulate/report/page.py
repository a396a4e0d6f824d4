"""The report of a simulation, which compares policies: one self-contained HTML file for people."""

from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from splitc.common.formatting import escape_inside, format_seconds
from splitc.simulate.engine import SimulationOutcome
from splitc.simulate.report.plots import latencies, loads, prices
from splitc.simulate.report.summary import Summary
from splitc.simulate.scenario import Scenario


def render(scenario: Scenario, summaries: Sequence[Summary], outcomes: Sequence[SimulationOutcome]) -> str:
    """Return the report as HTML; without *outcomes* (for a fluid plan), it has no plots."""
    environment = Environment(
        loader=PackageLoader("splitc", "simulate/report"),
        autoescape=True,
        finalize=escape_inside,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters.update(seconds=format_seconds, percent=lambda share: f"{100 * share:.3g} %")
    horizon_s = scenario.fleet.horizon_s
    plots = (latencies(outcomes), loads(outcomes, horizon_s), prices(outcomes, horizon_s)) if outcomes else ()
    return environment.get_template("report.html.j2").render(
        scenario=scenario,
        fleet=scenario.fleet,
        models=sorted({manifest.model.name for manifest in scenario.manifests}),
        summaries=summaries,
        plots=[plot for plot in plots if plot is not None],
    )
