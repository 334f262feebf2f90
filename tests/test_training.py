"""Whole runs on a tiny data set: what they leave, how they go on, and what they refuse."""
import errno
import os
import pickle
import pickletools
import shutil
import zipfile
from unittest import mock

import numpy as np
import pytest
import torch
from conftest import CAPTIONS

import cocoSource_task2_gru
import cocoSource_task4_attention
from utils import metrics
from utils.data import imageFiles
from utils.data.captionWords import captionOf
from utils.dataLoader import DataLoaderWrapper
from utils.files.errors import UserError
from utils.files.ownFiles import readJson, runFolder, writePickle
from utils.files.safePickle import loadPickle
from utils.model import Model, chooseDevice
from utils.processes.java import JavaError
from utils.saverRestorer import SaverRestorer
from utils.trainer import Trainer
from utils.validate import restoredModel
from utils.validate_metrics import CaptionValidator, teacherForcedLoss, validateCaptions

pytestmark = pytest.mark.usefixtures('shared_meteor')


def build(config, model_param, image_caption_model=cocoSource_task2_gru.ImageCaptionModel,
          curves=False):
    """A trainer; without `curves` it draws none, which would take longer than its epochs."""
    loader = DataLoaderWrapper(config, model_param)
    loader.checkFiles()
    model = Model(loader.config, model_param, image_caption_model)
    saver = SaverRestorer(loader.config, model_param)
    saver.restore(model)
    trainer = Trainer(model, model_param, loader.config, loader, saver)
    if not curves:
        trainer.plotter = mock.Mock()
    return trainer


def read(model_param, name):
    return readJson(os.path.join(runFolder(model_param), name), None)


def checkpoints(model_param):
    names = os.listdir(os.path.join(model_param['modelsDir'], 'm'))
    return sorted(name for name in names if name.endswith('.pt'))


def weights(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.model.net.parameters()])


def trainUpTo(epoch, trainer):
    """Trains until the checkpoint of an epoch is written, as if the run was killed there."""
    save = trainer.saveRestorer.save

    class Killed(Exception):
        pass

    def killed(number, loss, model):
        save(number, loss, model)
        if number == epoch:
            raise Killed

    trainer.saveRestorer.save = killed
    with pytest.raises(Killed):
        trainer.train()


def check_resumed(make, model_param, epoch=1):
    """That a training killed after an epoch comes to what one left alone does; returns the latter.

    Args:
        make: a function of modelParam that makes the trainer.
    """
    whole = make(model_param)
    whole.train()
    param = {**model_param, 'modelsDir': model_param['modelsDir'] + 'again'}
    trainUpTo(epoch, make(param))
    resumed = make(param)
    assert resumed.model.start_epoch == epoch
    resumed.train()
    assert torch.equal(weights(resumed), weights(whole))
    assert read(param, 'history.json') == read(model_param, 'history.json')
    return whole


def test_training_opens_no_pickle_of_a_checked_file(course_folder, config, model_param,
                                                    monkeypatch):
    course_folder()
    trainer = build({**config, 'selfCriticalEpochs': 1}, {**model_param, 'numbOfEpochs': 1})
    monkeypatch.setattr(imageFiles, 'RestrictedUnpickler', None)
    trainer.dataLoader.trainingStatistics()
    trainer.rewards = trainer.dataLoader.captionRewards()
    for mode, epoch in (('train', 1), ('val', 1), ('train', 2)):
        assert trainer.run_epoch(mode, trainer.model, mode == 'train', epoch) >= 0


def test_what_each_epoch_learns(course_folder, config, model_param, monkeypatch):
    """Other captions in another order, with dropout; a self-critical one without, and with a new
    optimizer."""
    course_folder()
    seen, learn = [], Model.learn

    def watched(model, batch, words):
        seen.append([model.net.training, bool(model.optimizer.state), batch['imgPaths']])
        return learn(model, batch, words)

    monkeypatch.setattr(Model, 'learn', watched)
    trainer = build({**config, 'weight_decay': .1, 'selfCriticalEpochs': 1},
                    {**model_param, 'numbOfEpochs': 2})
    trainer.train()
    training, begun, paths = zip(*seen)
    assert training == (True,) * 6 + (False,) * 3
    assert begun == (False,) + (True,) * 5 + (False,) + (True,) * 2
    assert paths[:3] != paths[3:6]
    optimizer = trainer.model.optimizer
    assert type(optimizer) is torch.optim.AdamW and optimizer.defaults['weight_decay'] == .1


