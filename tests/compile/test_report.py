"""The report shows everything in the manifest, marks every estimate and is one harmless, stable file."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from splitc.bundle.manifest import (
    BoundaryEntry,
    BoxEntry,
    CallEntry,
    CheckEntry,
    CutEntry,
    FileEntry,
    LeakEntry,
    Manifest,
    ModelEntry,
    PartEntry,
    RegretEntry,
    StageEntry,
    TargetEntry,
    TargetsEntry,
    TensorEntry,
    part_files,
)
from splitc.compile.report import render, sides
from splitc.compile.verdict import judge
from splitc.profile.targets.description import Network
from splitc.profile.targets.quantity import Spread
from tests import manifests

_VOID = {"meta", "br", "link", "img", "hr"}
_CHECK = CheckEntry(seeds=3, max_abs=1e-6, max_rel=2e-7, tolerance=1e-4)
_HOSTILE = "</td><script>alert('x') & \"y\"</script>"


class Page(HTMLParser):
    """Checks that tags nest, and collects the visible text and the tags with their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        self.close()
        assert not self.open
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    def count(self, tag: str, css: str) -> int:
        """How many elements *tag* have the class *css*."""
        return sum(name == tag and css in (attrs.get("class") or "").split() for name, attrs in self.tags)


def cut(number: int, head_s: float | None, tail_s: float | None, payload: int, boundary: int = 1) -> CutEntry:
    tensors = tuple(
        BoundaryEntry(f"relu{number}_{i}", "float32", (1, "C", 28), payload) for i in range(boundary)
    )
    head = PartEntry(
        file=f"head-c{number}.onnx",
        latency_s=head_s or 0.0,
        weight_bytes=10_000,
        peak_bytes=20_000,
        source="predicted",
        interval=(0.49, 1.99),
    )
    tail = PartEntry(
        file=f"tail-c{number}.onnx",
        latency_s=tail_s or 0.0,
        weight_bytes=30_000,
        source="measured",
        interval=None,
    )
    return CutEntry(
        id=f"c{number}",
        kind="all-head" if tail_s is None else "all-tail" if head_s is None else "split",
        head=None if head_s is None else head,
        tail=None if tail_s is None else tail,
        boundary=() if tail_s is None else tensors,
        uplink_bytes=0 if tail_s is None else payload * boundary,
        downlink_bytes=0 if tail_s is None else 4000,
        check=_CHECK,
    )


ALL_HEAD = cut(0, 0.4, None, 0)
SPLITS = (cut(1, 0.2, 0.002, 40_000), cut(2, 0.03, 0.01, 200_000), cut(3, 0.01, 0.011, 40_000, boundary=9))
ALL_TAIL = cut(4, None, 0.012, 602_112)


def sample(*cuts: CutEntry) -> Manifest:
    """A manifest with *cuts*, or with five usual ones."""
    cuts = cuts or (ALL_HEAD, *SPLITS, ALL_TAIL)
    files = [part_files(part)[0] for entry in cuts for part in (entry.head, entry.tail) if part is not None]
    head = TargetEntry("pixel7", "predicted", (0.49, 1.99), 0, "onnxruntime", None, "CPU", 4, "d1" * 32)
    tail = TargetEntry("local", "measured", None, 0, "onnxruntime", "1.23.0", "CPU", 8, "d2" * 32)
    return Manifest(
        splitc_manifest=1,
        generator={"splitc": "0.2.0"},
        direction="device-first",
        model=ModelEntry(
            name="squeezenet",
            sha256="ab" * 32,
            opsets={"": 18, "com.microsoft": 1},
            inputs=(TensorEntry("data", "float32", ("N", 3, 224, 224), 602_112),),
            outputs=(TensorEntry("softmax", "float32", ("N", 1000), None),),
            dims={"N": 1},
            simplified=True,
        ),
        targets=TargetsEntry(head, tail),
        box=BoxEntry((0.5, 10.0), (0.5, 20.0), (5e5, 1e9), (1e6, 1e9), (0.001, 0.3)),
        regret=RegretEntry(0.01, 0.0074, 52, len(cuts)),
        cuts=cuts,
        files=tuple(FileEntry(path, 12_345, "cd" * 32) for path in (*sorted(files), "weights.bin")),
        computes=dict.fromkeys(files, "ef" * 32),
        notes=("sized at N=1", "the graph is cut as it is"),
    )


