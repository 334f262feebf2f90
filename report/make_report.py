"""Writes report/report.pdf from what training and validation have left.

    python report/make_report.py

Which data: utils/dataRoot.py. Whose report: report/submitter.py. The report says what is missing,
and which command makes it.
"""
import os
import sys

from matplotlib import rc_context
from matplotlib.ticker import PercentFormatter

sys.path.insert(0, os.path.join(os.path.dirname(__file__), '..'))

from report import submitter
from report.pictures import attentionPage, examplesPage
from report.runs import TASKS, runsOfTasks, stateOf
from report.story import HEADING, NOTE, PLOTS, TITLE, Story, newFigure
from utils.data.dataFolder import MODES, dataDir, imageNames, isDemo
from utils.files.ownFiles import inProject, writeAtomically
from utils.networks.captionRewards import METEOR_SHARE
from utils.plotter import curvesFigure, overEpochs
from utils.scripts.endings import runScript

NAME = 'Image captioning with RNN, GRU, LSTM and attention'
COURSE = 'IN5400 Machine Learning for Image Analysis, University of Oslo: mandatory exercise 2'
NAMES = {1: 'one-layer RNN', 2: 'two-layer GRU', 3: 'two-layer LSTM', 4: 'attention LSTM'}
DEMO_DATA = """COCO was not used. These models were trained on the built-in demo data: drawn
    scenes (houses, cars, boats, dogs, balloons … with colour, size, number and place), with five or
    six sentences each that are true of the picture, and ten detections whose features a small fixed
    network computes from the pixels. {train:,} scenes were for training, {val:,} for validation.
    Scores on these scenes only compare the models with each other."""
OWN_DATA = """The data are the images in {folder}: {train:,} for training and {val:,} for
    validation. COCO 2017 has 118,287 and 5,000."""
EXPECTED = """On COCO the course expects a METEOR tok. of 25.2–25.6 in task 1, 25.3–25.7 in task 2,
    25.5–25.8 in task 3 and 25.7–26.0 in task 4; on other data these do not apply."""
PROTOCOL = """Four models caption images word by word. Captions are greedy and free-running: each
    step gets the word that the model chose before, up to 40. BLEU, METEOR,
    CIDEr and ROUGE-L are those of the COCO protocol, on words. METEOR tok. is the variant of the
    course, on strings of token numbers, where stems and synonyms never match. Scores are in
    percent: 32.00 here is 0.3200 where a script prints it."""
RESULTS = """The saved models, as the validation scripts score them. Their epoch was chosen by
    METEOR on the same images, which flatters them a little."""
CURVES = """Left: loss per word in training and validation, both teacher-forced; in training with
    dropout, and with smoothed labels in the recipe 'regularised'. Right: METEOR and BLEU-4 of
    greedy captions of all validation images. Dotted: the epoch that was kept."""
REWARD = f"""Below, left: the mean reward of the captions of training images that the model samples
    in self-critical epochs and learns from, CIDEr-D + {METEOR_SHARE} · METEOR of exact words.
    Right: CIDEr."""
TIMES = """Training times: the training pass with the validation loss, then greedy captions and
    their scores."""

LAYERS = (r'$x_t = [\mathrm{embedding}(w_{t-1}),\, v]$ in the first layer, '
          r'$x_t = h_t$ of the layer below in the second')
# what is new in each task: in words, in equations
MODELS = {
    1: ("""A layer of simple cells reads, at each step, the previous word and the image. The image
        is the maximum over its ten detections, mapped to 512 features by dropout, a linear layer
        and a leaky ReLU.""",
        [r'$h_t = \tanh\,([x_t, h_{t-1}]\, W + b)\qquad x_t = [\mathrm{embedding}(w_{t-1}),\, v]$',
         r'$w_t = \mathrm{arg\,max}\,(W_o\, h_t + b_o)\qquad v$: the processed image']),
    2: ("""Gated recurrent units in two layers, the reset gate before the product. The image enters
        as in task 1.""",
        [r'$u = \sigma([x_t, h_{t-1}]\, W_u + b_u)\qquad r = \sigma([x_t, h_{t-1}]\, W_r + b_r)$',
         r'$h_t = u\, h_{t-1} + (1 - u)\,\tanh\,([x_t, r\, h_{t-1}]\, W + b)$', LAYERS]),
    3: ("""Long short-term memory in two layers. In the assignment's learning recipe all biases
        start at two, in the others at zero. The image enters as in task 1.""",
        [r'$f, i, o = \sigma([x_t, h_{t-1}]\, W_{f,i,o} + b_{f,i,o})$',
         r'$c_t = f\, c_{t-1} + i\,\tanh\,([x_t, h_{t-1}]\, W + b)\qquad h_t = o\,\tanh\,(c_t)$',
         LAYERS]),
    4: ("""The LSTM of task 3 over separate detections, each mapped to 512 features v. The first
        layer gets their maximum, the last their weighted sum. The weights of each word come from an
        attention layer that reads the hidden state and the memory of the layer below.""",
        [r'$x^{(1)}_t = [\mathrm{embedding}(w_{t-1}),\, \mathrm{max}_k\, v_k]\qquad '
         r'x^{(2)}_t = [h^{(1)}_t, z_t]\qquad z_t = \Sigma_k\, a_{t,k}\, v_k$',
         r'$a_t = \mathrm{softmax}\,(e_t)\qquad e_t = \mathrm{MLP}([h^{(1)}_t, c^{(1)}_t])$',
         r"where config['attention'] is 'content': "
         r'$e_{t,k} = u \cdot \tanh\,(W_s\,[h^{(1)}_t, c^{(1)}_t] + W_r\, v_k + b)$']),
}
REPRODUCING = [
    """All scripts are started without arguments. The one path to set is DATA_ROOT in
    utils/dataRoot.py. Seeds are fixed: the same CPU and number of threads give the same numbers
    again.""",
    """python Exercise_Train_task{1,2,3,4}.py leaves best epochs, settings and times in
    storedModels/, and curves in lossImages/.""",
    """python Validate_task{1,2,3,4}.py scores the model trained there or, where there is none, the
    one in report/models/. The examples and the attention are drawn from what it leaves.""",
    """python report/make_report.py writes this report.""",
    """python report/make_zip.py packs code, models and report into the zip to hand in."""]
