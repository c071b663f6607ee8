"""Figures of embeddings and of accuracy over resolution."""
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from mmcrrcd.evaluation.margins import expectation_margin, histogram_intersection, histograms
from mmcrrcd.visualization.resolution import draw_resolution
from mmcrrcd.visualization.similarity import draw_similarities
from mmcrrcd.visualization.style import CRRCD, STUDENT_ONLY
from mmcrrcd.visualization.tsne import draw_points


def on_page(figure) -> None:
    """Titles lie side by side over their panels, legends beside or below them, and all of it on the page."""
    figure.draw_without_rendering()
    panels = [axes.get_window_extent() for axes in figure.axes]
    titles = [axes.title.get_window_extent() for axes in figure.axes]
    edges = [figure.bbox.x0, *(edge for title in titles for edge in (title.x0, title.x1)), figure.bbox.x1]
    assert edges == sorted(edges)
    assert all(panel.y1 <= title.y0 and title.y1 <= figure.bbox.y1 for panel, title in zip(panels, titles, strict=True))
    for legend in figure.legends:
        box, texts = legend.get_window_extent(), [text.get_window_extent() for text in legend.get_texts()]
        assert box.x1 <= figure.bbox.x1 and figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1
        assert all(panel.x1 < text.x0 or text.y1 < panel.y0 for panel in panels for text in texts)


@pytest.mark.parametrize('number', [3, 12])
def test_every_sample_is_where_its_network_puts_it_in_the_color_of_its_class(number):
    rng = np.random.default_rng(0)
    labels, classes = np.arange(4 * number) % number, [f'a long name {k}' for k in range(number)]
    panels = {f'{name}\nsilhouette 0.123, 5 nearest neighbors 12.3 %': rng.normal(0, 1, (len(labels), 2)) for name in 'ab'}
    figure = draw_points(panels, labels, classes)
    assert [axes.get_title() for axes in figure.axes] == list(panels)
    colors = []
    for axes, points in zip(figure.axes, panels.values(), strict=True):
        clouds = axes.collections
        assert [cloud.get_label() for cloud in clouds] == classes
        for k, cloud in enumerate(clouds):
            assert np.array_equal(cloud.get_offsets(), points[labels == k])
        colors.append([to_rgb(cloud.get_facecolor()[0]) for cloud in clouds])
    assert colors[0] == colors[1] and len(set(colors[0])) == number
    legend, = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == classes
    on_page(figure)


def test_a_line_for_each_network_with_its_name_beside_it():
    curves = {'teacher': [10.0, 30.0, 70.0], 'student-only': [40.0, 41.0, 41.5], 'KD': [40.5, 41.2, 41.8],
              'CRRCD': [40.0, 41.0, 42.0], 'CRRCD, another': [40.0, 41.0, 42.1], 'DKD, too': [39.0, 40.0, 41.9],
              'AT': [1, 2, 71]}
    title = "10,000 test images, downsampled by bilinear interpolation,\nseen scaled to each network's size in training"
    figure = draw_resolution([8, 12, 32], curves, title)
    axes, = figure.axes
    assert {line.get_label(): list(line.get_ydata()) for line in axes.lines} == curves
    assert all(list(line.get_xdata()) == [8, 12, 32] for line in axes.lines)
    assert axes.get_ylim()[0] == 0
    looks = {(line.get_color(), line.get_linestyle()) for line in axes.lines}
    assert len(looks) == len(curves)
    colors = {line.get_label(): line.get_color() for line in axes.lines}
    assert colors['CRRCD'] == colors['CRRCD, another'] == CRRCD and colors['student-only'] == STUDENT_ONLY
    assert len({colors[name] for name in ('KD', 'DKD, too', 'AT', 'teacher')}) == 4
    assert {text.get_text(): text.get_color() for text in axes.texts} == colors
    on_page(figure)
    boxes = [text.get_window_extent() for text in axes.texts]
    assert all(box.x0 >= axes.get_window_extent().x1 and box.x1 <= figure.bbox.x1 for box in boxes)
    heights = sorted((box.y0, box.y1) for box in boxes)
    assert all(upper[0] >= lower[1] - 1 for lower, upper in zip(heights, heights[1:]))


@pytest.mark.parametrize('number, spread', [(3, 0.2), (5, 0.001)])
def test_distributions_of_positive_and_negative_pairs(number, spread):
    rng = np.random.default_rng(0)
    same = np.arange(2000) % 4 == 0
    panels = {f'network {k}': rng.normal(0.4 + 0.1 * k * same, spread).clip(-1, 1) for k in range(number)}
    figure = draw_similarities(panels, same, 'LFW at 16×16 px')
    assert figure.get_suptitle() == 'LFW at 16×16 px' and len(figure.axes) == number
    for axes, (name, scores) in zip(figure.axes, panels.items(), strict=True):
        assert axes.get_title() == (f'{name}\nexpectation margin {expectation_margin(scores, same):.3f}, '
                                    f'histogram intersection {histogram_intersection(scores, same):.3f}')
        positive, negative, edges = histograms(scores, same)
        filled = {patch.get_label(): patch.get_data() for patch in axes.patches if patch.get_fill()}
        for label, shares in (('500 positive pairs', positive), ('1,500 negative pairs', negative)):
            assert np.array_equal(filled[label].values, shares) and np.array_equal(filled[label].edges, edges)
        means = [line.get_xdata()[0] for line in axes.lines]
        assert means == pytest.approx([scores[~same].mean(), scores[same].mean()])
        low, high = axes.get_xlim()
        assert low <= min(x.min() for x in panels.values()) and high >= max(x.max() for x in panels.values())
        assert axes.get_ylim()[0] == 0 and axes.get_ylim()[1] >= max(positive.max(), negative.max())
    legend, = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ['1,500 negative pairs', '500 positive pairs', 'mean']
    figure.draw_without_rendering()
    page, box, title = figure.bbox, legend.get_window_extent(), figure._suptitle.get_window_extent()
    assert page.y0 <= box.y0 and box.y1 < min(axes.get_window_extent().y0 for axes in figure.axes) and title.y1 <= page.y1
    columns = 2
    for i in range(0, number, columns):
        titles = [axes.title.get_window_extent() for axes in figure.axes[i:i + columns]]
        edges = [page.x0, *(edge for each in titles for edge in (each.x0, each.x1)), page.x1]
        above = min(axes.get_window_extent().y0 for axes in figure.axes[i - columns:i]) if i else title.y0
        assert edges == sorted(edges) and all(each.y1 <= above for each in titles)
