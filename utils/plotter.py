"""The curves of a run: losses, METEOR and BLEU-4 over the epochs."""
import os

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from utils.pages.figures import plotFolder, saveFigure

# of each axes the label and the curves: key of the history, name, style
AXES = (
    ('teacher-forced loss per word [nats]', [('train_loss', 'training', 'o-'),
                                             ('val_loss', 'validation', 's--')]),
    ('score of greedy captions [%]', [('meteor', 'METEOR (words)', 'o-'),
                                      ('bleu_4', 'BLEU-4', 's--')]),
    ('reward of sampled captions', [('reward', 'training', 'o-')]),
)
MARKS = 25  # on a curve; more would touch


def plotsOf(history):
    """How many axes `drawCurves` takes: two, or three where a reward has been learned from."""
    return 3 if any('reward' in entry for entry in history) else 2


def drawCurves(axes, history, kept):
    """Draws a run's curves.

    Args:
        axes: as many as `plotsOf` says, for the losses, the scores and the reward.
        history: list of one dict per epoch.
        kept: the epoch to mark.
    """
    for ax, (label, curves) in zip(axes, AXES):
        for key, name, style in curves:
            points = [(entry['epoch'], entry[key]) for entry in history if key in entry]
            if points:
                ax.plot(*zip(*points), style, label=name, markersize=3,
                        markevery=1 + len(points) // MARKS)
                ax.legend()
        ax.axvline(kept, color='.3', linewidth=1, linestyle=(0, (1, 2)))
        ax.set_title(f'kept: epoch {kept}', loc='right', size='small')
        ax.set(xlabel='epoch', ylabel=label)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(alpha=0.3)
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