def wordy(trainer):
    """A trainer whose network does not end every caption at once."""
    trainer.model.net.output_layer.bias.data[0] = -2
    return trainer


def test_a_run_leaves_what_the_readme_says_and_is_kept(course_folder, config, model_param, capsys):
    course_folder()
    config = {**config, 'learningRate': {'lr': 0.03}}
    trainer = wordy(build(config, model_param, curves=True))
    trainer.train()
    history = read(model_param, 'history.json')
    assert [entry['epoch'] for entry in history] == [1, 2, 3]
    assert {'train_loss', 'val_loss', 'meteor', 'bleu_4'} <= set(history[0])
    # milestones count epochs
    assert [round(entry['learning_rate'], 4) for entry in history] == [0.03, 0.03, 0.006]
    assert [entry['epoch'] for entry in read(model_param, 'times.json')] == [1, 2, 3]
    results = read(model_param, 'captions_epoch3.json')
    assert [result['image_id'] for result in results] == list(range(10, 15))
    best = max(history, key=lambda entry: entry['meteor'])['epoch']
    assert checkpoints(model_param) == [f'best_epoch{best}.pt', 'last_epoch3.pt'] and best > 1
    assert os.path.getsize(os.path.join(model_param['img_dir'], 'm', 'curves.png')) > 10000
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if line.startswith('epoch')]
    assert len(lines) == 3 and all('METEOR' in line and 'BLEU-4' in line for line in lines)
    assert f'The best METEOR is that of epoch {best}; ' in out
    assert 'Beyond' not in out and 'Milestone' not in out and 'self-critical' not in out

    path = os.path.join(model_param['modelsDir'], 'm', 'last_epoch3.pt')
    written = os.path.getmtime(path)
    for again in (trainer, build(config, model_param)):
        again.train()
        assert 'All 3 epochs are done.' in capsys.readouterr().out
    assert os.path.getmtime(path) == written


def test_a_checkpoint_is_read_by_every_torch(course_folder, config, model_param):
    """That of 2.0 to 2.3 reads no other classes than these."""
    course_folder()
    trainUpTo(1, build(config, model_param))
    with zipfile.ZipFile(os.path.join(runFolder(model_param), 'last_epoch1.pt')) as archive:
        name, = (name for name in archive.namelist() if name.endswith('data.pkl'))
        asked = {argument for opcode, argument, _ in pickletools.genops(archive.read(name))
                 if opcode.name in ('GLOBAL', 'STACK_GLOBAL')}
    assert asked == {'collections OrderedDict', 'torch._utils _rebuild_tensor_v2',
                     'torch FloatStorage'}


@pytest.mark.parametrize('best', [1, 2])
def test_a_training_says_what_is_special_about_it(best, course_folder, config, model_param, capsys,
                                                  monkeypatch):
    course_folder()
    config = {**config, 'learningRecipe': 'informedStart', 'selfCriticalEpochs': 2,
              'scheduler_milestones': [1, 2]}
    meteors = iter([.3, .2, .1] if best == 1 else [.1, .3, .2])
    monkeypatch.setattr(CaptionValidator, 'score',
                        lambda *_: {'meteor': next(meteors), 'bleu_4': 0, 'cider': 0})
    build(config, {**model_param, 'numbOfEpochs': 1}).train()
    out = capsys.readouterr().out
    assert ("Beyond the assignment: learningRecipe 'informedStart', epochs 2–3 of 3 "
            'self-critical (CIDEr-D + METEOR).\n') in out
    assert "Never reached of config['scheduler_milestones']: 1, 2." in out
    assert f'The best METEOR is that of epoch {best};' in out
    assert ('has not learned from them' in out) == (best == 1)