# of the table of results: the scores of all validation images
COLUMNS = {'METEOR': 'meteor', 'METEOR\ntok.': 'meteor_tokens', 'BLEU-4': 'bleu_4',
           'CIDEr': 'cider', 'ROUGE-L': 'rouge'}


def percent(score):
    """A score from 0 to 1 in percent, '' where there is none."""
    return '' if score is None else f'{100 * score:.2f}'


def titlePage(story, runs, data_dir):
    """Data, protocol and results."""
    images = {mode: len(imageNames(data_dir, mode)) for mode in MODES}
    data = DEMO_DATA if isDemo(data_dir) else OWN_DATA
    story.text(NAME, TITLE)
    story.text(COURSE)
    story.text(submitter.SUBMITTER)
    story.text(data.format(folder=data_dir, **images))
    story.text(PROTOCOL)
    story.text(EXPECTED)
    rows = [['', 'epoch', *COLUMNS]]
    for task, run in runs.items():
        scores = [run.scores.get(key) for key in COLUMNS.values()]
        rows.append([f'{task}  {NAMES[task]}', str(run.epoch), *map(percent, scores)])
    story.table(RESULTS, rows)
    story.text(' '.join(stateOf(runs)), NOTE)
    story.figure('METEOR on words of all validation images after each epoch.', meteorFigure(runs))


def meteorFigure(runs):
    """METEOR over the epochs, a line for each task."""
    figure = newFigure(2.8)
    axes = figure.subplots()
    overEpochs(axes, 'METEOR')
    for (task, run), style in zip(runs.items(), ('-', '--', '-.', ':')):  # told apart in grey too
        epochs, meteors = ([entry.get(key, float('nan')) for entry in run.history]
                           for key in ('epoch', 'meteor'))
        axes.plot(epochs, meteors, f'.{style}', label=f'task {task}, {NAMES[task]}')
        axes.legend()
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    return figure


def taskPage(story, task, run):
    """Equations, settings, curves and best epochs."""
    story.newPage(f'Task {task}: {NAMES[task]}')
    words, equations = MODELS[task]
    story.text(words)
    story.equations(equations)
    if not (run and run.history):
        story.text(f"""There is no history of this model on these data.
                   python Exercise_Train_task{task}.py trains it, then
                   python Validate_task{task}.py scores it.""")
        return
    settings = {'trained parameters': f'{run.numberOfParameters():,}', **run.checkpoint['config'],
                **run.checkpoint['modelParam']}
    cells = [[name, str(value)] for name, value in sorted(settings.items())]
    half = (len(cells) + 1) // 2
    cells.append(['', ''])  # where the number of settings is odd
    rows = [left + right for left, right in zip(cells[:half], cells[half:])]
    story.table(f'The settings, as the scripts call them; {run.state()}.',
                [['setting', 'value'] * 2, *rows], leftColumns=4)
    for name, key in (('METEOR', 'meteor'), ('BLEU-4', 'bleu_4')):
        best = max(run.history, key=lambda entry: entry.get(key, -1))
        if best['epoch'] == run.epoch:
            best = {**best, **run.scores}  # of the weights as they are saved, as in table 1
        story.text(f"Best {name}: {percent(best.get(key))} in epoch {best['epoch']}.")
    caption = CURVES
    if any('reward' in entry for entry in run.history):
        caption = f'{CURVES} {REWARD}'
    story.figure(caption, curvesFigure(run.history))


def closingPage(story, runs):
    """Times, hardware, and how to reproduce."""
    story.newPage('Time and hardware')
    rows = [['', 'device', 'epochs', 'training\n[min]', 'captions and\nscores [min]']]
    for task, run in runs.items():
        training = sum(entry['training_seconds'] + entry.get('validation_seconds', 0)
                       for entry in run.times)
        scoring = sum(entry['scoring_seconds'] for entry in run.times)
        devices = dict.fromkeys(entry['device'] for entry in run.times)
        rows.append([f'{task}  {NAMES[task]}', '\n'.join(devices) or 'no times kept',
                     str(len(run.times)), f'{training / 60:.1f}', f'{scoring / 60:.1f}'])
    story.table(TIMES, rows, leftColumns=2)
    story.text('How to reproduce every figure', HEADING)
    for text in REPRODUCING:
        story.text(text)


def makeReport(runs, data_dir, path):
    """Writes the report of a dict task → `Run` on a data folder into the PDF `path`."""
    story = Story()
    with rc_context(PLOTS):
        titlePage(story, runs, data_dir)
        for task in TASKS:
            taskPage(story, task, runs.get(task))
        examplesPage(story, runs, data_dir)
        attentionPage(story, runs, data_dir)
        closingPage(story, runs)
    writeAtomically(path, story.pdf(NAME, submitter.SUBMITTER))


def main():
    """Makes the report of the runs on the scripts' data; returns them, as `runsOfTasks` does."""
    runs = runsOfTasks()
    path = inProject('report/report.pdf')
    makeReport(runs, dataDir(), path)
    print(*stateOf(runs), f'The report: {path}', sep='\n')
    return runs


if __name__ == '__main__':
    runScript(main)
