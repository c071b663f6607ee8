import numpy as np
from matplotlib.colors import to_rgb

from mmcrrcd.visualization import draw_answers


def shown(figure):
    """The images with their extents, and (text, color, x, y) of everything written, from top to bottom."""
    axes, = figure.axes
    texts = [(t.get_text(), to_rgb(t.get_color()), *t.get_position()) for t in axes.texts]
    return [(i.get_array(), i.get_extent()) for i in axes.images], texts


def test_answers_are_green_where_right_and_red_where_wrong():
    high, low = np.zeros((3, 4, 4, 3), np.uint8), np.full((3, 2, 2, 3), 255, np.uint8)
    figure = draw_answers(high, low, ['A', 'B', 'C'], {'one': ['A', 'x', 'C'], 'two': ['y', 'B', 'z']}, columns=2)
    _, texts = shown(figure)
    colors = {said: color for said, color, *_ in texts if said in set('xyz')}
    assert all(red > 2 * green for red, green, _ in colors.values()) and set(colors) == set('xyz')
    right = [color for said, color, *_ in texts if said in ('A', 'B', 'C') and max(color) > 0]
    assert len(right) == 3 and all(green > 2 * red for red, green, _ in right)
    truth = [said for said, color, *_ in texts if said in ('A', 'B', 'C') and max(color) == 0]
    assert truth == ['A', 'B', 'C']
    assert {'4×4 px', '2×2 px'} <= {said for said, *_ in texts}


def test_a_sample_is_one_column_with_its_own_images():
    rng = np.random.default_rng(0)
    high, low = rng.integers(0, 256, (5, 4, 4, 3), np.uint8), rng.integers(0, 256, (5, 2, 2, 3), np.uint8)
    truth = list('ABCDE')
    figure = draw_answers(high, low, truth, {'net': list('vwxyz')}, columns=3)
    images, texts = shown(figure)
    assert len(images) == 10 and all(image.get_interpolation() == 'nearest' for image in figure.axes[0].images)
    for i, (name, said) in enumerate(zip(truth, 'vwxyz', strict=True)):
        (big, (left, right, bottom, top)), (small, (left2, right2, bottom2, top2)) = images[2 * i:2 * i + 2]
        assert np.array_equal(big, high[i]) and np.array_equal(small, low[i])
        assert (left, right) == (left2, right2) and top < bottom <= top2 < bottom2
        (x, y), (x2, y2) = ((x, y) for text, _, x, y in texts if text in (name, said))
        assert left < x == x2 < right and bottom2 < y < y2


def test_nothing_overlaps_and_nothing_leaves_the_page():
    high, low = np.zeros((4, 32, 32, 3), np.uint8), np.zeros((4, 8, 8, 3), np.uint8)
    answers = {f'student-only baseline ({i}0.5 %)': list('WWQQ') for i in range(4)}
    figure = draw_answers(high, low, list('WXYZ'), answers, columns=2, title='two blocks')
    figure.canvas.draw()
    page, (axes,) = figure.bbox, figure.axes
    boxes = [artist.get_window_extent() for artist in [*axes.images, *axes.patches, *axes.texts]]
    for i, a in enumerate(boxes):
        assert page.x0 <= a.x0 and a.x1 <= page.x1 and page.y0 <= a.y0 and a.y1 <= page.y1
        for b in boxes[:i]:
            inside = b.x0 <= a.x0 and a.x1 <= b.x1 and b.y0 <= a.y0 and a.y1 <= b.y1            # an answer in its cell
            apart = min(a.x1, b.x1) - max(a.x0, b.x0) < 1 or min(a.y1, b.y1) - max(a.y0, b.y0) < 1
            assert apart or inside
