"""The report, the delivered models and the zip, from a tiny run."""
import os
import re
import shutil
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from leftovers import python
from PIL import Image

from cocoSource_task4_attention import ImageCaptionModel as AttentionModel
from report import deliver_models, make_report, make_zip, pictures, runs, story, submitter
from utils import saverRestorer
from utils.files.errors import UserError
from utils.files.ownFiles import PROJECT, inProject, readJson, writeJson
from utils.saverRestorer import loadForValidation, newestCheckpoint, readCheckpoint
from utils.validate import restoredModel
from utils.validate_metrics import validateCaptions

# what the attention says of two words, and the regions that it is over
LOOKED = {'boxes': [[10, 0, 20, 10], [0, 0, 5, 5]], 'attention': [[.75, .25], [.1, .9]]}


@pytest.fixture(autouse=True)
def delivered(tmp_path, monkeypatch, without_java):
    """The folder of delivered models, empty."""
    folder = str(tmp_path / 'delivered')
    for module in (saverRestorer, deliver_models, runs):
        monkeypatch.setattr(module, 'DELIVERED', folder)
    return folder


@pytest.fixture
def texts(monkeypatch):
    """The texts and the cells of the tables that are written into reports."""
    written = []

    def paragraph(text, *style, make=story.paragraph):
        written.append(' '.join(text.split()))
        return make(text, *style)

    def table(rows, make=story.Table, **style):
        written.extend(cell for row in rows for cell in row)
        return make(rows, **style)

    monkeypatch.setattr(story, 'paragraph', paragraph)
    monkeypatch.setattr(story, 'Table', table)
    monkeypatch.setattr(story, 'DPI', 30)
    return written


def scores_of(epoch, meteor):
    """As validation leaves them."""
    return {'epoch': epoch, 'meteor': meteor, 'meteor_tokens': .1, 'bleu_4': .1}


def write_run(folder, meteors=(.3,), references=('a',), trainedBy=None):
    """A `Run` whose last epoch is the best and has been validated."""
    os.makedirs(folder)
    best = len(meteors)
    history = [{'epoch': epoch, 'val_loss': 1., 'meteor': meteor, 'bleu_4': .1}
               for epoch, meteor in enumerate(meteors, 1)]
    config = {'num_rnn_layers': 1, 'cellType': 'RNN',
              'featurepathstub': 'detectron2_lim10maxfeatures'}
    checkpoint = {'epoch': best, 'model_state_dict': {}, 'modelParam': {}, 'config': config}
    if trainedBy:
        checkpoint['trainedBy'] = trainedBy
    torch.save(checkpoint, os.path.join(folder, f'best_epoch{best}.pt'))
    writeJson(os.path.join(folder, 'history.json'), history)
    writeJson(os.path.join(folder, 'details_validation.json'),
              [{'image_id': image, 'references': [text], 'caption': f'caption {image}',
                'meteor': .1, 'imgPath': f'{image}.jpg'}
               for image, text in enumerate(references)])
    writeJson(os.path.join(folder, 'scores_validation.json'), scores_of(best, meteors[-1]))
    return runs.Run(folder)


def test_scores_of_another_model_are_not_taken(tmp_path):
    run = write_run(str(tmp_path / 'm'), [.3, .4])
    assert run.scores['meteor'] == .4
    writeJson(os.path.join(run.folder, 'scores_validation.json'), scores_of(1, .4))
    assert not runs.Run(run.folder).scores and not runs.Run(run.folder).details


