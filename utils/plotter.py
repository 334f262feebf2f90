"""The curves of a run: losses and scores over the epochs; figures need no display."""
import io
import os

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from utils.files.ownFiles import runFolder, writeAtomically

# for each axes its label, the factor for its values, and its curves by their keys in the history
AXES = [('loss per word [nats]', 1, {'train_loss': 'training',
                                     'val_loss': 'validation, teacher-forced'}),
        ('score of greedy captions [%]', 100, {'meteor': 'METEOR (words)', 'bleu_4': 'BLEU-4'}),
        ('reward', 1, {'reward': 'training'}),
        ('score of greedy captions [%]', 100, {'cider': 'CIDEr'})]
STYLES = 'o-', 's--'


def curvesFigure(history):
    """A figure of a run's curves, with the epoch of the best METEOR marked.

    Reward and CIDEr are drawn where a reward has been learned from.

    Args:
        history: list of one dict per epoch.
    """
    kept = max(history, key=lambda entry: entry.get('meteor', float('-inf')))['epoch']
    epochs = [entry['epoch'] for entry in history]
    rows = 2 if any('reward' in entry for entry in history) else 1
    figure = Figure(figsize=(7.5, 3 * rows), layout='constrained')
    for axes, (label, factor, curves) in zip(figure.subplots(rows, 2).flat, AXES):
        overEpochs(axes, label)
        for (key, name), style in zip(curves.items(), STYLES):
            values = [factor * entry.get(key, float('nan')) for entry in history]
            axes.plot(epochs, values, style, markersize=2.5, label=name)
        axes.axvline(kept, color='.3', linewidth=1, linestyle=':')
        axes.set_title(f'kept: epoch {kept}', loc='right', size='small')
        axes.legend()
    return figure


def overEpochs(axes, label):
    """Labels axes for values over the epochs."""
    axes.set(xlabel='epoch', ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)


def saveFigure(figure, path):
    """Writes a matplotlib figure as a PNG that is replaced as a whole."""
    png = io.BytesIO()
    figure.savefig(png, format='png', dpi=120)
    writeAtomically(path, png.getvalue())


class Plotter:
    """Draws a run's history into `img_dir + modelName`, as curves.png."""

    def __init__(self, modelParam, config):
        self.modelParam = modelParam
        self.path = runFolder(modelParam, 'img_dir', 'curves.png')

    def plot(self, history):
        """Draws the history, a list of one dict per epoch; a notebook shows the picture, too."""
        figure = curvesFigure(history)
        figure.suptitle(self.modelParam['modelName'].strip(os.sep), parse_math=False)
        saveFigure(figure, self.path)
        if self.modelParam['inNotebook']:
            from IPython.display import Image, display
            display(Image(self.path))