def test_a_changed_configuration_is_named_and_can_be_forced(course_folder, config, model_param):
    course_folder()
    build(config, {**model_param, 'numbOfEpochs': 2}).train()
    changed = {**config, 'learningRate': {'lr': 0.004}}
    forced = {**model_param, 'restoreModelLast': 1}
    said = (r"config\['learningRate'\] was .*0\.01.* and is .*0\.004.*"
            r"go on with these by modelParam\['restoreModelLast'\] = 1")
    with pytest.raises(UserError, match=said):
        build(changed, {**model_param, 'numbOfEpochs': 2})
    larger = {**config, 'hidden_state_sizes': 13}  # whose weights could not go on
    said = r"config\['hidden_state_sizes'\] was 12 and is 13.*or change modelParam\['modelName'\]\."
    with pytest.raises(UserError, match=said):
        build(larger, {**model_param, 'numbOfEpochs': 2})
    with pytest.raises(UserError, match=r"modelParam\['numbOfEpochs'\] was 2 and is 3"):
        build(config, model_param)
    trainer = build(changed, forced)
    trainer.train()
    assert [entry['epoch'] for entry in trainer.model.history] == [1, 2, 3]
    # the milestone after epoch 2 is past
    assert trainer.model.history[-1]['learning_rate'] == pytest.approx(0.004 * 0.2)


def test_what_does_not_fit_is_refused(course_folder, config, model_param):
    course_folder()
    param = {**model_param, 'numbOfEpochs': 1}
    build(config, param).train()
    with pytest.raises(UserError, match='does not fit this network.*12'):
        build({**config, 'hidden_state_sizes': 13}, {**param, 'restoreModelLast': 1})
    path = os.path.join(model_param['modelsDir'], 'm', 'last_epoch1.pt')
    torch.save({**torch.load(path), 'vocabulary': 'other'}, path)
    with pytest.raises(UserError, match='another vocabulary'):
        build(config, param)
    for data in (b'', pickle.dumps({'epoch': 1}, 2)):
        with open(path, 'wb') as f:
            f.write(data)
        with pytest.raises(UserError, match=r'last_epoch1\.pt cannot be used'):
            build(config, param)


def test_a_broken_checkpoint_ends_training_and_validation_in_a_sentence(course_folder, config,
                                                                        model_param):
    course_folder()
    build(config, {**model_param, 'numbOfEpochs': 1}).train()
    path = os.path.join(model_param['modelsDir'], 'm', 'last_epoch1.pt')
    good = torch.load(path)
    weights = good['model_state_dict']
    validation = {**model_param, 'inference': True, 'restoreModelLast': 1,
                  'modeSetups': [['val', False]]}

    def broken(said, modes=('train', 'val'), **changes):
        torch.save({key: value for key, value in {**good, **changes}.items() if value is not None},
                   path)
        for mode in modes:
            with pytest.raises(UserError, match=rf'last_epoch1\.pt cannot be used: {said}'):
                if mode == 'train':
                    build(good['config'], {**model_param, 'numbOfEpochs': 1})
                else:
                    restoredModel(validation, cocoSource_task2_gru.ImageCaptionModel)

    broken(r"config\['cellType'\] is missing", config={'num_rnn_layers': 2})
    broken('some of its weights are not finite',
           model_state_dict={**weights, 'output_layer.bias': weights['output_layer.bias'] / 0})
    broken('AttributeError', feature_mean='ragged')
    broken("it has no 'optimizer_state_dict'", modes=['train'], optimizer_state_dict=None)
    broken("TypeError: 'int' object is not iterable", modes=['train'], history=5)


def test_validation_takes_every_size_from_the_checkpoint(course_folder, config, model_param):
    course_folder()
    wordy(build(config, model_param)).train()
    param = {**model_param, 'inference': True, 'modeSetups': [['val', False]]}
    model, loader = restoredModel(param, cocoSource_task2_gru.ImageCaptionModel)
    assert not hasattr(model, 'optimizer') and set(loader.myDataDicts) == {'val'}
    scores = validateCaptions(model, param, model.config, loader)
    best = max(read(model_param, 'history.json'), key=lambda entry: entry['meteor'])
    for key in ('meteor', 'bleu_1', 'bleu_2', 'bleu_3', 'bleu_4', 'cider', 'rouge'):
        assert scores[key] == best[key] > 0
    assert abs(scores['loss'] - best['val_loss']) < 1e-5
    captions = read(model_param, f"captions_epoch{best['epoch']}.json")
    assert read(model_param, 'captions_validation.json') == captions


