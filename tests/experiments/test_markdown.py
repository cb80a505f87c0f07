"""The benchmark's tables in the README and in the docs say what was measured."""

import json
from dataclasses import asdict

import pytest

from experiments.benchmarking import markdown
from experiments.benchmarking.layers import WITHOUT_LOOPS
from experiments.benchmarking.markdown import Results
from experiments.benchmarking.timing import Measurement

TABLES_OF = {
    "README.md": ["readme"],
    "speed.md": ["summary", "layers", "pools", "networks", "bfloat16", "scan", "eager"],
}


def measured(suite, case, mode, contestant, layout, milliseconds, **facts):
    return Measurement(
        suite=suite,
        case=case,
        mode=mode,
        contestant=contestant,
        layout=layout,
        median_ms=milliseconds,
        quartile1_ms=milliseconds,
        quartile3_ms=milliseconds,
        rounds=5,
        calls=1,
        **facts,
    )


BOTH = "forward + backward"
MEASUREMENTS = [
    measured("layers", "3×3", BOTH, "jaxcnn", "NHWC", 2.0, error=2e-6),
    measured("layers", "3×3", BOTH, WITHOUT_LOOPS, "NHWC", 1.0),
    measured("layers", "3×3", BOTH, "lax", "NHWC", 16.0),
    measured("layers", "3×3", BOTH, "lax", "NCHW", 8.0),
    measured("layers", "5×5", BOTH, "jaxcnn", "NHWC", 4.0, error=1e-6),
    measured("layers", "5×5", BOTH, "lax", "NHWC", 4.0),
    measured("layers", "5×5", BOTH, "torch", "NHWC", 1.0),
    measured("pools", "max", BOTH, "jaxcnn", "NHWC", 1.0),
    measured("pools", "max", BOTH, "lax", "NHWC", 33.0),
    measured("networks", "VGG", "step", "jaxcnn", "NHWC", 100.0, compile_seconds=3.0),
    measured("networks", "VGG", "step", "jaxcnn", "NCHW", 130.0),
    measured("networks", "VGG", "step", "lax", "NHWC", 250.0, compile_seconds=2.0),
    measured("networks", "VGG", "step", "flax", "NHWC", 275.0),
    measured("scan", "VGG", "step", "jaxcnn", "NHWC", 100.0),
    measured("scan", "VGG", "step", "lax", "NHWC", 250.0),
    measured("scan", "VGG", "scan", "jaxcnn", "NHWC", 80.0),
    measured("scan", "VGG", "scan", "lax", "NHWC", 5040.0),
    measured("eager", "relu", "call", "jaxcnn", "NCHW", 0.033),
    measured("eager", "relu", "call", "lax", "NCHW", 0.044),
]


def made_up(version, measurements=MEASUREMENTS):
    setting = dict.fromkeys(markdown.SETTING, "") | {"versions": {"jax": version}}
    return Results(setting, list(measurements))


def written(folder, results, **options):
    """As the benchmark writes them."""
    path = folder / "results.json"
    measurements = [asdict(each) for each in results.measurements]
    content = {**results.setting, "options": options, "measurements": measurements}
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def docs(tmp_path, monkeypatch):
    """A folder of results, and two pages."""
    monkeypatch.setattr(markdown, "ROOT", tmp_path)
    monkeypatch.setattr(markdown, "RESULTS", tmp_path / "docs" / "results")
    pages = tmp_path / "README.md", tmp_path / "speed.md"
    monkeypatch.setattr(markdown, "PAGES", pages)
    for page in pages:
        places = (f"<!-- speed: {name} -->\n<!-- end -->" for name in TABLES_OF[page.name])
        page.write_text("Before\n\n" + "\n\nbetween\n\n".join(places) + "\n\nafter\n")
    return pages


def test_the_readme_says_the_means_and_the_worst_cases_of_every_version():
    two = made_up("0.10.2"), made_up("0.12.0", MEASUREMENTS[:6])
    assert markdown.readme(two).splitlines() == [
        "|  | jax 0.10.2 | jax 0.12.0 |",
        "| --- | ---: | ---: |",
        "| 2 layers, forward + backward, × lax | 2.0 (1.0) | 2.0 (1.0) |",
        "| 2 layers, forward + backward, × PyTorch | 0.25 (0.25) |  |",
        "| 1 pools, forward + backward, × lax | 33 (33) |  |",
        "| 1 networks, a training step, × lax | 2.5 (2.5) |  |",
        "| 1 networks, a training step, × PyTorch |  |  |",
        "| 1 networks, a training step inside `lax.scan`, × lax | 63 (63) |  |",
    ]