def test_deliver_then_validate_then_report(new_trainer, validation_param, delivered, tmp_path,
                                           texts, capsys, monkeypatch):
    trainer = new_trainer(AttentionModel, attention='content', numbOfEpochs=1, wordy=True)
    trainer.train()
    monkeypatch.setattr(submitter, 'SUBMITTER', 'Åse')
    own, _ = runs.ownAndDelivered(validation_param)
    checked = []
    with monkeypatch.context() as patch:
        for module in (runs, deliver_models):
            patch.setattr(module, 'TASKS', [4])
            patch.setattr(module, 'validationScript', lambda task: (
                SimpleNamespace(ImageCaptionModel=AttentionModel), validation_param))
        patch.setattr(make_report, 'main', runs.runsOfTasks)
        patch.setattr(make_zip, 'inProject', tmp_path.joinpath)
        patch.setattr(make_zip, 'writeZip', lambda project, path: path.touch())
        patch.setattr(make_zip, 'check', lambda *arguments: checked.append(arguments[1:]))
        make_zip.main()
    (task, handed_in), = checked
    assert task == 4 and handed_in.folder.startswith(delivered)
    assert 'weights in half precision, METEOR' in capsys.readouterr().out
    _, run = runs.ownAndDelivered(validation_param)
    assert sorted(os.listdir(run.folder)) == [
        f'best_epoch{own.epoch}.pt', 'captions_validation.json', 'details_validation.json',
        'history.json', 'scores_validation.json', 'times.json']
    assert os.listdir(delivered) == ['m']  # nothing partial is left
    assert run.history == own.history and run.epoch == own.epoch
    assert 'optimizer_state_dict' not in run.checkpoint
    weights = run.checkpoint['model_state_dict'].values()
    assert {w.dtype for w in weights if w.is_floating_point()} == {torch.float16}
    number = sum(parameter.numel() for parameter in trainer.model.net.parameters())

    # the own one is preferred
    assert loadForValidation(validation_param)['path'].startswith(own.folder)
    shutil.rmtree(own.folder)
    model, loader = restoredModel(validation_param, AttentionModel)
    assert f'Model, delivered: {run.folder}' in capsys.readouterr().out
    scores = validateCaptions(model, validation_param, loader.config, loader)
    assert {'epoch': own.epoch, **scores} == run.scores and scores['meteor'] > 0

    assert run.isOwn() and runs.isUpToDate(run, own)
    own.epoch += 1  # delivered while this one was being saved
    assert not runs.isUpToDate(run, own)
    own.epoch -= 1
    monkeypatch.setattr(submitter, 'SUBMITTER', 'Bo Li')  # who has been given the project by Åse
    assert not runs.isUpToDate(run, own)
    path = str(tmp_path / 'report.pdf')
    make_report.makeReport({2: run, 4: run}, validation_param['data_dir'], path)
    assert os.path.getsize(path) > 10000
    text = ' '.join(texts)
    for piece in ('Bo Li', 'Task 2: from Åse, not trained by the submitter.',
                  'Task 3: not trained on these data.', 'python Exercise_Train_task3.py', '1e-05',
                  '10 for training and 5 for validation', '25.7–26.0',
                  'python report/make_zip.py', 'learningRecipe',
                  f"{100 * scores['meteor']:.2f}", f'{number:,}'):
        assert piece in text, piece


def test_the_same_runs_give_the_same_report(tmp_path, texts):
    paths = [tmp_path / 'a.pdf', tmp_path / 'b.pdf']
    for path in paths:
        make_report.makeReport({}, str(tmp_path), str(path))
    for piece in ('python Exercise_Train_task3.py', 'no captions to show', 'no attention to show'):
        assert piece in ' '.join(texts), piece
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_report_on_the_demo_data_has_times_examples_and_attention(course_folder, tmp_path, texts,
                                                                    monkeypatch):
    run, untimed = (write_run(str(tmp_path / name), references='abcdef') for name in 'ab')
    run.times = [{'training_seconds': 30, 'scoring_seconds': 60, 'device': 'CPU'},
                 {'training_seconds': 50, 'validation_seconds': 100, 'scoring_seconds': 12,
                  'device': 'GPU'}]
    run.history[0]['reward'] = .5  # a third plot
    run.scores['meteor'] = .31     # in half precision
    run.details[3].update(caption='<b>two &', meteor=.2, **LOOKED)
    monkeypatch.setattr(make_report, 'isDemo', lambda data_dir: True)
    monkeypatch.setattr(pictures, 'openPicture', lambda *names: Image.new('RGB', (30, 20)))
    make_report.makeReport({1: untimed, 4: run}, course_folder(), str(tmp_path / 'report.pdf'))
    assert 'COCO was not used' in ' '.join(texts)
    assert 'Task 4: where the attention looks' in texts
    assert ['CIDEr-D + 8 · METEOR' in text for text in texts if 'Left: loss' in text] == [
        False, True]
    # one value of an epoch, that of the weights as they are saved
    assert texts.count('31.00') == 1 and texts.count('Best METEOR: 31.00 in epoch 1.') == 1
    assert '<b>two &' in texts  # no letter is markup
    times = texts.index('4  attention LSTM', texts.index('Time and hardware'))
    assert texts[times - 5:times + 5] == ['1  one-layer RNN', 'no times kept', '0', '0.0', '0.0',
                                          '4  attention LSTM', 'CPU\nGPU', '2', '3.0', '1.2']


