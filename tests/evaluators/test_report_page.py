"""report.html: self-contained, escaped, and with every number or the reason why it is withheld."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.page import charts, in_words, render_page, write_page
from evaluators.page.belief import band_of
from evaluators.report import AgentSection, Curve, DataSection, GroupRow, PortfolioRow, PowerRow, Report
from tests.evaluators.example_report import about, example_report, gate, withheld

SCRIPT = "<script>alert('x')</script>"
VOID = {"meta", "br", "hr", "img", "input", "link"}


class Reader(HTMLParser):
    """Reads a page: its text, its tags and attributes, and whether every tag is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text.append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    return reader


@pytest.fixture(scope="module")
def page() -> str:
    return render_page(example_report())


def test_the_page_is_whole_well_formed_and_below_a_megabyte(page: str) -> None:
    reader = read(page)
    assert not reader.open
    assert not reader.wrong
    assert len(page.encode()) < 1_000_000


def test_the_page_needs_no_network_and_no_script(page: str) -> None:
    reader = read(page)
    assert not {tag for tag, _ in reader.tags} & {"script", "link", "img", "iframe", "object", "embed", "base"}
    targets = [value for _, attrs in reader.tags for key, value in attrs.items() if key in {"src", "href", "action"}]
    assert targets
    assert all(target is not None and target.startswith("#") for target in targets)
    assert not re.search(r"url\(|@import|https?://", page)
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page


def test_every_link_of_the_page_leads_somewhere(page: str) -> None:
    reader = read(page)
    anchors = {attrs["id"] for _, attrs in reader.tags if "id" in attrs}
    links = {str(attrs["href"]).removeprefix("#") for tag, attrs in reader.tags if tag == "a"}
    assert links <= anchors
    assert {"gates", "agents", "fidelity", "learning", "fairness", "off-policy", "reproduce"} <= anchors


def test_the_verdict_comes_before_everything_else(page: str) -> None:
    text = " ".join(" ".join(read(page).text).split())
    order = [text.index(word) for word in ("Fail 2 of 5 gates pass", "better than popularity", "52.9 [51.2, 54.6]")]
    assert order == sorted(order)


def test_what_would_decide_a_difference_is_a_size_or_why_there_is_none() -> None:
    """'none' stood for a difference that is decided and for one that is withheld alike."""
    row = PowerRow(metric="reward", agent="ease", baseline="random", users=60)
    rows = [row, row.model_copy(update={"note": "W3"}), row.model_copy(update={"users_needed": 112})]
    page = render_page(example_report(power=rows))
    assert re.findall(r'data-label="Would decide now"><span>([^<]*)<', page) == ["decided", "not known", "112 users"]


def test_strings_of_the_user_are_escaped_wherever_they_stand() -> None:
    rows = [
        GroupRow(
            attribute=SCRIPT, group=SCRIPT, metric="click_rate", estimate=about(0.3, 0.1), difference=about(0.1, 0.2)
        )
    ]
    agent = AgentSection(
        name=SCRIPT,
        kind=SCRIPT,
        trained_on=SCRIPT,
        simulated={"reward": about(1.0, 0.2, method=SCRIPT), SCRIPT: withheld(SCRIPT), "diversity": about(0.5, 0.1)},
        off_policy={SCRIPT: about(0.2, 0.1)},
        fairness={SCRIPT: about(0.2, 0.1)},
        causal={SCRIPT: about(0.2, 0.1)},
        training={"steps": 9, "seeds": [Curve(seed=0, points=[(0.0, 1.0), (9.0, 2.0)])]},  # type: ignore[arg-type]
        groups=rows,
        notes=[SCRIPT],
    )
    report = example_report(
        name=SCRIPT,
        agents=[agent, AgentSection(name="b", kind="b", failed=SCRIPT)],
        gates=[gate(SCRIPT, "mean(reward) > 0", SCRIPT, "pass", about(1.0, 0.2), SCRIPT)],
        data=DataSection(
            source=SCRIPT,
            n_users=1,
            n_items=1,
            n_interactions=1,
            splits={SCRIPT: SCRIPT},
            card={"most shown items": [f"Toy Story {SCRIPT}", "Heat"]},
        ),
        scenario={"name": SCRIPT, "agents": [{"name": SCRIPT}]},
        versions={SCRIPT: SCRIPT},
        ranking=[],
        comparisons=[],
    )
    page = render_page(report)
    assert SCRIPT not in page
    assert "<script" not in page.lower()
    assert not {tag for tag, _ in read(page).tags} & {"script"}
    assert "".join(read(page).text).count(SCRIPT) > 15  # shown, as text


def test_a_withheld_number_stands_with_its_reason() -> None:
    text = " ".join(" ".join(read(render_page(example_report())).text).split())
    for reason in (
        "withheld: W3: measured 1 replicate of the catalogue",  # one agent's metric
        "reward, corrected by the picks check withheld for every agent: given that the user chose to rate",
        "ips, snips, dm and dr withheld for every agent: no logged exposure",
        "withheld: W1: measured n_inf 12",
        "withheld: users: measured 4, needs 30",
        "withheld: not identifiable: 51% of the gaps",
        "failed : act: a slate of shape [64, 9], needs [64, 10]",
    ):
        assert reason in text, reason


