"""Figures, which need no display, and the folder of a run's plots and pages."""
import io

from utils.files.atomic import writeAtomically
from utils.files.project import runFolder


def plotFolder(modelParam):
    """The folder of a run's plots and pages, made when missing."""
    return runFolder(modelParam, 'img_dir')


def saveFigure(figure, path):
    """Writes a matplotlib figure as a PNG that is replaced as a whole."""
    png = io.BytesIO()
    figure.savefig(png, format='png', dpi=120)
    writeAtomically(path, png.getvalue())