def test_the_attention_is_drawn_as_boxes_or_is_a_table(tmp_path, texts):
    picture, boxes = Image.new('RGB', (30, 20)), LOOKED['boxes']
    figure = pictures.attentionFigure(picture, ['$a', 'b'], np.array(LOOKED['attention']), boxes)
    assert [axes.get_title() for axes in figure.axes] == ['$a  75\u00a0%', 'b  90\u00a0%']
    patches = figure.axes[0].patches
    assert [patch.get_bbox().extents.tolist() for patch in patches] == boxes
    assert [patch.get_alpha() for patch in patches] == pytest.approx([1, 1 / 3])
    run = write_run(str(tmp_path / 'm'))
    run.details[0].update(caption='two birds', **LOOKED)
    pictures.attentionPage(make_report.Story(), {4: run}, str(tmp_path))  # no such picture
    assert texts[-7:-1] == ['two', 'birds', '75', '10', '25', '90']


def test_readme_has_the_results_of_the_delivered_models():
    with open(inProject('README.md'), encoding='utf-8') as f:
        rows = re.findall(r'^\| \d .*', f.read(), re.MULTILINE)
    for row, name in zip(rows, ('task1_rnn', 'task2_gru', 'task3_lstm', 'task4_attention')):
        folder = inProject(f'report/models/{name}_demo')
        if 'trainedBy' in readCheckpoint(newestCheckpoint(folder, 'best')):
            pytest.skip('README is about the models that come with the package')
        scores = readJson(os.path.join(folder, 'scores_validation.json'), None)
        expected = [scores[key] for key in ('meteor', 'meteor_tokens', 'bleu_4', 'cider')]
        assert re.findall(r'\d+\.\d+', row) == [f'{100 * score:.2f}' for score in expected]
    assert len(rows) == 4


def test_the_zip_holds_what_is_handed_in_and_nothing_else(tmp_path):
    project = tmp_path / 'project'
    wanted = ['README.md', 'requirements.txt', 'cocoSource_xcnnfused.py', 'utils/scripts/start.py',
              'report/report.pdf', 'report/models/task1_rnn_demo/best_epoch3.pt',
              'report/models/task1_rnn_demo/history.json']
    unwanted = ['report/partial_x/m/best_epoch3.pt', '.git/config', '.netrc', 'token.txt',
                'demoData/val2017/1.jpg', 'storedModels/task1_rnn_demo/last_epoch3.pt',
                'utils/scripts/__pycache__/start.pyc', 'venv/lib/a.py', 'old.zip', 'nohup.out']
    for name in wanted + unwanted:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(name, encoding='utf-8')
    make_zip.writeZip(str(project), str(tmp_path / 'hand_in.zip'))
    with zipfile.ZipFile(tmp_path / 'hand_in.zip') as packed:
        assert sorted(packed.namelist()) == sorted(f'hand_in/{name}' for name in wanted)


def test_this_project_is_packed_whole():
    assert {'README.md', 'requirements.txt', '.pytest.ini', 'Validate_task1.py',
            'utils/model.py', 'utils/pages/captionPage.html', 'tests/conftest.py',
            'tests/tools/kills.py', 'report/NOTES.md', 'report/runs.py', 'report/report.pdf',
            'report/demo_examples.png'} <= set(make_zip.packedFiles(PROJECT))


def test_the_zip_checks_itself(tmp_path, capsys, monkeypatch):
    project, path = tmp_path / 'project', str(tmp_path / 'hand_in.zip')
    (project / 'utils').mkdir(parents=True)
    # own data: the path is relative to the project, not to the unzipped one
    (project / 'utils' / 'dataRoot.py').write_text("DATA_ROOT = 'ownData'")
    monkeypatch.setattr(make_zip, 'dataDir', lambda: '/project/ownData')
    (project / 'Validate_task1.py').write_text(
        "import json, os\n"
        "from utils.dataRoot import DATA_ROOT\n"
        "modelParam = {'modelsDir': '/elsewhere'}\n"
        "def main():\n"
        "    assert DATA_ROOT == '/project/ownData'\n"
        "    os.makedirs(os.path.join(modelParam['modelsDir'], 'm'))\n"
        "    with open('storedModels/m/scores_validation.json', 'w') as f:\n"
        f"        json.dump({scores_of(1, .3)}, f)\n"
        "def runScript(run):\n"
        "    run()\n", encoding='utf-8')
    run = write_run(str(tmp_path / 'm'))
    make_zip.writeZip(str(project), path)
    make_zip.check(path, 1, run)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == 'Running Validate_task1.py in an unzipped copy …'
    assert said[1].endswith('METEOR 0.3000, as in the report.')
    run.scores['meteor'] = .4
    with pytest.raises(UserError, match='METEOR 0.3000 where the report has 0.4'):
        make_zip.check(path, 1, run)
    (project / 'Validate_task1.py').write_text("raise SystemExit('broken')", encoding='utf-8')
    make_zip.writeZip(str(project), path)
    with pytest.raises(UserError, match='broken'):
        make_zip.check(path, 1, run)


