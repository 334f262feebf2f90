"""The report, the delivered models and the zip, from a tiny run."""
import json
import os
import shutil
import zipfile

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from test_training import build

import cocoSource_task4_attention
from report import deliver_models, layout, make_report, make_zip, pictures, runs, submitter
from utils import metrics, saverRestorer
from utils.data.dataFolder import DEMO_ROOT
from utils.files.atomic import writeJson
from utils.files.errors import UserError
from utils.files.project import PROJECT
from utils.pages import examplePictures
from utils.pages.textLines import wrapped
from utils.saverRestorer import loadForValidation
from utils.validate_metrics import validateCaptions

NAME = 'm'


class WordsShared:
    """In place of METEOR: the share of a reference's words that a caption has, to be worked out by hand, and no Java."""

    def compute_score(self, gts, res):
        scores = [max(len(set(reference.split()) & set(res[image][0].split())) / len(set(reference.split()))
                      for reference in gts[image]) for image in gts]
        return sum(scores) / len(scores), scores

    def close(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass


def scores_of(epoch, meteor):
    """As validation leaves them."""
    return {'epoch': epoch, 'loss': 1., 'meteor': meteor, 'meteor_tokens': .1, 'bleu_4': .1, 'cider': .1, 'rouge': .1}


def checkpoint(epoch, history, **weights):
    return {'epoch': epoch, 'model_state_dict': weights, 'optimizer_state_dict': {'state': torch.ones(100000)},
            'scheduler_state_dict': {}, 'modelParam': {'batch_size': 4, 'numbOfEpochs': 3}, 'vocabulary': '',
            'config': {'num_rnn_layers': 1}, 'history': history, 'best': {'epoch': epoch, 'loss': 0.}}


def write_run(folder, captions, references, best, meteors):
    """A run's folder with the captions of each epoch, [epochs][images]; its best epoch has been validated."""
    os.makedirs(folder)
    history = [{'epoch': epoch, 'val_loss': 1., 'meteor': meteor, 'bleu_4': .1}
               for epoch, meteor in enumerate(meteors, start=1)]
    torch.save(checkpoint(best, history[:best]), os.path.join(folder, f'best_epoch{best}.pt'))
    writeJson(os.path.join(folder, 'history.json'), history)
    for epoch, of_images in enumerate(captions, 1):
        writeJson(os.path.join(folder, f'captions_epoch{epoch}.json'),
                  [{'image_id': image, 'caption': caption} for image, caption in enumerate(of_images)])
    writeJson(os.path.join(folder, 'details_validation.json'),
              [{'image_id': image, 'references': [reference], 'caption': '', 'meteor': .1, 'imgPath': f'{image}.jpg'}
               for image, reference in enumerate(references)])
    writeJson(os.path.join(folder, 'scores_validation.json'), scores_of(best, meteors[best - 1]))
    return folder


def test_one_half_chooses_the_epoch_and_the_other_is_scored(tmp_path):
    references = ['a b c d', 'a b c d', 'e f g h', 'e f g h']
    # images 0 and 2 choose: epoch 2 is right on both; 1 and 3 are scored: epoch 2 has half, epoch 3 all of their words
    captions = [['a', 'a b c d', 'e', 'e f g h'],
                ['a b c d', 'a b', 'e f g h', 'e f'],
                ['a b', 'a b c d', 'e f', 'e f g h']]
    run = runs.Run(write_run(str(tmp_path / 'm'), captions, references, best=3, meteors=[.3, .4, .5]))
    run.scoreHalves(WordsShared())
    assert run.halves['images'] == [2, 2]
    assert run.halves['choosing'] == [[1, .25], [2, 1.], [3, .5]]
    assert run.halves['epoch'] == 2 and run.halves['meteor'] == .5
    assert run.halves['bleu_4'] < .01                                 # captions of two words have no four in a row
    assert runs.Run(run.folder).halves == run.halves                  # kept
    writeJson(os.path.join(run.folder, 'history.json'), run.history + [{'epoch': 4, 'val_loss': 1., 'meteor': .1}])
    assert runs.Run(run.folder).halves is None                        # the run has gone on since


def test_scores_of_another_model_are_not_taken(tmp_path):
    folder = write_run(str(tmp_path / 'm'), [], ['a'], best=2, meteors=[.3, .4])
    assert runs.Run(folder).scores['meteor'] == .4
    for scores in (scores_of(1, .4), scores_of(2, .39)):
        writeJson(os.path.join(folder, 'scores_validation.json'), scores)
        run = runs.Run(folder)
        assert run.scores is None and run.details is None


@pytest.fixture
def trained(course_folder, config, model_param, tmp_path, monkeypatch):
    """Parameters of a validation script, its model trained for an epoch and a self-critical one; delivered models go to a folder
    of the test."""
    course_folder()
    for module in (saverRestorer, deliver_models, runs):
        monkeypatch.setattr(module, 'DELIVERED', str(tmp_path / 'delivered'))
    for module in (metrics, deliver_models):
        monkeypatch.setattr(module, 'METEOR', WordsShared)
    config.update(cellType='LSTM', featurepathstub='detectron2_lim10features', selfCriticalEpochs=1, attention='content',
                  attentionHeads=2)
    build(config, {**model_param, 'numbOfEpochs': 1}, cocoSource_task4_attention.ImageCaptionModel).train()
    return {**model_param, 'inference': True, 'modeSetups': [['val', False]], 'trainingScript': 'Exercise_Train_task4.py'}


def listing(folder):
    return sorted((os.path.join(root, name), os.stat(os.path.join(root, name)).st_mtime_ns)
                  for root, _, names in os.walk(str(folder)) for name in names)


def test_deliver_then_validate_then_report(trained, tmp_path, texts, capsys, monkeypatch):
    monkeypatch.setattr(submitter, 'SUBMITTER', 'Åse')
    own = runs.ownRun(trained)
    assert own.scores is None and runs.deliveredRun(trained) is None
    deliver_models.deliver(own, trained, cocoSource_task4_attention.ImageCaptionModel)
    assert 'comes with the project' not in capsys.readouterr().out     # the student's own model
    delivered = runs.deliveredRun(trained)
    files = sorted(os.listdir(delivered.folder))
    assert files == [f'best_epoch{own.epoch}.pt', 'captions_validation.json', 'details_validation.json', 'halves.json',
                     'history.json', 'scores_validation.json', 'times.json']
    assert os.listdir(str(tmp_path / 'delivered')) == [NAME]          # nothing partial is left
    assert delivered.history == own.history and delivered.epoch == own.epoch
    assert delivered.scores['meteor'] == pytest.approx(own.best('meteor')['meteor'], abs=runs.SAME)
    assert 'optimizer_state_dict' not in delivered.checkpoint
    tensors = delivered.checkpoint['model_state_dict'].values()
    precisions = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
    assert precisions == {torch.float16}
    net = build({**delivered.checkpoint['config']}, {**trained, 'inference': False, 'modelName': 'new/', 'modeSetups': [
        ['train', True], ['val', True]]}, cocoSource_task4_attention.ImageCaptionModel).model.net
    assert delivered.numberOfParameters() == sum(parameter.numel() for parameter in net.parameters())

    before = listing(tmp_path / 'delivered')
    capsys.readouterr()
    assert loadForValidation(trained)['path'].startswith(trained['modelsDir'])          # the own one is preferred
    shutil.rmtree(os.path.join(trained['modelsDir'], NAME))
    assert loadForValidation(trained)['path'].startswith(str(tmp_path / 'delivered'))   # else the delivered one
    trainer = build({**delivered.checkpoint['config']}, trained, cocoSource_task4_attention.ImageCaptionModel)
    assert 'was trained by Åse' in capsys.readouterr().out
    scores = validateCaptions(trainer.model, trained, trainer.config, trainer.dataLoader)
    assert {'epoch': own.epoch, **scores} == delivered.scores
    assert listing(tmp_path / 'delivered') == before                  # validation writes elsewhere

    assert delivered.bySubmitter() and runs.isUpToDate(delivered, own)
    monkeypatch.setattr(submitter, 'SUBMITTER', 'Bo Li')              # who has been given the project by Åse
    assert not runs.isUpToDate(delivered, own)
    delivered.times[0].pop('validation_seconds', None)                # as older files are
    path = make_report.makeReport({1: None, 2: delivered, 3: None, 4: delivered}, trained['data_dir'], str(tmp_path))
    text = ' '.join(texts)
    for piece in ('Bo Li', 'Tasks 2 and 4: trained by Åse, not trained by the submitter.', 'A dash', '–',
                  'what people say', '0.00001', 'which have the layout of the course: 10 for training and 5',
                  'Tasks 1 and 3: not trained on these data.', 'held out',
                  'is not on this machine', 'where the attention looks', 'torch',
                  'python report/make_zip.py', 'of them self-critical', '2 of 2', 'content, heads: 2',
                  f"{100 * scores['meteor']:.2f}", f'{delivered.numberOfParameters():,}'):
        assert piece in text, piece
    assert 'expected' not in text.replace('not to be compared with the expected ones', '')
    for file in (path, str(tmp_path / 'results.png')):
        assert os.path.getsize(file) > 10000


@pytest.fixture
def texts(monkeypatch):
    """The texts that are written into PDFs, in order of the pages."""
    written = []

    class Pages(layout.PdfPages):
        def savefig(self, figure):
            written.extend(text.get_text() for text in figure.findobj(Text))
            super().savefig(figure)

    monkeypatch.setattr(layout, 'PdfPages', Pages)
    return written


def test_a_report_on_coco_has_the_expected_scores_and_says_what_to_run(course_folder, tmp_path, texts, monkeypatch):
    monkeypatch.setattr(make_report, 'COCO_IMAGES', {'train': 10, 'val': 5})
    make_report.makeReport(dict.fromkeys(runs.TASKS), course_folder(), str(tmp_path))
    text = ' '.join(texts)
    for piece in ('Microsoft COCO 2017', '25.2–25.6', '25.7–26.0', 'python Exercise_Train_task3.py', 'no captions to show',
                  'no attention to show'):
        assert piece in text, piece


def test_the_zip_holds_what_is_handed_in_and_nothing_else(tmp_path):
    project = tmp_path / 'project'
    wanted = ['README.md', 'requirements.txt', 'cocoSource_xcnnfused.py', 'utils/scripts/start.py', 'report/report.pdf',
              'report/models/task1_rnn_demo/best_epoch3.pt', 'report/models/task1_rnn_demo/history.json']
    unwanted = ['report/partial_x/m/best_epoch3.pt', '.git/config', '.env',
                '.netrc', 'demoData/val2017/1.jpg', 'storedModels/task1_rnn_demo/last_epoch3.pt',
                'lossImages/task1_rnn_demo/curves.png', 'utils/scripts/__pycache__/start.pyc', 'tmp/a.py', 'venv/lib/a.py',
                'token.txt',
                'old.zip', 'report/models/partial_x/best_epoch3.pt', 'nohup.out', 'report/.hidden.py']
    for name in wanted + unwanted:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(name, encoding='utf-8')
    path = str(tmp_path / 'hand_in.zip')
    make_zip.writeZip(str(project), path)
    with zipfile.ZipFile(path) as packed:
        assert sorted(packed.namelist()) == sorted(f'hand_in/{name}' for name in wanted)
    assert sorted(os.listdir(str(tmp_path))) == ['hand_in.zip', 'project']


def test_this_project_is_packed_whole():
    packed = set(make_zip.packedFiles(PROJECT))
    for folder in ('', 'utils', 'tests', 'report'):
        code = {os.path.join(folder, name) for name in os.listdir(os.path.join(PROJECT, folder)) if name.endswith('.py')}
        assert code and code <= packed
    assert {'README.md', 'requirements.txt', '.pytest.ini', os.path.join('utils', 'pages', 'captionPage.html')} <= packed


@pytest.mark.parametrize('data_root, score, fault', [
    ('', .3, None), ('', .4, 'meteor 0.3 where the report has 0.4'), ('ownData', .3, None)])
def test_the_zip_checks_itself(data_root, score, fault, tmp_path, capsys, monkeypatch):
    project = tmp_path / 'project'
    (project / 'utils').mkdir(parents=True)
    (project / 'utils' / 'dataRoot.py').write_text(f'DATA_ROOT = {data_root!r}')
    data_dir = str(tmp_path / data_root) if data_root else DEMO_ROOT  # relative to the project, not to the unzipped one
    monkeypatch.setattr(make_zip, 'dataDir', lambda: data_dir)
    (project / 'Validate_task1.py').write_text(
        "import json, os\n"
        "from utils.dataRoot import DATA_ROOT\n"
        f"assert DATA_ROOT == {data_dir if data_root else ''!r}\n"
        "os.makedirs('storedModels/m')\n"
        "with open('storedModels/m/scores_validation.json', 'w') as f:\n"
        f"    json.dump({scores_of(1, .3)}, f)\n", encoding='utf-8')
    run = runs.Run(write_run(str(tmp_path / 'm'), [], ['a'], best=1, meteors=[score]))
    run.scores = {'meteor': score}
    path = str(tmp_path / 'hand_in.zip')
    make_zip.writeZip(str(project), path)
    if fault:
        with pytest.raises(UserError, match=fault):
            make_zip.check(path, 1, run)
    else:
        make_zip.check(path, 1, run)
        assert '0.3000' in capsys.readouterr().out
    (project / 'Validate_task1.py').write_text("raise SystemExit('broken')", encoding='utf-8')
    make_zip.writeZip(str(project), path)
    with pytest.raises(UserError, match='broken'):
        make_zip.check(path, 1, run)


def test_the_name_of_the_zip(monkeypatch):
    monkeypatch.setattr(submitter, 'SUBMITTER', 'Åse  Øye-Bjørn')
    assert make_zip.zipName() == 'IN5400_exercise2_Ase_OyeBjorn.zip'


@pytest.fixture
def task_runs(tmp_path, monkeypatch):
    """A function that makes the runs of four tasks from who has trained each: 'here', a name, '' for an unnamed maker, None."""
    monkeypatch.setattr(runs, 'DELIVERED', str(tmp_path / 'delivered'))

    def make(*trainers):
        made = {}
        for task, trainer in enumerate(trainers, start=1):
            folder = tmp_path / ('models' if trainer == 'here' else 'delivered') / f'task{task}'
            made[task] = None if trainer is None else runs.Run(write_run(str(folder), [], ['a'], best=1, meteors=[.3]))
            if trainer not in (None, 'here', ''):
                made[task].checkpoint['trainedBy'] = trainer
        return made

    return make


@pytest.mark.parametrize('name, trainers, refusal', [
    ('Your Name', ['here'] * 4, 'Put your name into report/submitter.py'),
    (' ', ['here'] * 4, 'Put your name'),
    ('Åse', ['here', '', 'Bo', 'Åse'], 'not trained tasks 2 and 3.*python Exercise_Train_task2.py, python Exercise_Train_task3.py'),
    ('Åse', ['here', '', 'here', 'here'], 'not trained task 2: .*move away .*delivered.task2'),
    ('Åse', ['here', 'Åse', None, 'here'], None),
    ('Åse', ['', '', '', ''], None)])                                 # the package as it is, marked in its report
def test_the_zip_asks_for_a_name_and_for_the_missing_models(name, trainers, refusal, task_runs, monkeypatch):
    monkeypatch.setattr(submitter, 'SUBMITTER', name)
    made = task_runs(*trainers)
    if refusal is None:
        make_zip.checkReady(made)
    else:
        with pytest.raises(UserError, match=refusal):
            make_zip.checkReady(made)


def test_whose_the_models_are(task_runs, monkeypatch):
    monkeypatch.setattr(submitter, 'SUBMITTER', 'Åse')
    made = task_runs('here', '', None, 'Åse')
    made[4].scores = None
    assert runs.stateOf(made) == [
        'Tasks 1 and 4: trained by Åse.',
        'Tasks 1 and 2: without held-out scores, for want of the captions of each epoch.',
        'Task 2: delivered with the package, not trained by the submitter.', 'Task 3: not trained on these data.',
        'Task 4: not validated since, which python Validate_task*.py does.']


def test_nobody_is_no_submitter(task_runs):
    assert runs.stateOf(task_runs('Your Name'))[:1] == ['Task 1: delivered with the package, not trained by the submitter.']


def test_without_a_run_there_is_nothing_to_report_and_no_file_is_touched(course_folder, model_param, tmp_path, monkeypatch):
    course_folder()
    for module in (saverRestorer, runs):
        monkeypatch.setattr(module, 'DELIVERED', str(tmp_path / 'delivered'))
    monkeypatch.setattr(runs, 'validationScript', lambda task: (None, {**model_param, 'inference': True}))
    monkeypatch.setattr(submitter, 'SUBMITTER', 'Åse')

    def unexpected(*arguments):
        raise AssertionError(f'{arguments} written')

    for module in (make_report, make_zip, deliver_models):
        monkeypatch.setattr(module, 'writeAtomically', unexpected)
    for main in (make_report.main, make_zip.main):
        with pytest.raises(UserError, match='nothing to report yet: no model has been trained.*python Exercise_Train_task1.py'):
            main()


@pytest.mark.parametrize('more, parts', [
    ([{}, {}], ([30, 50], None, [1, 2])), ([{}, {'validation_seconds': 5}], ([30, 55], None, [1, 2])),
    ([{'validation_seconds': 4}, {'validation_seconds': 5}], ([30, 50], [4, 5], [1, 2]))])
def test_older_times_have_the_validation_loss_within_the_training(more, parts, tmp_path):
    folder = write_run(str(tmp_path / 'm'), [], ['a'], best=1, meteors=[.3])
    times = [{'epoch': 1, 'training_seconds': 30, 'scoring_seconds': 1}, {'epoch': 2, 'training_seconds': 50, 'scoring_seconds': 2}]
    writeJson(os.path.join(folder, 'times.json'), [{**entry, **keys, 'device': 'CPU'} for entry, keys in zip(times, more)])
    assert runs.Run(folder).seconds() == parts


def report_on(made, tmp_path, data_dir):
    with layout.typography():
        return make_report.Report(made, data_dir, layout.Document(str(tmp_path / 'a.pdf'), '', ''))


def test_the_readme_gets_the_results_of_these_models(task_runs, tmp_path):
    readme = tmp_path / 'README.md'
    readme.write_text('a\n<!-- results -->\nold\n<!-- end of results -->\nå\n', encoding='utf-8')
    report = report_on(task_runs('', '', None, ''), tmp_path, str(tmp_path))
    for _ in range(2):
        report.updateReadme(str(readme))
        lines = readme.read_text(encoding='utf-8').split('\n')
        assert lines[:2] == ['a', '<!-- results -->'] and lines[-3:] == ['<!-- end of results -->', 'å', ''] and 'old' not in lines
        assert lines[2].startswith('|  | METEOR | METEOR held out |') and lines[4].startswith('| 1  one-layer RNN | 30.00 |  |')
        assert lines[6] == '| 3  two-layer LSTM |' + '  |' * 6 and len(lines) == 13
        assert lines[9].startswith('Tasks 1, 2 and 4: delivered with the package')


def test_a_model_whose_times_have_not_been_kept(task_runs, tmp_path, texts):
    report = report_on(task_runs('', None, None, None), tmp_path, str(tmp_path))
    report.timeTable()
    report.document.close()
    assert 'no times kept' in texts and texts.count('–') == 4


def test_the_demo_examples_come_from_the_attention_model(task_runs, tmp_path, monkeypatch):
    made, drawn = task_runs('', '', '', ''), []
    details = [{'imgPath': f'{number}.jpg', 'caption': f'caption {number}'} for number in range(7)]
    made[4].details = details
    monkeypatch.setattr(make_report, 'drawExamples', lambda examples, *more: drawn.append((list(examples), *more)))
    monkeypatch.setattr(make_report, 'openPicture', lambda data_dir, mode, name: f'picture of {name}')
    monkeypatch.setattr(make_report, 'isDemo', lambda data_dir: True)
    report_on(made, tmp_path, str(tmp_path)).drawExamples('demo_examples.png')
    examples = [(f'picture of {number}.jpg', details[number]) for number in range(examplePictures.EXAMPLES)]
    assert drawn == [(examples, examplePictures.ownCaptions(str(tmp_path)), 'demo_examples.png')]
    monkeypatch.setattr(make_report, 'openPicture', lambda *arguments: None)
    report_on(made, tmp_path, str(tmp_path)).drawExamples('demo_examples.png')
    assert len(drawn) == 1                                            # the pictures are not here: it stays as it is


def test_files_of_a_run_have_a_line_per_image(tmp_path):
    for value in ([{'image_id': 1, 'attention': [[.1, .9]] * 9}, {'image_id': 2}], {'loss': 1., 'of': [[1, .5]]}, [], {}):
        writeJson(str(tmp_path / 'a.json'), value)
        text = (tmp_path / 'a.json').read_text()
        assert json.loads(text) == value and len(text.split()) and len(text.strip().split('\n')) == max(len(value), 1) + 2


def test_a_box_as_high_as_the_image_is_outlined_within_it(monkeypatch):
    monkeypatch.setattr(pictures, 'openPicture', lambda *arguments: Image.new('RGB', (240, 180), (200, 200, 200)))
    axes = Figure().add_axes([0, 0, 1, 1])
    image = {'imgPath': '1.jpg', 'boxes': [[120, 0, 240, 180], [0, 0, 60, 60]]}
    pictures._drawAttended(axes, image, '', np.array([.75, .25]))
    for patch in axes.patches:
        assert 119 < patch.get_x() < 121 and 236 < patch.get_x() + patch.get_width() < 239
        assert 0 < patch.get_y() < 3 and 176 < patch.get_y() + patch.get_height() < 179
    light = axes.images[0].get_array()[:, :, 0]
    assert [int(light[y, x]) for x, y in ((200, 90), (30, 30), (30, 90))] == [200, 100, 50]
    assert len(axes.patches) == 2


def test_lines_break_at_spaces_where_the_width_ends():
    lines = wrapped('one two three\u00a0four five\nsix', 50, 10)
    assert [line.replace('\u00a0', ' ') for line in lines] == ['one two', 'three four', 'five', 'six']
    assert wrapped('', 50, 10) == ['']
