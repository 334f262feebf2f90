"""The curves of a run over its epochs: losses, METEOR and BLEU-4, rewards and CIDEr."""
import os

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from utils.pages.figures import plotFolder, saveFigure

# For each plot the label of its y-axis and its curves: key in the history, name, style.
PLOTS = [('loss per word [nats]', [('train_loss', 'training', 'C0o-'),
                                   ('val_loss', 'validation, teacher-forced', 'C1s--')]),
         ('score of greedy captions [%]', [('meteor', 'METEOR (words)', 'C0o-'),
                                           ('bleu_4', 'BLEU-4', 'C1s--')]),
         ('reward in training (solid)', [('reward', 'reward', 'C0o-')])]
MARKS = 25  # on a curve, at most


def markEvery(points):
    """The step from one marked point of a curve to the next; marks that touch hide the curve."""
    return 1 + len(points) // MARKS


def plotsOf(history):
    """The number of axes that `drawCurves` fills: 2, or 3 if the run has learned from rewards."""
    return 3 if any('reward' in entry for entry in history) else 2


def drawCurves(axes, history, kept):
    """Draws a history, a list of one dict per epoch, into `plotsOf(history)` axes.

    All mark the epoch `kept`.
    """
    for plot, (label, curves) in zip(axes, PLOTS):
        for curve in curves:
            _drawCurve(plot, history, *curve)
        plot.axvline(kept, color='.3', linestyle=':', label=f'kept: epoch {kept}')
        plot.set(xlabel='epoch', ylabel=label)
        plot.xaxis.set_major_locator(MaxNLocator(integer=True))
        plot.grid(alpha=0.3)
    for plot in axes[:2]:
        plot.legend()
    axes[1].yaxis.set_major_formatter(PercentFormatter(1, symbol=''))
    if plotsOf(history) == 3:
        right = axes[2].twinx()  # CIDEr has another scale
        _drawCurve(right, history, 'cider', 'CIDEr', 'C1s--')
        right.set_ylabel('CIDEr in validation, greedy (dashed)')


def _drawCurve(axes, history, key, name, style):
    entries = [entry for entry in history if key in entry]
    axes.plot([entry['epoch'] for entry in entries], [entry[key] for entry in entries], style,
              markersize=3, markevery=markEvery(entries), label=name)


class Plotter:
    """Draws a run's history into `img_dir + modelName`, as curves.png."""

    def __init__(self, modelParam, config):
        self.modelParam = modelParam

    def plot(self, history):
        """Draws the history, a list of one dict per epoch; a notebook shows the picture, too."""
        best = max(history, key=lambda entry: entry.get('meteor', float('-inf')))  # as saved
        plots = plotsOf(history)
        figure = Figure(figsize=(5 * plots, 4), layout='constrained')
        drawCurves(figure.subplots(1, plots), history, best['epoch'])
        figure.suptitle(os.path.normpath(self.modelParam['modelName']))
        path = self._path()
        saveFigure(figure, path)
        if self.modelParam['inNotebook']:
            from IPython.display import Image, display
            display(Image(path))

    def plotMissing(self, history):
        """Draws the history if its picture has been deleted and an epoch is done."""
        if history and not os.path.exists(self._path()):
            self.plot(history)

    def _path(self):
        return os.path.join(plotFolder(self.modelParam), 'curves.png')
