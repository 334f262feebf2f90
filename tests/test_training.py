"""Whole runs on a tiny data set: what they leave, how they go on, and what they refuse."""
import errno
import functools
import os
import pathlib
import pickle
import pickletools
import shutil
import zipfile

import numpy as np
import pytest
import torch
from conftest import CAPTIONS

from cocoSource_task2_gru import ImageCaptionModel as GruModel
from cocoSource_task4_attention import ImageCaptionModel as AttentionModel
from utils import metrics
from utils.data import imageFiles
from utils.data.captionWords import captionOf
from utils.data.dataFolder import POOLED, UNPOOLED, featureFile
from utils.files.errors import UserError
from utils.files.ownFiles import lockFolder, readJson, runFolder, writePickle
from utils.files.safePickle import loadPickle
from utils.model import Model, chooseDevice
from utils.processes.java import JavaError
from utils.trainer import train
from utils.validate import restoredModel
from utils.validate_metrics import CaptionValidator, teacherForcedLoss, validateCaptions

pytestmark = pytest.mark.usefixtures('shared_meteor')


def fileOf(trainer, name):
    return pathlib.Path(runFolder(trainer.modelParam), name)


def read(trainer, name):
    return readJson(fileOf(trainer, name), None)


def checkpoints(trainer):
    return sorted(name for name in os.listdir(fileOf(trainer, '')) if name.endswith('.pt'))


def weights(trainer):
    return torch.nn.utils.parameters_to_vector(trainer.model.net.parameters())


def trainUpTo(epoch, trainer):
    """Trains until the checkpoint of an epoch is written, and leaves the run there."""
    trainer.epochs = epoch
    trainer.train()


def check_resumed(make, epoch=1, interrupt=trainUpTo):
    """That a training left after an epoch comes to what a whole one does, which is returned.

    Args:
        make: a function that makes the trainer, with other settings if it is given some.
        interrupt: a function of epoch and trainer, which trains as far as that.
    """
    whole = make()
    whole.train()
    again = functools.partial(make, modelsDir=whole.modelParam['modelsDir'] + 'again')
    interrupt(epoch, again())
    resumed = again()
    assert resumed.model.start_epoch == epoch
    resumed.train()
    assert torch.equal(weights(resumed), weights(whole))
    assert read(resumed, 'history.json') == read(whole, 'history.json')
    assert resumed.saveRestorer.best == whole.saveRestorer.best
    return whole


def test_training_opens_no_pickle_of_a_checked_file(new_trainer, monkeypatch):
    trainer = new_trainer(numbOfEpochs=1, selfCriticalEpochs=1)
    monkeypatch.setattr(imageFiles, 'RestrictedUnpickler', None)
    trainer.dataLoader.trainingStatistics()
    trainer.rewards = trainer.dataLoader.captionRewards()
    for mode, epoch in (('train', 1), ('val', 1), ('train', 2)):
        assert trainer.run_epoch(mode, trainer.model, mode == 'train', epoch) >= 0


def test_what_each_epoch_learns(new_trainer, monkeypatch):
    """Other captions in another order, with other dropout; a self-critical one without, and with a
    new optimizer."""
    seen, learn = [], Model.learn

    def watched(model, batch, words):
        seen.append([model.net.training, bool(model.optimizer.state), batch['imgPaths'],
                     torch.initial_seed()])
        return learn(model, batch, words)

    monkeypatch.setattr(Model, 'learn', watched)
    trainer = new_trainer(numbOfEpochs=2, selfCriticalEpochs=1, weight_decay=.1)
    trainer.train()
    training, begun, paths, seeds = zip(*seen)
    assert training == (True,) * 6 + (False,) * 3
    assert begun == (False,) + (True,) * 5 + (False,) + (True,) * 2
    assert paths[:3] != paths[3:6] and len(set(seeds)) == 3
    optimizer = trainer.model.optimizer
    assert type(optimizer) is torch.optim.AdamW and optimizer.defaults['weight_decay'] == .1
    other = new_trainer(modelName='m2/', learningRate={'lr': 1, 'weight_decay': 2})
    assert other.model.optimizer.defaults['weight_decay'] == 2