def measured(manifest: Manifest) -> Manifest:
    """The same, but nothing in it is predicted."""
    cuts = tuple(
        replace(entry, head=replace(entry.head, source="measured")) if entry.head else entry
        for entry in manifest.cuts
    )
    head = replace(manifest.targets.device, source="measured", interval=None)
    return replace(manifest, cuts=cuts, targets=replace(manifest.targets, device=head))


def network(name: str, uplink_bps: float) -> Network:
    def spread(value: float) -> Spread:
        return Spread(value, f"{name} source", "measured", high=2 * value)

    return Network(name, "for tests", spread(uplink_bps), spread(4 * uplink_bps), spread(0.02))


NETWORKS = (network("wifi", 24e6), network("fibre", 26e6), network("lte", 6e6), network("3g", 1e6))


def page(manifest: Manifest, networks: tuple[Network, ...] = NETWORKS, sla_s: float | None = None) -> Page:
    return Page(render(manifest, judge(manifest, networks, sla_s), networks))


def test_it_shows_every_cut_network_note_tensor_and_file() -> None:
    """Nothing of the manifest that matters to a reader is left out."""
    manifest = sample()
    text = page(manifest).text
    wanted = [entry.path for entry in manifest.files] + [entry.sha256 for entry in manifest.files]
    wanted += [tensor.name for entry in manifest.cuts for tensor in entry.boundary]
    wanted += [entry.id for entry in manifest.cuts] + [*manifest.notes]
    wanted += [text for item in NETWORKS for text in (item.name, f"measured: {item.name} source")]
    wanted += [
        "squeezenet",
        "pixel7",
        "local",
        "ab" * 32,
        "[N, 3, 224, 224], 602 kB",
        "ai.onnx 18",
        "N = 1",
        "0.74 %",
    ]
    assert [item for item in wanted if item not in text] == []


def test_it_gives_one_verdict_for_each_network() -> None:
    """The first thing to read is what to do."""
    found = page(sample()).text
    for item in judge(sample(), NETWORKS):
        sentence = item.sentence()
        assert f"{sentence[0].upper()}{sentence[1:]}. estimate" in found


def test_the_order_is_fixed() -> None:
    """Verdicts, networks, cuts, sources, box, notes, model, files."""
    html = render(sample(), judge(sample(), NETWORKS), NETWORKS)
    assert re.findall(r"<h2>(.*?)</h2>", html) == [
        "On each network",
        "The 5 shipped cuts",
        "Where the numbers come from",
        "Conditions that the cuts were chosen for",
        "Notes",
        "The model",
        "Files",
    ]


def test_equal_manifests_give_equal_reports() -> None:
    """No clock, no chance."""
    assert render(sample(), judge(sample(), NETWORKS), NETWORKS) == render(
        sample(), judge(sample(), NETWORKS), NETWORKS
    )


def test_it_refers_to_nothing_outside() -> None:
    """It can be read without a network and tells nobody that it was."""
    html = render(sample(), judge(sample(), NETWORKS), NETWORKS)
    assert "://" not in html
    assert not re.search(r"<script|@import|url\((?!#)|\b(src|href)=", html)


def test_names_are_escaped_everywhere() -> None:
    """A name from a model cannot add markup to the page."""
    plain = sample()
    entry = replace(plain.cuts[1], boundary=(BoundaryEntry(_HOSTILE, _HOSTILE, (_HOSTILE,), 40_000),))
    manifest = replace(
        plain,
        model=replace(
            plain.model,
            name=_HOSTILE,
            inputs=(TensorEntry(_HOSTILE, "float32", (_HOSTILE, 1), 4),),
            dims={_HOSTILE: 1},
            opsets={_HOSTILE: 1},
        ),
        targets=replace(plain.targets, device=replace(plain.targets.device, name=_HOSTILE)),
        cuts=(plain.cuts[0], entry, *plain.cuts[2:]),
        notes=(_HOSTILE,),
    )
    networks = (network(_HOSTILE, 24e6),)
    found = page(manifest, networks)
    assert found.text.count(_HOSTILE) > 8
    assert "script" not in {tag for tag, _ in found.tags}


def test_predicted_figures_are_marked_and_measured_ones_are_not() -> None:
    """Each number that rests on a prediction says so where it stands."""
    found = page(sample())
    assert "~400 ms" in found.text
    assert not re.search(r"(?<!~)\b400 ms", found.text)
    assert not re.search(r"~12 ms", found.text)  # tails were measured
    assert "0.49x to 1.99x" in found.text
    assert found.count("polygon", "band") == 1