def test_the_summary_says_who_took_part_and_what_it_costs():
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in markdown.summary([made_up("0.12.0")]).splitlines()
    ]
    assert rows[0][1:] == ["jax 0.12.0", "jax 0.12.0, without loops"]
    said = {name: cells for name, *cells in rows[2:]}
    assert said["2 layers, forward + backward, × lax"] == ["2.0 (1.0)", "8.0 (8.0)"]
    assert said["1 networks, a training step, × flax"] == ["2.8 (2.8)", ""]
    assert said["a step inside `lax.scan` / alone"] == ["0.80 to 0.80", ""]
    assert said["the same of lax"] == ["20 to 20", ""]
    assert said["a network's step, NCHW / NHWC"] == ["1.3 (1.3)", ""]
    assert said["time to compile a network's step / lax's"] == ["1.5 to 1.5", ""]
    assert said["largest error of a layer, against float64"] == ["2e-06", ""]
    assert "1 networks, a training step, × PyTorch" not in said, "it took no part"


def test_every_case_has_a_row_with_all_versions():
    two = made_up("0.10.2", MEASUREMENTS[:4]), made_up("0.12.0")
    assert markdown.TABLES["layers"](two).splitlines() == [
        "|  | jax 0.10.2: ms | × lax | × PyTorch | jax 0.12.0: ms | × lax | × PyTorch |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| 3×3 | 2.00 | 4.0 | – | 2.00 | 4.0 | – |",
        "| 5×5 | – | – | – | 4.00 | 1.0 | 0.25 |",
    ]
    assert markdown.TABLES["scan"](two[1:]).splitlines()[2] == "| VGG | 100 | 80.0 | 63 |"


def test_calls_are_shown_of_the_versions_that_were_timed():
    two = made_up("0.10.2", MEASUREMENTS[:4]), made_up("0.12.0")
    assert markdown.TABLES["eager"](two).splitlines() == [
        "|  | jax 0.12.0: µs | lax, µs | / lax's |",
        "| --- | ---: | ---: | ---: |",
        "| relu | 33 | 44 | 0.75 |",
    ]
    assert markdown.TABLES["eager"](two[:1]) == ""


def test_results_are_taken_suite_by_suite_and_the_pages_written(docs, tmp_path, capsys):
    path = written(tmp_path, made_up("0.12.0"))
    markdown.main(markdown.Settings((path,)))
    other = measured("pools", "max", BOTH, "lax", "NHWC", 44.4444444)
    path = written(tmp_path, made_up("0.12.0", [MEASUREMENTS[7], other]))
    markdown.main(markdown.Settings((path,)))
    (results,) = markdown.published()
    assert results.of("layers", BOTH) == made_up("0.12.0").of("layers", BOTH)
    assert [each.median_ms for each in results.of("pools", BOTH)["max"]] == [1.0, 44.44]
    readme = docs[0].read_text()
    assert "1 pools, forward + backward, × lax | 44 (44) |" in readme
    assert readme.startswith("Before\n\n<!-- speed: readme -->\n|  | jax 0.12.0 |\n")
    assert readme.endswith("|\n<!-- end -->\n\nafter\n")
    tables = TABLES_OF["speed.md"]
    assert docs[1].read_text().count("\n\nbetween\n\n") == len(tables) - 1
    before = [page.read_text() for page in docs]
    markdown.main(markdown.Settings())
    assert [page.read_text() for page in docs] == before
    assert f"speed.md: {', '.join(tables)}" in capsys.readouterr().out
    assert (tmp_path / "docs" / "pictures" / "benchmark.png").stat().st_size > 1000


def test_versions_stand_in_order(docs, tmp_path):
    for version in "0.12.0", "0.9.1", "0.10.2":
        markdown.take(written(tmp_path, made_up(version)))
    versions = [each.version for each in markdown.published()]
    assert versions == ["0.9.1", "0.10.2", "0.12.0"]


@pytest.mark.usefixtures("docs")
def test_what_left_out_cases_or_is_no_result_is_refused(tmp_path):
    for options in {"quick": True}, {"only": "5×5"}:
        with pytest.raises(ValueError, match="left out cases"):
            markdown.take(written(tmp_path, made_up("0.12.0"), **options))
    other = tmp_path / "other.json"
    for content in "{}", "no JSON":
        other.write_text(content)
        with pytest.raises(ValueError, match=r"other\.json holds no results of"):
            markdown.take(other)
    with pytest.raises(FileNotFoundError, match="there are no results in"):
        markdown.published()


def test_a_table_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="speed is 'nets'; there are readme, summary"):
        markdown.filled("<!-- speed: nets -->\n<!-- end -->", [made_up("0.12.0")])


def test_the_pages_say_what_the_results_in_the_repository_say():
    results = markdown.published()
    assert len(results) >= 2
    for page in markdown.PAGES:
        text = page.read_text()
        assert sorted(markdown.tables_of(text)) == sorted(TABLES_OF[page.name])
        assert markdown.filled(text, results) == text, (
            f"{page.name}: python -m experiments.benchmarking.markdown writes it anew"
        )