def test_a_run_leaves_what_the_readme_says_and_is_kept(new_trainer, capsys):
    make = functools.partial(new_trainer, learningRate={'lr': 0.1})
    trainer = make(curves=True, wordy=True)
    trainer.train()
    history = read(trainer, 'history.json')
    assert [entry['epoch'] for entry in history] == [1, 2, 3]
    assert {'train_loss', 'val_loss', 'meteor', 'bleu_4'} <= set(history[0])
    # milestones count epochs
    assert [round(entry['learning_rate'], 4) for entry in history] == [0.1, 0.1, 0.02]
    times = read(trainer, 'times.json')
    assert [entry['epoch'] for entry in times] == [1, 2, 3]
    assert set(times[0]) == {'epoch', 'training_seconds', 'validation_seconds', 'scoring_seconds',
                             'device'}
    results = read(trainer, 'captions_epoch3.json')
    assert [result['image_id'] for result in results] == list(range(10, 15))
    best = max(history, key=lambda entry: entry['meteor'])['epoch']
    assert checkpoints(trainer) == [f'best_epoch{best}.pt', 'last_epoch3.pt'] and best > 1
    assert os.path.getsize(os.path.join(trainer.modelParam['img_dir'], 'm', 'curves.png')) > 10000
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if line.startswith('epoch')]
    assert len(lines) == 3 and all('METEOR' in line and 'BLEU-4' in line for line in lines)
    assert f'The best METEOR is that of epoch {best}; ' in out
    assert 'Beyond' not in out and 'without effect' not in out and 'self-critical' not in out

    path = fileOf(trainer, 'last_epoch3.pt')
    written = path.stat().st_mtime_ns
    for again in (trainer, make()):
        again.train()
        assert 'All 3 epochs are done.' in capsys.readouterr().out
    assert path.stat().st_mtime_ns == written


def test_a_checkpoint_is_read_by_every_torch(new_trainer):
    """That of 2.0 to 2.3 reads no other classes than these."""
    trainer = new_trainer(numbOfEpochs=1)
    trainer.train()
    with zipfile.ZipFile(fileOf(trainer, 'last_epoch1.pt')) as archive:
        name, = (name for name in archive.namelist() if name.endswith('data.pkl'))
        asked = {argument for opcode, argument, _ in pickletools.genops(archive.read(name))
                 if opcode.name in ('GLOBAL', 'STACK_GLOBAL')}
    assert asked == {'collections OrderedDict', 'torch._utils _rebuild_tensor_v2',
                     'torch FloatStorage'}


@pytest.mark.parametrize('best', [1, 2])
def test_a_training_says_what_is_special_about_it(best, new_trainer, capsys, monkeypatch):
    meteors = iter([.3, .2, .1] if best == 1 else [.1, .3, .2])
    monkeypatch.setattr(CaptionValidator, 'score',
                        lambda *_: {'meteor': next(meteors), 'bleu_4': 0, 'cider': 0})
    new_trainer(numbOfEpochs=1, selfCriticalEpochs=2, learningRecipe='informedStart',
                scheduler_milestones=[1, 2]).train()
    out = capsys.readouterr().out
    assert ("Beyond the assignment: learningRecipe 'informedStart', epochs 2–3 of 3 "
            'self-critical (CIDEr-D + METEOR).\n') in out
    assert "config['scheduler_milestones'] without effect: 1, 2." in out
    assert f'The best METEOR is that of epoch {best};' in out
    assert ('has not learned from them' in out) == (best == 1)