def test_measured_figures_carry_no_mark() -> None:
    """Where nothing is predicted there is no talk of estimates."""
    found = page(measured(sample()))
    assert "estimate" not in found.text
    assert "~" not in found.text
    assert found.count("polygon", "band") == 0


def test_the_range_of_a_predicted_latency_is_shown() -> None:
    """Latency on the slowest network is all-head: 0.4 s, times the interval."""
    assert "196 to 796 ms" in page(sample()).text


@pytest.mark.parametrize(
    "cuts",
    [(ALL_HEAD, ALL_TAIL), (ALL_HEAD,), (ALL_TAIL,), SPLITS, (*SPLITS, ALL_TAIL), (ALL_HEAD, *SPLITS)],
    ids=["no split", "only all-head", "only all-tail", "only splits", "no all-head", "no all-tail"],
)
def test_any_kind_of_cut_may_be_missing(cuts: tuple[CutEntry, ...]) -> None:
    """What is not shipped is said to be missing; nothing is made up."""
    kinds = {entry.kind for entry in cuts}
    assert ("not shipped" in page(sample(*cuts)).text) == (not {"all-head", "all-tail"} <= kinds)


def test_an_unverified_cut_is_said_to_be_one() -> None:
    """No check means no claim."""
    cuts = (replace(ALL_HEAD, check=None), ALL_TAIL)
    text = page(sample(*cuts)).text
    assert "not verified" in text
    assert "1 of 2 shipped cuts was run" in text
    assert "None of 1 shipped cuts were run" in page(sample(cuts[0])).text


def test_results_without_any_error_are_called_identical() -> None:
    """An error of exactly zero, and a tolerance of exactly zero, read as words."""
    exact = replace(ALL_HEAD, check=CheckEntry(3, 0.0, 0.0, 0.0))
    text = page(sample(exact)).text
    assert "identical" in text
    assert "(exact)" in text


def test_many_boundary_tensors_are_folded() -> None:
    """Nine tensors stand behind one line, few stand open."""
    found = page(sample())
    assert "9 tensors, 360 kB" in found.text
    assert "1 tensors" not in found.text


def test_a_box_may_be_a_point() -> None:
    """A side without width reads "exactly" and the chart is widened."""
    box = BoxEntry((1.0, 1.0), (1.0, 1.0), (6e6, 6e6), (24e6, 24e6), (0.02, 0.02))
    text = page(replace(sample(), box=box)).text
    assert "Uplink exactly 6 Mbit/s" in text
    assert "Device slowdown exactly 1x" in text
    assert "half to twice" in text
    assert "Outside this range: wifi, fibre, 3g." in text


def test_a_narrow_axis_is_labelled_at_its_ends() -> None:
    """There is no round number between 6.1 and 6.4 Mbit/s."""
    manifest = sample()
    html = render(replace(manifest, box=replace(manifest.box, uplink_bps=(6.1e6, 6.4e6))), (), ())
    assert "6.1 Mbit/s</text>" in html
    assert "6.4 Mbit/s</text>" in html


def test_there_may_be_no_networks() -> None:
    """The chart then stands in the middle of the box."""
    text = page(sample(), networks=()).text
    assert "with 31.6 Mbit/s down and a round trip of 17.3 ms; the thick line" in text


def test_a_target_latency_is_shown() -> None:
    """With a target the choice is another one, and says why."""
    text = page(sample(), sla_s=0.3).text
    assert "target 300 ms" in text
    assert "least cloud work within the target" in text


def test_a_certificate_beyond_the_limit_is_not_hidden() -> None:
    """When too few cuts were allowed, the report says so."""
    manifest = sample()
    beyond = replace(manifest, regret=replace(manifest.regret, certified=0.0301))
    assert "3.01 % longer" in page(beyond).text
    assert "more than the 1 % asked for" in page(beyond).text
    perfect = replace(manifest, regret=replace(manifest.regret, certified=0.0))
    assert "no other cut would be faster anywhere in the box" in page(perfect).text


def test_the_winners_share_the_axis() -> None:
    """Every stretch of uplink rates has a fastest cut, and stretches meet."""
    html = render(sample(), judge(sample(), NETWORKS), NETWORKS)
    strips = [
        (float(x), float(width))
        for x, width in re.findall(r'class="strip [^"]*" x="(.*?)" y=".*?" width="(.*?)"', html)
    ]
    assert len(strips) > 2
    for (x, width), (following, _) in pairwise(strips):
        assert x + width == pytest.approx(following, abs=0.11)


