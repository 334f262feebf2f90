"""The curves of a run over its epochs: losses, METEOR and BLEU-4, rewards and CIDEr."""
import os

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from utils.pages.figures import plotFolder, saveFigure

# The y-axes: label, and curves by their key in the history, name and style. The last two share
# a plot.
SCALES = [
    ('loss per word [nats]', [('train_loss', 'training', 'C0o-'),
                              ('val_loss', 'validation, teacher-forced', 'C1s--')]),
    ('score of greedy captions [%]', [('meteor', 'METEOR (words)', 'C0o-'),
                                      ('bleu_4', 'BLEU-4', 'C1s--')]),
    ('reward in training (solid)', [('reward', 'reward', 'C0o-')]),
    ('CIDEr in validation, greedy (dashed)', [('cider', 'CIDEr', 'C1s--')]),
]
MARKS = 25  # on a curve; more would touch


def plotsOf(history):
    """The number of axes that `drawCurves` fills: 2, or 3 if the run has learned from rewards."""
    return 3 if any('reward' in entry for entry in history) else 2


def drawCurves(axes, history, kept):
    """Draws a history, a list of one dict per epoch, into `plotsOf(history)` axes.

    All mark the epoch `kept`.
    """
    scales = list(axes)
    if plotsOf(history) == 3:
        scales.append(axes[2].twinx())
    for scale, (label, curves) in zip(scales, SCALES):
        scale.set(xlabel='epoch', ylabel=label)
        for key, name, style in curves:
            epochs = [entry['epoch'] for entry in history if key in entry]
            values = [entry[key] for entry in history if key in entry]
            scale.plot(epochs, values, style, label=name, markersize=3,
                       markevery=1 + len(epochs) // MARKS)
    for plot in axes:
        plot.axvline(kept, color='.3', linestyle=':', label=f'kept: epoch {kept}')
        plot.xaxis.set_major_locator(MaxNLocator(integer=True))
        plot.grid(alpha=0.3)
    for plot in axes[:2]:
        plot.legend()
    axes[1].yaxis.set_major_formatter(PercentFormatter(1, symbol=''))


class Plotter:
    """Draws a run's history into `img_dir + modelName`, as curves.png."""

    def __init__(self, modelParam, config):
        self.modelParam = modelParam
        self.path = os.path.join(plotFolder(modelParam), 'curves.png')

    def plot(self, history):
        """Draws the history, a list of one dict per epoch; a notebook shows the picture, too."""
        best = max(history, key=lambda entry: entry.get('meteor', float('-inf')))  # as saved
        plots = plotsOf(history)
        figure = Figure(figsize=(5 * plots, 4), layout='constrained')
        drawCurves(figure.subplots(1, plots), history, best['epoch'])
        figure.suptitle(os.path.normpath(self.modelParam['modelName']))
        saveFigure(figure, self.path)
        if self.modelParam['inNotebook']:
            from IPython.display import Image, display
            display(Image(self.path))

    def plotMissing(self, history):
        """Draws the history if its picture has been deleted and an epoch is done."""
        if history and not os.path.exists(self.path):
            self.plot(history)
