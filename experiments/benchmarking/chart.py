"""The benchmark's chart: how many times faster than lax and PyTorch, case by case."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from experiments.benchmarking.figures import Ratio, geometric_mean
from experiments.benchmarking.layers import WITHOUT_LOOPS

SHOWN = {"lax": "#0072b2", "torch": "#e69f00"}
NAMES = {"lax": "lax", "torch": "PyTorch"}
TITLES = {
    "layers": "Layers: forward + backward",
    "pools": "Pools: forward + backward",
    "networks": "Networks: a training step",
    "scan": "Networks: a step in lax.scan",
    "eager": "Small arrays: a call outside of jit",
}
MODES = ("forward + backward", "step", "scan", "call")


def chart_of(ratios: Sequence[Ratio]) -> Figure:
    """A panel for each suite, a bar for each case and peer; to the right is faster."""
    panels = {}
    for each in ratios:
        wanted = "scan" if each.suite == "scan" else each.mode
        if each.suite not in TITLES:
            continue
        if each.peer in SHOWN and each.mode == wanted and each.mode in MODES:
            panels.setdefault(each.suite, []).append(each)
    panels = panels or {"layers": []}
    cases = {
        suite: list(dict.fromkeys(each.case for each in group))
        for suite, group in panels.items()
    }
    heights = [len(each) + 2.2 for each in cases.values()]
    figure = Figure(figsize=(10, 1.6 + 0.32 * sum(heights)), layout="constrained")
    axes = figure.subplots(
        len(panels), 1, sharex=True, squeeze=False, height_ratios=heights
    ).flat
    for one, (suite, group) in zip(axes, panels.items(), strict=True):
        draw(one, TITLES[suite], group, cases[suite])
    handles = {}
    for one in figure.axes:
        for handle, label in zip(*one.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside lower center",
        ncols=len(handles) or 1,
        frameon=False,
    )
    figure.suptitle("How many times faster jaxcnn is", fontsize=14, fontweight="bold")
    return figure


def draw(axes: Axes, title: str, group: Sequence[Ratio], cases: Sequence[str]) -> None:
    peers = [peer for peer in SHOWN if any(each.peer == peer for each in group)]
    thickness = 0.8 / max(1, len(peers))
    means = []
    for lane, peer in enumerate(peers):
        own = [each for each in group if each.peer == peer and each.contestant == "jaxcnn"]
        advised = {
            each.case: each.times_faster
            for each in group
            if each.peer == peer and each.contestant == WITHOUT_LOOPS
        }
        middle = {
            case: row + thickness * (lane - (len(peers) - 1) / 2)
            for row, case in enumerate(cases)
        }
        axes.barh(
            [middle[each.case] for each in own],
            [each.times_faster - 1 for each in own],
            thickness,
            left=1,
            color=SHOWN[peer],
            label=f"than {NAMES[peer]}",
        )
        for each in own:
            faster = each.times_faster >= 1
            ends = each.times_faster, advised.get(each.case, each.times_faster)
            axes.annotate(
                format(each.times_faster, ".0f" if each.times_faster >= 10 else ".2g"),
                ((max if faster else min)(ends), middle[each.case]),
                xytext=(5 if faster else -5, 0),
                textcoords="offset points",
                ha="left" if faster else "right",
                va="center",
                fontsize=7,
            )
        if advised:
            axes.scatter(
                list(advised.values()),
                [middle[case] for case in advised],
                s=14,
                marker="D",
                color="white",
                edgecolors="#333333",
                linewidths=0.8,
                zorder=3,
                label="jaxcnn without its compiled loops",
            )
        mean = geometric_mean([each.times_faster for each in own])
        means.append(f"{mean:.2f} × {NAMES[peer]}")
    axes.set_title(title, loc="left", fontweight="bold")
    axes.set_title("geometric mean " + ", ".join(means), loc="right", fontsize=9)
    axes.axvline(1, color="#333333", linewidth=1.2)
    axes.set_xscale("log")
    axes.margins(x=0.08)
    axes.set_yticks(range(len(cases)), cases, fontsize=8)
    axes.set_ylim(len(cases) - 0.4, -0.6)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.tick_params(length=0, labelbottom=True)
    axes.grid(axis="x", color="#e5e5e5")
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