def test_labels_of_close_networks_and_curves_do_not_overlap() -> None:
    """Networks with nearly the same rate are named in different rows; curves are labelled at a distance."""
    html = render(sample(), judge(sample(), NETWORKS), NETWORKS)
    rows = dict(
        reversed(pair) for pair in re.findall(r'y="([\d.]+)" text-anchor="middle">(wifi|fibre|lte)<', html)
    )
    assert rows["wifi"] == rows["lte"] != rows["fibre"]
    labels = sorted(float(y) for y in re.findall(r'<text x="[\d.]+" y="([\d.]+)">c\d', html))
    assert all(after - before >= 16 for before, after in pairwise(labels))


def test_a_cloud_first_cut_says_what_goes_up_and_what_comes_down() -> None:
    """Its device is the one that finishes, and both ways have their tensors."""
    cuts = (
        manifests.cut("c0", head_s=0.1),
        manifests.cloud_first("c1", head_s=0.01, tail_s=0.05, up=12, down=48),
    )
    found = page(manifests.manifest(cuts)).text
    assert "c1 cloud-first split" in found
    assert "~50 ms 25 to 100 ms 10 ms 9 to 12 ms 12 B 48 B 50 B 100 B" in found
    assert "up x float32 [1, n], 12 B down b float32 [1, n], 48 B" in found
    assert "what goes up to the cloud and, where the cloud comes first, down to the device" in found


def test_a_pipeline_says_what_each_side_does() -> None:
    """Below each cut, and once of all stages."""
    split, longer = (manifests.staged("c1", first=first, times=9) for first in (3, 8))
    cuts = (replace(split, id="c0", kind="all-head", head=longer.head, tail=None, boundary=()), split)
    found = page(manifests.manifest(cuts)).text
    assert "device: text, denoise 1-3 , then cloud: denoise 4-9" in found
    assert "The pipeline Stages text, denoise 1-8 SHA-256" in found
    assert "The model" not in found


@pytest.mark.parametrize(
    ("first", "times", "told"),
    [
        (3, 8, {"device": "text, denoise 1-3", "cloud": "denoise 4-8"}),
        (1, 2, {"device": "text, denoise 1", "cloud": "denoise 2"}),
    ],
    ids=["several iterations", "one each"],
)
def test_iterations_are_counted_from_one(first: int, times: int, told: dict[str, str]) -> None:
    assert sides(manifests.staged("c1", first=first, times=times)) == told


def test_a_stage_that_is_cut_inside_is_told_as_two_halves() -> None:
    """The same stage on both sides can only be that."""
    text = StageEntry("text", (CallEntry("text.onnx", {}, {"z": "context"}),))
    split = manifests.staged("c1", first=3, times=8)
    assert split.tail is not None
    assert split.head is not None
    halved = replace(
        split,
        head=replace(split.head, stages=(text,)),
        tail=replace(split.tail, stages=(text, *(split.tail.stages or ()))),
    )
    assert sides(halved) == {"device": "beginning of text", "cloud": "rest of text, denoise 4-8"}


def test_whoever_begins_comes_first() -> None:
    assert list(sides(manifests.staged("c1", first=3, times=8))) == ["device", "cloud"]
    assert sides(manifests.cut("c1", head_s=0.1, tail_s=0.1)) == {}


def test_leaks_of_private_tensors() -> None:
    leaks = (LeakEntry(0.0, 12, None), LeakEntry(0.523, 12, "<image>"), LeakEntry(None, 12, None))
    cuts = [replace(cut, leak=leak) for cut, leak in zip(manifests.CUTS, leaks, strict=True)]
    text = Page(render(manifests.manifest(cuts), (), ())).text
    assert "Leak Error" in text
    assert " 52 % " in text
    assert " unknown " in text
    assert "Leak: the share of the variance of '<image>' that a linear decoder rebuilds" in text
    assert "on 12 samples that it was not fitted to; a lower bound on what an attacker gets." in text
    unknown = [replace(cut, leak=LeakEntry(None, 0, None)) for cut in manifests.CUTS]
    assert "the notes say why it is unknown" in Page(render(manifests.manifest(unknown), (), ())).text
    assert "Leak" not in Page(render(manifests.manifest(), (), ())).text