def runs_by(trainers, tmp_path):
    """Runs of tasks by who has trained each: 'here', a name, '' for an unnamed one, or None."""
    made = {}
    for task, trainer in enumerate(trainers, 1):
        if trainer is not None:
            folder = tmp_path / ('models' if trainer == 'here' else 'delivered') / f'task{task}'
            made[task] = write_run(str(folder), trainedBy=trainer)
    return made


@pytest.mark.parametrize('name, trainers, refusal', [
    ('Your Name', ['here'], 'Put your name into report/submitter.py'),
    ('Åse', ['here', '', 'Bo', 'Åse'], 'models of tasks 2, 3 would not be yours. '
     '.* move away .*delivered.task2'),
    ('Åse  Øye', ['here', 'Åse  Øye', None, 'here'], None),
    ('/Åse Øye.', ['', ''], None)])  # the package as it is, marked in its report
def test_the_zip_asks_for_a_name_and_for_the_missing_models(name, trainers, refusal, tmp_path,
                                                            monkeypatch):
    monkeypatch.setattr(submitter, 'SUBMITTER', name)
    made = runs_by(trainers, tmp_path)
    if refusal is None:
        make_zip.checkReady(made)
        assert make_zip.zipName() == 'IN5400_exercise2_Åse_Øye.zip'
    else:
        with pytest.raises(UserError, match=refusal):
            make_zip.checkReady(made)


@pytest.mark.parametrize('text', ['SUBMITTER = Kari Nordmann', 'SUBMITTER = None', ''])
def test_a_name_that_is_none_ends_the_script_by_a_sentence(text, tmp_path):
    (tmp_path / 'report').mkdir()
    shutil.copy(os.path.join(PROJECT, 'report', '__init__.py'), tmp_path / 'report')
    (tmp_path / 'report' / 'submitter.py').write_text(text)
    done = python('-c', 'import report', cwd=tmp_path)
    assert done.stderr.startswith('report/submitter.py cannot be used: ') and done.returncode == 1


def test_a_delivery_that_fails_keeps_the_model(new_trainer, validation_param, delivered,
                                               monkeypatch):
    new_trainer(AttentionModel, numbOfEpochs=1).train()
    own, _ = runs.ownAndDelivered(validation_param)
    deliver_models.deliver(own, validation_param, AttentionModel)
    before = os.stat(os.path.join(delivered, 'm'))

    def replace(source, target, replace=os.replace):
        if target == os.path.join(delivered, 'm') and not source.endswith('replaced'):
            raise PermissionError
        replace(source, target)

    monkeypatch.setattr(os, 'replace', replace)
    with pytest.raises(PermissionError):
        deliver_models.deliver(own, validation_param, AttentionModel)
    assert os.path.samestat(os.stat(os.path.join(delivered, 'm')), before)


def test_whose_the_models_are(tmp_path, monkeypatch):
    monkeypatch.setattr(submitter, 'SUBMITTER', 'Åse')
    made = runs_by(['here', '', None, 'Åse'], tmp_path)
    made[4].scores = {}
    assert runs.stateOf(made) == [
        'Task 1: trained by Åse.',
        'Task 2: from the package, not trained by the submitter.',
        'Task 3: not trained on these data.',
        'Task 4: trained by Åse; not validated yet, which python Validate_task*.py does.']
    monkeypatch.setattr(submitter, 'SUBMITTER', runs.UNNAMED)
    assert runs.stateOf(made)[:3] == [
        'Put your name into report/submitter.py.', 'Task 1: trained here.',
        'Task 2: from the package, not trained by the submitter.']
    assert not runs.isUpToDate(made[2], made[1])  # even where it is the same training


def test_without_a_run_there_is_nothing_to_report_and_no_file_is_touched(model_param, monkeypatch):
    monkeypatch.setattr(runs, 'validationScript', lambda task: (None, model_param))
    monkeypatch.setattr(submitter, 'SUBMITTER', 'Åse')
    for module in (make_report, make_zip):
        monkeypatch.setattr(module, 'writeAtomically', None)  # nothing is written
        with pytest.raises(UserError, match='no model has been .*Exercise_Train_task1.py'):
            module.main()