def test_details_of_the_validation_images(course_folder, config, model_param, running_meteor):
    """Captions as scored, references, a row of attention per word, the boxes of the file."""
    root = course_folder()
    path = os.path.join(root, 'Val2017_detectron2_lim10features', f'{10:012d}.pickle')
    boxes = np.arange(40, dtype=np.float32).reshape(10, 4)
    writePickle(path, {**loadPickle(path), 'boxes': boxes})
    config = {**config, 'featurepathstub': 'detectron2_lim10features', 'cellType': 'LSTM'}
    trainer = build(config, model_param, cocoSource_task4_attention.ImageCaptionModel)
    with torch.no_grad():
        trainer.model.net.output_layer.bias[0] = -9  # never the end: captions of 40 words
    scores = validateCaptions(trainer.model, model_param, config, trainer.dataLoader)
    details = read(model_param, 'details_validation.json')
    captions = [{key: detail[key] for key in ('image_id', 'caption')} for detail in details]
    assert captions == read(model_param, 'captions_validation.json')
    for detail in details:
        words = detail['caption'].split()
        assert 20 < len(words) <= 40 and len(detail['attention']) == len(words)
        assert detail['references'] == CAPTIONS[detail['image_id'] % len(CAPTIONS)]
        assert all(len(row) == 10 and abs(sum(row) - 1) < 0.01 for row in detail['attention'])
    assert details[0]['boxes'][1] == [4, 5, 6, 7] and 'boxes' not in details[1]
    references, captions = (
        metrics.tokenize({detail['image_id']: texts(detail) for detail in details})
        for texts in (lambda detail: detail['references'], lambda detail: [detail['caption']]))
    meteors = [detail['meteor'] for detail in details]
    assert (scores['meteor'], meteors) == running_meteor.compute_score(references, captions)
    assert scores['meteor'] > 0


def test_attention_over_a_caption_is_that_of_its_making(course_folder, config, model_param):
    """Step by step through the cell, the attention of each word as the model makes it."""
    course_folder()
    config = {**config, 'featurepathstub': 'detectron2_lim10features', 'cellType': 'LSTM'}
    trainer = build(config, model_param, cocoSource_task4_attention.ImageCaptionModel)
    net = trainer.model.net.eval()
    torch.nn.init.normal_(net.attention_layer[3].weight)
    batch = next(iter(trainer.dataLoader.myDataDicts['val']))
    tokens = trainer.model.greedyTokens(batch)
    attention = trainer.model.attentionOver(batch, tokens)
    assert attention.shape == (len(tokens), len(tokens[0]), 10) and attention.std() > 0.01
    words = torch.cat([batch['xTokens'][:, :1, 0], torch.tensor(tokens)], dim=1)
    with torch.no_grad():
        image = net.process_features(batch['cnn_features'])
        state = torch.zeros(len(image), 2 * config['hidden_state_sizes'])
        for step in range(len(tokens[0])):
            word = net.embedding_layer(words[:, step])
            state = net.rnn.cells[0](torch.cat([word, image.max(dim=2).values], dim=1), state)
            torch.testing.assert_close(attention[:, step], net.attention_layer(state))


def test_losses_are_averaged_over_words_and_parts(course_folder, config, model_param):
    """In parts of 4 words with the state carried, and image by image, the loss is the same."""
    course_folder()
    trainer = build({**config, 'truncated_backprop_length': 4}, model_param)
    loss = teacherForcedLoss(trainer.model, trainer.dataLoader.myDataDicts['val'])
    whole = build(config, {**model_param, 'modelName': 'other/', 'batch_size': 1})
    whole.model.net.load_state_dict(trainer.model.net.state_dict())
    assert abs(teacherForcedLoss(whole.model, whole.dataLoader.myDataDicts['val']) - loss) < 1e-5


def test_tokens_are_scored_as_the_course_builds_them(course_folder, model_param, config):
    course_folder()
    loader = DataLoaderWrapper(config, model_param)
    validator = CaptionValidator(model_param, loader)
    assert len(list(validator.batches('captions'))) == 2
    raw = loader.myDataDicts['val'].dataset[0]['captionsAsTokens']
    references = validator.token_references
    assert references[10] == [' '.join(map(str, caption[1:-1])) for caption in raw]
    results = [{'image_id': image,
                'caption': captionOf(loader.vocabulary, list(map(int, captions[1].split())))}
               for image, captions in references.items()]
    assert validator.meteorOnTokens(results) == 1  # each caption is one of the references
    results[0]['caption'] = 'tree'                 # of a house
    assert 0 < validator.meteorOnTokens(results) < .9


