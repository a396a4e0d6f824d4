"""What Prometheus reads."""

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from splitc.server.metrics import Metrics


@pytest.mark.parametrize(
    ("accept", "reader", "kind"),
    [
        ("", parse, "text/plain"),
        ("application/openmetrics-text; version=1.0.0", parse_openmetrics, "application/openmetrics-text"),
    ],
    ids=["prometheus", "openmetrics"],
)
def test_both_formats(accept: str, reader: object, kind: str) -> None:
    metrics = Metrics(queued=lambda: 3, in_flight=lambda: 4, price=lambda: 0.25)
    metrics.answered("a.c1", 200, received_bytes=100, sent_bytes=10)
    metrics.answered("a.c1", 200, received_bytes=100, sent_bytes=10)
    metrics.answered("", 404, received_bytes=0, sent_bytes=1)
    metrics.served("a.c1", receive_s=0.1, queue_s=0.2)
    metrics.ran("a.c1", 2, 0.5)
    metrics.refused("path")
    text, content_type = metrics.text(accept)
    assert content_type.startswith(kind)
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in reader(text.decode())  # type: ignore[operator]
        for sample in family.samples
    }
    assert samples["splitc_requests_total", "a.c1", "200"] == 2
    assert samples["splitc_price",] == 0.25
    assert samples["splitc_requests_total", "", "404"] == 1
    assert samples["splitc_received_bytes_total", "a.c1"] == 200
    assert samples["splitc_sent_bytes_total", "a.c1"] == 20
    assert samples["splitc_receive_seconds_sum", "a.c1"] == 0.1
    assert samples["splitc_queue_seconds_sum", "a.c1"] == 0.2
    assert samples["splitc_compute_seconds_sum", "a.c1"] == 0.5
    assert samples["splitc_batch_size_bucket", "1.0", "a.c1"] == 0
    assert samples["splitc_batch_size_bucket", "2.0", "a.c1"] == 1
    assert samples["splitc_refusals_total", "path"] == 1
    assert samples["splitc_queue_length",] == 3
    assert samples["splitc_in_flight_requests",] == 4
    assert samples["process_open_fds",] > 0
