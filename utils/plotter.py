"""The curves of a run: losses, METEOR and BLEU-4 over the epochs."""
import os

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from utils.pages.figures import plotFolder, saveFigure

# of each axes the label on the left and its curves: key of the history, label, style
AXES = (
    ('loss per word [nats]', [('train_loss', 'training', 'o-'),
                              ('val_loss', 'validation, teacher-forced', 's--')]),
    ('score of greedy captions [%]', [('meteor', 'METEOR (words)', 'o-'),
                                      ('bleu_4', 'BLEU-4', 's--')]),
    ('reward', [('reward', 'reward in training', 'o-'),
                ('cider', 'CIDEr in validation, greedy', 's--')]),
)
MOST_MARKS = 25  # of a curve; more would touch


def markEvery(points):
    """Which points of a curve to mark: every first, second, …"""
    return 1 + (len(points) - 1) // MOST_MARKS


def plotsOf(history):
    """How many axes `drawCurves` takes: two, or three where a reward has been learned from."""
    return 3 if any('reward' in entry for entry in history) else 2


def drawCurves(axes, history, kept):
    """Draws a run's curves.

    Args:
        axes: as many as `plotsOf` says, for the losses, the scores and the reward. CIDEr has a
            scale of its own on the right.
        history: list of one dict per epoch.
        kept: the epoch to mark.
    """
    for left, (label, curves) in zip(axes, AXES):
        lines = []
        for colour, (key, name, style) in zip(('C0', 'C1'), curves):
            points = [(entry['epoch'], entry[key]) for entry in history if key in entry]
            side = left
            if key == 'cider':
                side = left.twinx()
                side.set_ylabel('CIDEr')
            if points:
                lines += side.plot(*zip(*points), style, color=colour, markersize=3,
                                   markevery=markEvery(points), label=name)
        left.axvline(kept, color='.3', linewidth=1, linestyle=(0, (1, 2)))
        left.set_title(f'kept: epoch {kept}', loc='right', size='small')
        left.set(xlabel='epoch', ylabel=label)
        left.xaxis.set_major_locator(MaxNLocator(integer=True))
        left.grid(alpha=0.3)
        if lines:  # 'best' does not see what is drawn on the right
            left.legend(handles=lines, loc='lower right' if label == 'reward' else 'best')
    axes[1].yaxis.set_major_formatter(lambda score, position: f'{100 * score:.4g}')


class Plotter:
    """Draws a run's history into `img_dir + modelName`, as curves.png."""

    def __init__(self, modelParam, config):
        self.modelParam = modelParam
        self.path = os.path.join(plotFolder(modelParam), 'curves.png')

    def plot(self, history):
        """Draws the history, a list of one dict per epoch; a notebook shows the picture, too."""
        best = max(history, key=lambda entry: entry.get('meteor', float('-inf')))
        plots = plotsOf(history)
        figure = Figure(figsize=(5 * plots, 4), layout='constrained')
        drawCurves(figure.subplots(1, plots), history, best['epoch'])
        figure.suptitle(self.modelParam['modelName'].strip(os.sep))
        saveFigure(figure, self.path)
        if self.modelParam['inNotebook']:
            from IPython.display import Image, display
            display(Image(self.path))

    def plotMissing(self, history):
        """Draws the history where its picture is missing; an empty history leaves nothing."""
        if history and not os.path.exists(self.path):
            self.plot(history)