def test_a_changed_configuration_is_named_and_can_be_forced(new_trainer):
    new_trainer(numbOfEpochs=2).train()
    changed = {'learningRate': {'lr': 0.004}}
    said = (r"config\['learningRate'\] was .*0\.01.* and is .*0\.004.*"
            r"go on with these by modelParam\['restoreModelLast'\] = 1")
    with pytest.raises(UserError, match=said):
        new_trainer(numbOfEpochs=2, **changed)
    said = r"config\['hidden_state_sizes'\] was 12 and is 13.*or change modelParam\['modelName'\]\."
    with pytest.raises(UserError, match=said):
        new_trainer(numbOfEpochs=2, hidden_state_sizes=13)  # whose weights could not go on
    with pytest.raises(UserError, match=r"modelParam\['numbOfEpochs'\] was 2 and is 3"):
        new_trainer()
    trainer = new_trainer(restoreModelLast=1, **changed)
    trainer.train()
    assert [entry['epoch'] for entry in trainer.model.history] == [1, 2, 3]
    # the milestone after epoch 2 is past
    assert trainer.model.history[-1]['learning_rate'] == pytest.approx(0.004 * 0.2)


def test_a_checkpoint_that_cannot_be_used_ends_in_a_sentence(new_trainer, validation_param):
    """A training's and a validation's."""
    make = functools.partial(new_trainer, numbOfEpochs=1)
    trainer = make()
    trainer.train()
    with pytest.raises(UserError, match='does not fit this network.*12'):
        make(hidden_state_sizes=13, restoreModelLast=1)
    path = fileOf(trainer, 'last_epoch1.pt')
    good = torch.load(path)
    weights = good['model_state_dict']

    def check(said, modes=('train', 'val'), **changes):
        torch.save({key: value for key, value in {**good, **changes}.items() if value is not None},
                   path)
        for mode in modes:
            with pytest.raises(UserError, match=rf'last_epoch1\.pt {said}'):
                if mode == 'train':
                    make()
                else:
                    restoredModel({**validation_param, 'restoreModelLast': 1}, GruModel)

    check('was trained with another vocabulary', vocabulary='other')
    check(r"cannot be used: config\['cellType'\] is missing", config={'num_rnn_layers': 2})
    check('cannot be used: some of its weights are not finite',
          model_state_dict={**weights, 'output_layer.bias': weights['output_layer.bias'] / 0})
    check('cannot be used: AttributeError', feature_mean='ragged')
    check("cannot be used: it has no 'optimizer_state_dict'", ['train'], optimizer_state_dict=None)
    check("cannot be used: TypeError: 'int' object is not iterable", ['train'], history=5)
    check('cannot be used: AttributeError', ['train'], modelParam='ragged')
    for data in (b'', pickle.dumps({'epoch': 1}, 2)):
        path.write_bytes(data)
        with pytest.raises(UserError, match=r'last_epoch1\.pt cannot be used: .* Move it away'):
            make()
    path.unlink()  # the best one is still there
    trainer = make(numbOfEpochs=2, restoreModelLast=1)
    assert (trainer.model.start_epoch, trainer.saveRestorer.best['epoch']) == (1, 1)
    torch.save(good, path)
    fileOf(trainer, 'best_epoch1.pt').unlink()  # and so is the last one
    scores = fileOf(trainer, 'scores_validation.json')
    scores.write_text('{"epoch": 2}')           # of another model
    trainer = make(numbOfEpochs=2, restoreModelLast=1)
    trainer.train()
    assert checkpoints(trainer) == ['best_epoch2.pt', 'last_epoch2.pt'] and not scores.exists()


def test_validation_takes_every_size_from_the_checkpoint(new_trainer, validation_param):
    trainer = new_trainer(wordy=True)
    trainer.train()
    model, loader = restoredModel(validation_param, GruModel)
    assert not model.net.training and not hasattr(model, 'optimizer')
    assert set(loader.myDataDicts) == {'val'}
    scores = validateCaptions(model, validation_param, model.config, loader)
    best = max(read(trainer, 'history.json'), key=lambda entry: entry['meteor'])
    for key in ('meteor', 'bleu_1', 'bleu_2', 'bleu_3', 'bleu_4', 'cider', 'rouge'):
        assert scores[key] == best[key] > 0
    assert abs(scores['loss'] - best['val_loss']) < 1e-5
    captions = read(trainer, f"captions_epoch{best['epoch']}.json")
    assert read(trainer, 'captions_validation.json') == captions


