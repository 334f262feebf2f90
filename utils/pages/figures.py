"""Figures, which need no display, and the folder of a run's plots and pages."""
import contextlib
import io

from utils.files.atomic import removePartialFiles, writeAtomically
from utils.files.project import runFolder


def plotFolder(modelParam):
    """The folder of a run's plots and pages, made when missing, freed of unfinished files."""
    folder = runFolder(modelParam, 'img_dir')
    with contextlib.suppress(FileNotFoundError):  # another script removes the same
        removePartialFiles(folder)
    return folder


def saveFigure(figure, path):
    """Writes a matplotlib figure as a PNG that is replaced as a whole."""
    png = io.BytesIO()
    figure.savefig(png, format='png', dpi=120)
    writeAtomically(path, png.getvalue())
