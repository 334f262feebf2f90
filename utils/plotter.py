"""The curves of a run: losses, METEOR and BLEU-4 over the epochs."""
import io
import os

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from utils.files.atomic import writeAtomically
from utils.files.project import runFolder

CURVES = ((('train_loss', 'training', 'o-'), ('val_loss', 'validation, teacher-forced', 's--')),
          (('meteor', 'METEOR (words)', 'o-'), ('bleu_4', 'BLEU-4', 's--')))
Y_LABELS = ('loss per word [nats]', 'score, greedy free-running captions')


def saveFigure(figure, path):
    """Writes a figure as a PNG that is replaced as a whole; needs no display."""
    FigureCanvasAgg(figure)
    png = io.BytesIO()
    figure.savefig(png, dpi=120)
    writeAtomically(path, png.getvalue())


def markEvery(points):
    """Which points of a curve to mark, the first of how many: marks that touch tell nothing apart."""
    return -(-len(points) // 25)


def drawCurves(axes, history):
    """Draws a history, a list of one dict per epoch, into two axes: the losses, the scores."""
    for axes_of_kind, curves, label in zip(axes, CURVES, Y_LABELS):
        for key, name, style in curves:
            points = [(entry['epoch'], entry[key]) for entry in history if key in entry]
            if points:
                axes_of_kind.plot(*zip(*points), style, markersize=3, markevery=markEvery(points), label=name)
        axes_of_kind.set(xlabel='epoch', ylabel=label)
        axes_of_kind.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes_of_kind.grid(alpha=0.3)
        if axes_of_kind.lines:
            axes_of_kind.legend()


class Plotter:
    """Draws a run's history into `img_dir + modelName`, as curves.png."""

    def __init__(self, modelParam, config):
        self.path = os.path.join(runFolder(modelParam, 'img_dir'), 'curves.png')
        self.title = f"{modelParam['modelName'].strip(os.sep)}: {config['num_rnn_layers']}-layer {config['cellType']}"
        self.in_notebook = modelParam['inNotebook']

    def plot(self, history):
        """Draws the history, a list of one dict per epoch; in a notebook the picture is shown as well."""
        figure = Figure(figsize=(10, 4), layout='constrained')
        drawCurves(figure.subplots(1, 2), history)
        figure.suptitle(self.title)
        saveFigure(figure, self.path)
        if self.in_notebook:
            from IPython.display import Image, display
            display(Image(self.path))
