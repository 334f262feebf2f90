"""Where a run's plots and pages lie, and writing figures there."""
import contextlib
import io

from utils.files.atomic import removePartialFiles, writeAtomically
from utils.files.project import runFolder


def plotFolder(modelParam):
    """The folder of a run's plots and pages, made if missing, without leftovers of killed runs."""
    folder = runFolder(modelParam, 'img_dir')
    with contextlib.suppress(FileNotFoundError):  # another script removes the same file
        removePartialFiles(folder)
    return folder


def saveFigure(figure, path):
    """Writes a matplotlib figure as a PNG, whole or not at all; needs no display."""
    png = io.BytesIO()
    figure.savefig(png, format='png', dpi=120)
    writeAtomically(path, png.getvalue())