def test_the_range_over_a_sweep_names_the_policy_that_it_is_of() -> None:
    text = " ".join(" ".join(read(render_page(example_report())).text).split())
    assert "reward 31 to 59 linucb session_length 13.90 to 15.60 popularity" in text


def test_reasons_too_long_for_a_cell_are_numbered_and_listed_under_the_table() -> None:
    reader = read(render_page(example_report()))
    notes = [attrs["id"] for tag, attrs in reader.tags if tag == "li" and "id" in attrs]
    assert notes == ["withheld-1"]  # three agents do not learn, for one reason
    assert sum(attrs.get("href") == "#withheld-1" for tag, attrs in reader.tags if tag == "a") == 3


def test_a_reason_that_a_whole_panel_shares_is_said_once() -> None:
    agents = [AgentSection(name=n, kind="x", simulated={"coverage": withheld("too few flights")}) for n in "abc"]
    page = render_page(example_report(agents=agents, ranking=[], comparisons=[], gates=[]))
    assert page.count("too few flights") == 1
    assert "withheld for every agent: too few flights" in page


def test_why_a_gates_number_is_withheld_is_said_once() -> None:
    rule = "difference(coverage, vs=popularity) > 0"

    def text(reason: str) -> str:
        decided = gate("wider", rule, "ease", "undecided", withheld("too few flights"), reason)
        return " ".join(read(render_page(example_report(gates=[decided]))).text)

    assert text("difference(coverage, vs=popularity) withheld: too few flights").count("too few flights") == 1
    assert "withheld: too few flights" in text("simulator not trusted")  # where the reason is of something else


def test_checks_are_grouped_by_world_and_users_and_the_first_world_is_open() -> None:
    reader = read(render_page(example_report()))
    text = " ".join(" ".join(reader.text).split())
    titles = [
        "Judge world 1, future rows",
        "Judge world 1, held-out users",
        "Judge world 2, future rows: 7 of 7 checks",
    ]
    places = [text.index(title) for title in titles]
    assert places == sorted(places)
    assert "(held-out users) " not in text[places[0] : places[2]]


def test_numbers_of_a_simulator_that_is_not_trusted_are_marked_in_every_section() -> None:
    fidelity = example_report().fidelity.model_copy(update={"trusted": False, "reasons": ["world 1: slope"]})
    text = " ".join(read(render_page(example_report(fidelity=fidelity))).text)
    assert text.count("simulator is not trusted") >= 3  # agents, off-policy check, fairness
    assert "simulator is not trusted" not in " ".join(read(render_page(example_report())).text)


def test_a_bare_report_is_drawn_too() -> None:
    bare = {"name": "a", "digest": "d" * 64, "world_digest": "w" * 64, "seed": 1, "verdict": "pass"}
    data = DataSection(source="s", n_users=1, n_items=1, n_interactions=1)
    page = render_page(Report.model_validate(bare | {"data": data, "fidelity": {"trusted": False}}))
    reader = read(page)
    assert not reader.open
    assert not reader.wrong


def test_the_scenario_on_the_page_is_the_resolved_one_in_the_usual_order(page: str) -> None:
    text = "".join(read(page).text)
    assert text.index("name: movielens") < text.index("task: recommend") < text.index("data:\n")
    assert "examination:\n    model: position\n    decay: 0.85" in text


def test_the_page_is_written_whole(tmp_path: Path) -> None:
    write_page(example_report(), tmp_path / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == render_page(example_report())


# ------------------------------------------------------------------------------------------------------------- charts


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8), st.integers(2, 6))
def test_an_axis_holds_its_numbers_and_its_ticks_are_round_and_few(numbers: list[float], ticks: int) -> None:
    axis = charts.axis_between(numbers, ticks)
    assert axis.low <= min(numbers) <= max(numbers) <= axis.high
    assert all(axis.low - 1e-9 <= tick <= axis.high + 1e-9 * abs(axis.high) for tick in axis.ticks)
    assert len(axis.ticks) <= ticks + 2


def test_an_interval_is_drawn_where_its_numbers_lie() -> None:
    axis = charts.Axis(0.0, 10.0, (0.0, 5.0, 10.0))
    drawing = ElementTree.fromstring(charts.interval(about(5.0, 2.5), axis, line=0.0, mark=8.0, label="reward, a"))
    whisker, point = drawing.find("*[@class='whisker']"), drawing.find("*[@class='point']")
    assert whisker is not None
    assert (whisker.get("x1"), whisker.get("x2")) == ("25.00%", "75.00%")
    assert point is not None
    assert point.get("cx") == "50.00%"
    assert [line.get("x1") for line in drawing.iterfind("*[@class='truth']")] == ["80.00%"]
    assert drawing.get("aria-label") == "reward, a: 5.0 [2.5, 7.5]"
    assert charts.interval(withheld("why"), axis) == ""


