"""Pictures as files."""
from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure

from mmcrrcd.files import write_whole


def save_picture(figure: Figure, file: Path, dpi: int = 150) -> None:
    """Writes a figure in the format that the file's name ends in; the file is there whole or not at all."""
    content = BytesIO()
    figure.savefig(content, format=file.suffix[1:].lower(), dpi=dpi)
    write_whole(file, content.getvalue())
