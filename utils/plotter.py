"""The curves of a run: losses, METEOR and BLEU-4 over the epochs."""
import contextlib
import io
import os

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from utils.files.atomic import removePartialFiles, writeAtomically
from utils.files.project import runFolder

CURVES = ((('train_loss', 'training', 'o-'), ('val_loss', 'validation, teacher-forced', 's--')),
          (('meteor', 'METEOR (words)', 'o-'), ('bleu_4', 'BLEU-4', 's--')),
          (('reward', 'reward in training', 'o-'), ('cider', 'CIDEr in validation, greedy', 's--')))
Y_LABELS = (('loss per word [nats]',), ('score of greedy captions [%]',), ('reward', 'CIDEr'))  # a second one is on the right


def plotFolder(modelParam):
    """The folder of a run's plots and pages, made when missing, without what writers that were killed have left there."""
    folder = runFolder(modelParam, 'img_dir')
    with contextlib.suppress(FileNotFoundError):  # another script removes the same
        removePartialFiles(folder)
    return folder


def saveFigure(figure, path):
    """Writes a figure as a PNG that is replaced as a whole; needs no display."""
    FigureCanvasAgg(figure)
    png = io.BytesIO()
    figure.savefig(png, dpi=120)
    writeAtomically(path, png.getvalue())


def markEvery(points):
    """Which points of a curve to mark, the first of how many: marks that touch tell nothing apart."""
    return -(-len(points) // 25)


def plotsOf(history):
    """How many axes `drawCurves` takes for a history: two, or three where a reward has been learned from."""
    return 3 if any('reward' in entry for entry in history) else 2


def drawCurves(axes, history, kept):
    """Draws a history, a list of one dict per epoch, into `plotsOf` axes: the losses, the scores and, where there is one, the
    reward. All mark the epoch `kept`."""
    for axes_of_kind, curves, labels in zip(axes, CURVES, Y_LABELS):
        sides, lines = [axes_of_kind, axes_of_kind], []
        if len(labels) > 1:
            sides[1] = axes_of_kind.twinx()
            sides[1].set_ylabel(labels[1])
        for side, colour, (key, name, style) in zip(sides, ('C0', 'C1'), curves):
            points = [(entry['epoch'], entry[key]) for entry in history if key in entry]
            if points:
                lines += side.plot(*zip(*points), style, color=colour, markersize=3, markevery=markEvery(points), label=name)
        axes_of_kind.axvline(kept, color='.3', linewidth=1, linestyle=(0, (1, 2)))
        axes_of_kind.set_title(f'kept: epoch {kept}', loc='right', size='small')
        axes_of_kind.set(xlabel='epoch', ylabel=labels[0])
        axes_of_kind.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes_of_kind.grid(alpha=0.3)
        if lines:
            axes_of_kind.legend(handles=lines, loc='best' if len(labels) == 1 else 'lower right')  # 'best' does not see the right
    axes[1].yaxis.set_major_formatter(lambda score, position: f'{100 * score:.4g}')


class Plotter:
    """Draws a run's history into `img_dir + modelName`, as curves.png."""

    def __init__(self, modelParam, config):
        self.modelParam = modelParam

    def plot(self, history):
        """Draws the history, a list of one dict per epoch; in a notebook the picture is shown as well."""
        kept = max(history, key=lambda entry: entry.get('meteor', float('-inf')))['epoch']  # the first of the best, as saved
        plots = plotsOf(history)
        figure = Figure(figsize=(5 * plots, 4), layout='constrained')
        drawCurves(figure.subplots(1, plots), history, kept)
        figure.suptitle(self.modelParam['modelName'].strip(os.sep))
        path = self._path()
        saveFigure(figure, path)
        if self.modelParam['inNotebook']:
            from IPython.display import Image, display
            display(Image(path))

    def plotMissing(self, history):
        """Draws the history where its picture has been deleted; an empty history leaves nothing."""
        if history and not os.path.exists(self._path()):
            self.plot(history)

    def _path(self):
        return os.path.join(plotFolder(self.modelParam), 'curves.png')