def test_device(model_param, monkeypatch):
    param = {**model_param, 'cuda': {'use_cuda': True, 'device_idx': 5}}
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    with pytest.raises(UserError, match='numbered from 0 to 1'):
        chooseDevice(param)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert chooseDevice(param).type == 'cpu'


def test_a_loss_that_is_not_finite_stops_before_anything_is_lost(course_folder, config,
                                                                 model_param):
    course_folder()
    trainUpTo(1, build(config, model_param))
    trainer = build(config, model_param)
    with torch.no_grad():
        trainer.model.net.output_layer.bias[3] = float('nan')
    with pytest.raises(UserError, match=r'nan in epoch 2, batch 1, images 0000000000'):
        trainer.train()
    assert checkpoints(model_param) == ['best_epoch1.pt', 'last_epoch1.pt']

    param = {**model_param, 'modelsDir': model_param['modelsDir'] + 'other', 'batch_size': 10}
    trainer = build(config, param)
    bias = trainer.model.net.output_layer.bias.data
    trainer.model.optimizer.step = lambda: bias.fill_(float('inf'))
    with pytest.raises(UserError, match='nan in the validation'):
        trainer.train()
    assert checkpoints(param) == []


def test_a_full_disk_keeps_the_old_checkpoint(course_folder, config, model_param, monkeypatch):
    """And the run goes on from it as if nothing had happened."""
    course_folder()
    trainUpTo(1, build(config, model_param))
    trainer = build(config, model_param)
    fsync = os.fsync

    def full(descriptor):
        if os.readlink(f'/proc/self/fd/{descriptor}').endswith('.pt'):
            raise OSError(errno.ENOSPC, 'No space left on device')
        fsync(descriptor)

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(UserError, match=r'_epoch2\.pt cannot be written: No space left on device'):
        trainer.train()
    monkeypatch.setattr(os, 'fsync', fsync)
    assert checkpoints(model_param) == ['best_epoch1.pt', 'last_epoch1.pt']
    resumed = build(config, model_param)
    assert resumed.model.start_epoch == 1
    resumed.train()
    whole = build(config, {**model_param, 'modelsDir': model_param['modelsDir'] + 'whole'})
    whole.train()
    assert torch.equal(weights(resumed), weights(whole))
    assert resumed.model.history == whole.model.history


def test_two_files_of_one_image_are_named(course_folder, config, model_param):
    root = course_folder()
    folder = os.path.join(root, 'Val2017_detectron2_lim10maxfeatures')
    shutil.copy(os.path.join(folder, f'{11:012d}.pickle'), os.path.join(folder, 'copy.pickle'))
    with pytest.raises(UserError, match=r'copy\.pickle is of the image 11'):
        build(config, model_param).train()


def test_broken_times_are_named_before_an_epoch_is_lost(course_folder, config, model_param):
    course_folder()
    with open(os.path.join(runFolder(model_param), 'times.json'), 'w') as f:
        f.write('[')
    with pytest.raises(UserError, match='times.json cannot be used: .* Move it away'):
        build(config, model_param)


def test_an_epoch_without_scores_is_saved_and_the_run_goes_on(course_folder, config, model_param,
                                                              monkeypatch, capsys):
    course_folder()
    score = CaptionValidator.score

    def fail(self, results):
        monkeypatch.setattr(CaptionValidator, 'score', score)
        raise JavaError('METEOR has ended. It said: out of paper')

    monkeypatch.setattr(CaptionValidator, 'score', fail)
    build(config, {**model_param, 'numbOfEpochs': 2}).train()
    first, second = read(model_param, 'history.json')
    assert 'meteor' not in first and first['val_loss'] > 0 and 'meteor' in second
    said = 'Epoch 1 stays without scores. METEOR has ended. It said: out of paper'
    assert said in capsys.readouterr().out
    assert checkpoints(model_param) == ['best_epoch2.pt', 'last_epoch2.pt']