def test_details_of_the_validation_images(new_trainer, running_meteor):
    """Captions as scored, references, a row of attention per word, the boxes of the file."""
    trainer = new_trainer(AttentionModel, wordy=True)
    path = featureFile(trainer.modelParam['data_dir'], 'val', UNPOOLED, '000000000010')
    boxes = np.arange(40, dtype=np.float32).reshape(10, 4)
    writePickle(path, {**loadPickle(path), 'boxes': boxes})
    scores = validateCaptions(trainer.model, trainer.modelParam, trainer.config,
                              trainer.dataLoader)
    details = read(trainer, 'details_validation.json')
    captions = [{key: detail[key] for key in ('image_id', 'caption')} for detail in details]
    assert captions == read(trainer, 'captions_validation.json')
    for detail in details:
        words = detail['caption'].split()
        assert 20 < len(words) <= 40 and len(detail['attention']) == len(words)
        assert detail['references'] == CAPTIONS[detail['image_id'] % len(CAPTIONS)]
        assert all(len(row) == 10 and abs(sum(row) - 1) < 0.01 for row in detail['attention'])
    assert details[0]['boxes'][1] == [4, 5, 6, 7] and 'boxes' not in details[1]
    references = metrics.tokenize({detail['image_id']: detail['references'] for detail in details})
    captions = metrics.tokenize({detail['image_id']: [detail['caption']] for detail in details})
    meteors = [detail['meteor'] for detail in details]
    assert (scores['meteor'], meteors) == running_meteor.compute_score(references, captions)
    assert scores['meteor'] > 0


def test_attention_over_a_caption_is_that_of_its_making(new_trainer):
    """What the attention layer says at each word while the model makes them."""
    trainer, made = new_trainer(AttentionModel, wordy=True), []
    net = trainer.model.net.eval()
    torch.nn.init.normal_(net.attention_layer[3].weight)
    net.attention_layer.register_forward_hook(lambda layer, states, weights: made.append(weights))
    batch = next(iter(trainer.dataLoader.myDataDicts['val']))
    tokens = trainer.model.greedyTokens(batch)
    expected = torch.stack(made, dim=1)  # [B, 40, 10]
    assert expected.std() > 0.01
    torch.testing.assert_close(trainer.model.attentionOver(batch, tokens), expected)


def test_losses_are_averaged_over_words_and_parts(new_trainer):
    """In parts of 4 words with the state carried, and image by image, the loss is the same."""
    parts, whole = (new_trainer(truncated_backprop_length=4),
                    new_trainer(modelName='other/', batch_size=1))
    whole.model.net.load_state_dict(parts.model.net.state_dict())
    losses = [teacherForcedLoss(trainer.model, trainer.dataLoader.myDataDicts['val'])
              for trainer in (parts, whole)]
    assert abs(losses[0] - losses[1]) < 1e-5


def test_tokens_are_scored_as_the_course_builds_them(new_trainer, model_param):
    loader = new_trainer().dataLoader
    validator = CaptionValidator(model_param, loader)
    assert len(list(validator.batches('captions'))) == 2
    raw = loader.myDataDicts['val'].dataset[0]['captionsAsTokens']
    references = validator.token_references
    assert references[10] == [' '.join(map(str, caption[1:-1])) for caption in raw]
    results = [{'image_id': image,
                'caption': captionOf(loader.vocabulary, list(map(int, captions[1].split())))}
               for image, captions in references.items()]
    assert validator.meteorOnTokens(results) == 1  # each caption is one of the references
    results[0]['caption'] = 'tree hot dog'         # of a house; words with a blank are split
    assert 0 < validator.meteorOnTokens(results) < .9


def test_features_of_another_task_are_named(course_folder, config, model_param):
    course_folder()
    for network, stub in ((GruModel, UNPOOLED), (AttentionModel, POOLED)):
        with pytest.raises(UserError, match=r"^config\['featurepathstub'\] must be 'detectron2_"):
            train({**config, 'featurepathstub': stub}, model_param, network)


def test_a_key_that_the_optimizer_lacks_is_named(new_trainer):
    rate = {'lr': .01, 'momentum': .9}
    assert new_trainer(optimizer='SGD', learningRate=rate)
    with pytest.raises(UserError, match=r"^config\['learningRate'\] cannot be used: .*momentum"):
        new_trainer(learningRate=rate)


