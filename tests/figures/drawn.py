"""What tests ask of a figure."""

from __future__ import annotations

from matplotlib.figure import Figure


def labels(fig: Figure) -> list[str]:
    """The texts of its legends."""
    return [text.get_text() for legend in fig.legends for text in legend.get_texts()]


def overflows(fig: Figure) -> list[str]:
    """The texts that reach beyond the figure's edge."""
    fig.draw_without_rendering()
    edge = fig.bbox.padded(1)
    texts = [axes.title for axes in fig.axes] + [text for legend in fig.legends for text in legend.get_texts()]
    for axes in fig.axes:
        # Titles stand on the left.
        texts += [axes.xaxis.label, axes.yaxis.label, *axes.texts, axes._left_title]  # type: ignore[attr-defined]
    boxes = {text.get_text(): text.get_window_extent() for text in texts if text.get_text()}
    return [
        text
        for text, box in boxes.items()
        if box.x0 < edge.x0 or box.x1 > edge.x1 or box.y0 < edge.y0 or box.y1 > edge.y1
    ]