def test_a_missing_limit_reaches_the_edge_and_no_interval_has_no_line() -> None:
    axis = charts.Axis(0.0, 10.0, (0.0, 10.0))
    one_sided = about(5.0, 2.5).model_copy(update={"high": None})
    whisker = ElementTree.fromstring(charts.interval(one_sided, axis)).find("*[@class='whisker']")
    assert whisker is not None
    assert whisker.get("x2") == "100.00%"
    alone = about(5.0, 2.5).model_copy(update={"low": None, "high": None})
    assert "whisker" not in charts.interval(alone, axis)


def test_a_band_open_at_one_end_is_shaded_to_the_edge() -> None:
    axis = charts.Axis(0.0, 10.0, ())
    drawing = ElementTree.fromstring(charts.interval(about(5.0, 1.0), axis, band=(2.0, None)))
    band = drawing.find("*[@class='band']")
    assert band is not None
    assert (band.get("x"), band.get("width")) == ("20.00%", "80.00%")


def test_every_chart_is_well_formed_and_has_its_words() -> None:
    curves = [Curve(seed=k, points=[(0.0, 1.0), (100.0, 2.0 + k)], prior_value=1.5) for k in range(3)]
    found = charts.learning(curves, charts.axis_between([1.0, 4.0]), "<ppo>")
    drawing = ElementTree.fromstring(found)
    assert len([line for line in drawing.iter() if line.tag == "polyline"]) == 3
    assert drawing.get("aria-label") == "Learning curves of <ppo>: 3 training seeds, from 1.000 to 3.000 on average"
    bins = example_report().fidelity.reliability
    reliability = ElementTree.fromstring(charts.reliability(bins))
    assert len(list(reliability.iterfind("*[@class='point']"))) == len(bins)
    assert len(list(reliability.iterfind("*[@class='whisker']"))) == len(bins)
    held = ElementTree.fromstring(charts.places(2, 4, 6))
    assert [dot.get("class") for dot in held.iter("circle")] == ["free", "held", "held", "held", "free", "free"]
    assert charts.learning([], charts.axis_between([0.0]), "a") == charts.reliability([]) == ""


def test_a_learning_curve_of_one_point_is_drawn() -> None:
    ElementTree.fromstring(charts.learning([Curve(seed=0, points=[(0.0, 1.0)])], charts.axis_between([1.0]), "a"))


@pytest.mark.parametrize(
    ("threshold", "band"),
    [
        ("[0.9, 1.1]", (0.9, 1.1)),
        ("each [0.8, 1.25]", (0.8, 1.25)),
        ("upper <= 0.083", (None, 0.083)),
        ("lower > -0.005", (-0.005, None)),
        ("lower > 0.05 (5 % of the mean)", (0.05, None)),
        ("exactly 0", None),
        ((None, 0.5), (None, 0.5)),
        (None, None),
    ],
)
def test_a_band_is_read_off_the_words_of_a_threshold(threshold: object, band: object) -> None:
    assert band_of(threshold) == band  # type: ignore[arg-type]


def test_values_of_the_data_card_are_words() -> None:
    assert in_words({"users": 1234, "rows": 5, "epochs": 8}) == "1,234 users, 5 rows, epochs: 8"
    assert in_words([True, None, 0.5, "x"]) == "yes, none, 0.5, x"
    assert in_words([]) == "none"
    assert in_words(float(np.float64(0.5538))) == "0.5538"


def test_effects_by_path_methods_beside_the_truth_and_the_price_of_a_constraint_are_on_the_page(page: str) -> None:
    for words in (
        "how often: number of slates",
        "Ways of estimating it beside the exact effect",
        "intervals hold the exact effect",
        "What drives it",
        "like_share",
        "What a constraint costs, and whom",
        "bpr minus ease",
        "not by way of the number of slates, from a log",
    ):
        assert words.lower() in page.lower(), words


def test_users_against_items_has_a_point_for_each_agent_and_says_its_numbers(page: str) -> None:
    assert "Users against items" in page
    assert "reward against share of attention that the head items get" in page
    sides = [charts.TwoSides(f"<{k}>", about(0.1 * k, 0.01), about(float(k), 1.0)) for k in range(1, 4)]
    chart = str(charts.trade_off(sides, "share", "reward"))
    assert chart.count("<circle") == 3
    assert "&lt;2&gt;" in chart
    assert "<2>" not in chart
    assert charts.trade_off(sides[:1], "share", "reward") == ""


def test_what_an_estimator_would_send_on_line_stands_on_the_page() -> None:
    rows = [
        PortfolioRow(estimator="dr", k=3, best=0.68, spread=0.02, ratio=4.5, low=2.5, high=7.25, regret=0.01),
        PortfolioRow(estimator="dm", k=3, best=0.68, spread=0.0, ratio=None, regret=0.01),
    ]
    shown = " ".join(read(render_page(example_report().model_copy(update={"portfolios": rows}))).text)
    assert "Were dr to choose 3 agents" in shown
    assert "SharpeRatio@3 4.5 [2.5, 7.25]" in shown
    assert "the 3 are equal" in shown