def test_device(model_param, monkeypatch):
    param = {**model_param, 'cuda': {'use_cuda': True, 'device_idx': 5}}
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    with pytest.raises(UserError, match='numbered from 0 to 1'):
        chooseDevice(param)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert chooseDevice(param).type == 'cpu'


def test_a_loss_that_is_not_finite_stops_before_anything_is_lost(new_trainer):
    trainUpTo(1, new_trainer())
    trainer = new_trainer()
    trainer.model.net.output_layer.bias.data[3] = float('nan')
    with pytest.raises(UserError, match=r'nan in epoch 2, batch 1, images 0000000000'):
        trainer.train()
    assert checkpoints(trainer) == ['best_epoch1.pt', 'last_epoch1.pt']

    trainer = new_trainer(modelName='other/', batch_size=10)
    bias = trainer.model.net.output_layer.bias.data
    trainer.model.optimizer.step = lambda: bias.fill_(float('inf'))
    with pytest.raises(UserError, match='nan in the validation'):
        trainer.train()
    assert checkpoints(trainer) == []


def test_a_run_whose_folder_is_moved_away_leaves_the_new_one_alone(new_trainer):
    old = new_trainer()
    folder = runFolder(old.modelParam)
    lockFolder(folder)
    trainUpTo(1, old)
    os.rename(folder, f'{folder[:-1]}_old')
    new = new_trainer()
    pathlib.Path(folder, 'lock').touch()  # another process has it
    with pytest.raises(UserError, match='m/ was moved or removed .* without epoch 2'):
        trainUpTo(2, old)
    assert os.listdir(folder) == ['lock']
    lockFolder(folder)  # a new run in this process, as in a notebook
    trainUpTo(1, new)
    assert checkpoints(new) == ['best_epoch1.pt', 'last_epoch1.pt']


def test_a_full_disk_keeps_the_old_checkpoint(new_trainer, monkeypatch):
    """And the run goes on from it as if nothing had happened."""
    def full(descriptor, fsync=os.fsync):
        if os.readlink(f'/proc/self/fd/{descriptor}').endswith('_epoch2.pt'):
            raise OSError(errno.ENOSPC, 'No space left on device')
        fsync(descriptor)

    said = r'_epoch2\.pt cannot be written: No space left on device'

    def trainUntilFull(epoch, trainer):
        with monkeypatch.context() as patch, pytest.raises(UserError, match=said):
            patch.setattr(os, 'fsync', full)
            trainer.train()
        assert checkpoints(trainer) == ['best_epoch1.pt', 'last_epoch1.pt']

    check_resumed(new_trainer, interrupt=trainUntilFull)


def test_two_files_of_one_image_are_named(new_trainer, model_param):
    path, copy = (featureFile(model_param['data_dir'], 'val', POOLED, name)
                  for name in ('000000000011', 'copy'))
    shutil.copy(path, copy)
    with pytest.raises(UserError, match=r'copy\.pickle is of the image 11'):
        new_trainer().train()


def test_broken_times_are_named_before_an_epoch_is_lost(new_trainer, model_param):
    pathlib.Path(runFolder(model_param), 'times.json').write_text('[')
    with pytest.raises(UserError, match='times.json cannot be used: .* Move it away'):
        new_trainer()


@pytest.mark.parametrize('error', [JavaError('It is out of paper'), OSError('It cannot fork')])
def test_an_epoch_without_scores_is_saved_and_the_run_goes_on(error, new_trainer, monkeypatch,
                                                              capsys):
    score = CaptionValidator.score

    def fail(self, results):
        monkeypatch.setattr(CaptionValidator, 'score', score)
        raise error

    monkeypatch.setattr(CaptionValidator, 'score', fail)
    trainer = new_trainer(numbOfEpochs=2)
    trainer.train()
    first, second = read(trainer, 'history.json')
    assert 'meteor' not in first and first['val_loss'] > 0 and 'meteor' in second
    assert f'Epoch 1 has no scores. {error}' in capsys.readouterr().out
    assert checkpoints(trainer) == ['best_epoch2.pt', 'last_epoch2.pt']
