"""Whole runs on a tiny data set: what they leave, how they go on, and what they refuse."""
import errno
import json
import os
import pickle
import shutil
from unittest import mock

import numpy as np
import pytest
import torch
from conftest import CAPTIONS, D, write_pickle

import cocoSource_task2_gru
import cocoSource_task3_lstm
import cocoSource_task4_attention
from utils import model as model_module
from utils.dataLoader import DataLoaderWrapper
from utils.files.errors import UserError
from utils.model import Model
from utils.processes.java import JavaError
from utils.saverRestorer import SaverRestorer, loadForValidation
from utils.trainer import Trainer
from utils.validate import plotImagesAndCaptions
from utils.validate_metrics import CaptionValidator, teacherForcedLoss, validateCaptions

pytestmark = pytest.mark.usefixtures('shared_meteor')


def build(config, model_param, image_caption_model=cocoSource_task2_gru.ImageCaptionModel, curves=False):
    """A trainer; without `curves` it draws none, which takes longer than an epoch of so few images."""
    loader = DataLoaderWrapper(config, model_param)
    model = Model(loader.config, model_param, image_caption_model)
    saver = SaverRestorer(loader.config, model_param)
    saver.restore(model)
    trainer = Trainer(model, model_param, loader.config, loader, saver)
    if not curves:
        trainer.plotter = mock.Mock()
    return trainer


def read(model_param, name):
    with open(os.path.join(model_param['modelsDir'], 'm', name)) as f:
        return json.load(f)


def checkpoints(model_param):
    return sorted(name for name in os.listdir(os.path.join(model_param['modelsDir'], 'm')) if name.endswith('.pt'))


def weights(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.model.net.parameters()])


def test_a_run_leaves_what_the_readme_says(course_folder, config, model_param, capsys):
    course_folder()
    trainer = build(config, model_param, curves=True)
    trainer.train()
    history = read(model_param, 'history.json')
    assert [entry['epoch'] for entry in history] == [1, 2, 3]
    assert {'train_loss', 'val_loss', 'meteor', 'bleu_4', 'learning_rate'} <= set(history[0])
    assert [round(entry['learning_rate'], 4) for entry in history] == [0.01, 0.01, 0.002]  # milestones count epochs
    assert [entry['epoch'] for entry in read(model_param, 'times.json')] == [1, 2, 3]
    results = read(model_param, 'captions_epoch3.json')
    assert [result['image_id'] for result in results] == list(range(10, 15)) and set(results[0]) == {'image_id', 'caption'}
    best = max(history, key=lambda entry: entry['meteor'])['epoch']
    assert checkpoints(model_param) == [f'best_epoch{best}.pt', 'last_epoch3.pt']
    assert os.path.getsize(os.path.join(model_param['img_dir'], 'm', 'curves.png')) > 10000
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and all('METEOR' in line and 'BLEU-4' in line for line in lines)


def test_two_runs_and_a_resumed_one_are_the_same(course_folder, config, model_param, capsys):
    course_folder()
    whole = build(config, model_param)
    whole.train()

    param = {**model_param, 'modelsDir': model_param['modelsDir'] + 'again'}
    again = build(config, param)

    class Killed(Exception):
        pass

    def stop_after_the_second_epoch(epoch, loss, model, save=again.saveRestorer.save):
        save(epoch, loss, model)
        if epoch == 2:
            raise Killed

    again.saveRestorer.save = stop_after_the_second_epoch
    with pytest.raises(Killed):
        again.train()
    resumed = build(config, param)
    assert resumed.model.start_epoch == 2 and 'Going on from' in capsys.readouterr().out
    resumed.train()
    assert torch.equal(weights(resumed), weights(whole))
    assert read(param, 'history.json') == read(model_param, 'history.json')


def test_a_finished_run_is_kept(course_folder, config, model_param, capsys):
    course_folder()
    build(config, model_param).train()
    before = {name: os.path.getmtime(os.path.join(model_param['modelsDir'], 'm', name))
              for name in checkpoints(model_param)}
    capsys.readouterr()
    build(config, model_param).train()
    assert 'is trained' in capsys.readouterr().out
    assert before == {name: os.path.getmtime(os.path.join(model_param['modelsDir'], 'm', name))
                      for name in checkpoints(model_param)}


def test_a_changed_configuration_is_named(course_folder, config, model_param):
    course_folder()
    build(config, {**model_param, 'numbOfEpochs': 1}).train()
    for change, named in (({'hidden_state_sizes': 13}, 'hidden_state_sizes'), ({'seed': 2}, 'seed')):
        with pytest.raises(UserError, match=named):
            build({**config, **change}, {**model_param, 'numbOfEpochs': 1})
    with pytest.raises(UserError, match='numbOfEpochs'):
        build(config, model_param)
    forced = build(config, {**model_param, 'restoreModelLast': 1})
    assert forced.model.start_epoch == 1
    with pytest.raises(UserError, match='does not fit'):
        build({**config, 'hidden_state_sizes': 13}, {**model_param, 'restoreModelLast': 1})


def test_a_changed_learning_rate_is_used_where_going_on_is_forced(course_folder, config, model_param):
    course_folder()
    build(config, {**model_param, 'numbOfEpochs': 2}).train()
    changed = {**config, 'learningRate': {'lr': 0.004}}
    forced = build(changed, {**model_param, 'restoreModelLast': 1})
    assert forced.model.optimizer.state_dict()['state'][0]['step'] == 6  # its moments are the run's
    forced.train()
    assert forced.model.history[-1]['learning_rate'] == pytest.approx(0.004 * 0.2)  # the milestone after epoch 2 is past
    build({**config, 'optimizer': 'SGD'}, {**model_param, 'restoreModelLast': 1, 'numbOfEpochs': 4}).train()
    assert 'last_epoch4.pt' in checkpoints(model_param)


def test_a_checkpoint_of_another_task_or_other_sizes_is_refused(course_folder, config, model_param):
    course_folder()
    build(config, {**model_param, 'numbOfEpochs': 1}).train()
    with pytest.raises(UserError, match=r'trained by cocoSource_task2_gru\.py, and this script runs cocoSource_task3_lstm\.py'):
        build(config, {**model_param, 'numbOfEpochs': 1}, cocoSource_task3_lstm.ImageCaptionModel)
    with pytest.raises(UserError, match='its hidden_state_sizes is 12, not 13'):
        build({**config, 'hidden_state_sizes': 13}, {**model_param, 'restoreModelLast': 1})
    with pytest.raises(UserError, match="cocoSource_task4_attention.py cannot build this network.*'GRU'"):
        Model({**config, 'vocabulary_size': 9}, model_param, cocoSource_task4_attention.ImageCaptionModel)


@pytest.mark.parametrize('module, cell, stub', [
    (cocoSource_task2_gru, 'GRU', 'detectron2_lim10maxfeatures'), (cocoSource_task2_gru, 'RNN', 'detectron2_lim10maxfeatures'),
    (cocoSource_task4_attention, 'LSTM', 'detectron2_lim10features')])
def test_a_checkpoint_of_the_handed_out_code_is_read(module, cell, stub, course_folder, config, model_param, capsys):
    """With `input_layer.` in its names, and nothing beside weights, optimizer and epoch."""
    course_folder()
    config = {**config, 'cellType': cell, 'featurepathstub': stub}
    theirs = build(config, model_param, module.ImageCaptionModel)
    weights = {name.replace('inputLayer.', 'input_layer.'): weight for name, weight in theirs.model.net.state_dict().items()}
    path = os.path.join(model_param['modelsDir'], 'm', 'best_epoch7.pt')
    torch.save({'epoch': 7, 'model_state_dict': weights, 'optimizer_state_dict': theirs.model.optimizer.state_dict(),
                'loss': 0.5}, path)
    param = {**model_param, 'inference': True, 'modeSetups': [['val', False]]}
    read_config = loadForValidation(param)['config']
    loader = DataLoaderWrapper(read_config, param)
    model = Model(loader.config, param, module.ImageCaptionModel)
    SaverRestorer(loader.config, param).restore(model)
    assert 'another order' in capsys.readouterr().out
    for name, weight in theirs.model.net.state_dict().items():
        assert torch.equal(weight, model.net.state_dict()[name])
    forced = build(config, {**model_param, 'restoreModelBest': 1, 'numbOfEpochs': 9}, module.ImageCaptionModel)
    assert forced.model.start_epoch == 8                                         # theirs count from 0
    forced.train()
    assert 'last_epoch9.pt' in checkpoints(model_param)


@pytest.mark.parametrize('data', [b'', b'PK\x03\x04 no zip', pickle.dumps({'epoch': 1})])
def test_a_broken_checkpoint_is_named(data, course_folder, config, model_param):
    course_folder()
    os.makedirs(os.path.join(model_param['modelsDir'], 'm'))
    with open(os.path.join(model_param['modelsDir'], 'm', 'last_epoch1.pt'), 'wb') as f:
        f.write(data)
    with pytest.raises(UserError, match=r'last_epoch1\.pt cannot be read'):
        build(config, model_param)


def test_another_vocabulary_is_refused(course_folder, config, model_param):
    course_folder()
    build(config, {**model_param, 'numbOfEpochs': 1}).train()
    checkpoint = torch.load(os.path.join(model_param['modelsDir'], 'm', 'last_epoch1.pt'))
    torch.save({**checkpoint, 'vocabulary': 'other'}, os.path.join(model_param['modelsDir'], 'm', 'last_epoch1.pt'))
    with pytest.raises(UserError, match='another vocabulary'):
        build(config, {**model_param, 'numbOfEpochs': 1})


def test_validation_takes_every_size_from_the_checkpoint(course_folder, config, model_param):
    course_folder()
    trainer = build(config, model_param)
    trainer.train()
    param = {**model_param, 'inference': True, 'modeSetups': [['val', False]], 'trainingScript': 'Exercise_Train_task2.py'}
    saved = loadForValidation(param)['config']
    loader = DataLoaderWrapper(saved, param)
    model = Model(saved, param, cocoSource_task2_gru.ImageCaptionModel)
    SaverRestorer(saved, param).restore(model)
    assert not hasattr(model, 'optimizer') and set(loader.myDataDicts) == {'val'}
    scores = validateCaptions(model, param, saved, loader)
    best = max(read(model_param, 'history.json'), key=lambda entry: entry['meteor'])
    for key in ('meteor', 'bleu_1', 'bleu_2', 'bleu_3', 'bleu_4', 'cider', 'rouge'):
        assert scores[key] == best[key]
    assert abs(scores['loss'] - best['val_loss']) < 1e-5 and 0 <= scores['meteor_tokens'] <= 1
    assert read(model_param, 'captions_validation.json') == read(model_param, f"captions_epoch{best['epoch']}.json")


def test_details_of_the_validation_images(course_folder, config, model_param):
    """What pages show: captions as scored, human ones as they are, a row of attention per word, the boxes of the file."""
    root = course_folder()
    path = os.path.join(root, 'Val2017_detectron2_lim10features', f'{10:012d}.pickle')
    with open(path, 'rb') as f:
        record = pickle.load(f)
    write_pickle(path, {**record, 'boxes': np.arange(40, dtype=np.float32).reshape(10, 4)})
    config = {**config, 'featurepathstub': 'detectron2_lim10features', 'cellType': 'LSTM'}
    trainer = build(config, model_param, cocoSource_task4_attention.ImageCaptionModel)
    with torch.no_grad():
        trainer.model.net.output_layer.bias[0] = -9  # never the end: captions of 40 words
    scores = validateCaptions(trainer.model, model_param, config, trainer.dataLoader)
    details, results = read(model_param, 'details_validation.json'), read(model_param, 'captions_validation.json')
    assert [{key: detail[key] for key in ('image_id', 'caption')} for detail in details] == results
    assert all(20 < len(detail['caption'].split()) <= 40 for detail in details)
    for detail in details:
        assert detail['references'] == CAPTIONS[detail['image_id'] % len(CAPTIONS)] and 0 <= detail['meteor'] <= 1
        assert len(detail['attention']) == len(detail['caption'].split())
        assert all(len(row) == 10 and abs(sum(row) - 1) < 0.01 for row in detail['attention'])
    assert details[0]['boxes'][1] == [4, 5, 6, 7] and 'boxes' not in details[1]
    assert min(detail['meteor'] for detail in details) <= scores['meteor'] <= max(detail['meteor'] for detail in details)


def test_attention_over_a_caption_is_that_of_its_making(course_folder, config, model_param):
    """Step by step through the cell, the attention of each word as the model makes it."""
    course_folder()
    config = {**config, 'featurepathstub': 'detectron2_lim10features', 'cellType': 'LSTM'}
    trainer = build(config, model_param, cocoSource_task4_attention.ImageCaptionModel)
    net = trainer.model.net.eval()
    torch.nn.init.normal_(net.attention_layer[3].weight)
    batch = next(iter(trainer.dataLoader.myDataDicts['val']))
    tokens = trainer.model.greedyTokens(batch)
    weights = trainer.model.attentionOver(batch, tokens)
    assert weights.shape == (len(tokens), len(tokens[0]), 10)
    with torch.no_grad():
        image = net.process_features(batch['cnn_features'])
        state = net.zero_state(len(image))[0]
        for step in range(len(tokens[0])):
            word = batch['xTokens'][:, 0, 0] if step == 0 else torch.tensor(tokens)[:, step - 1]
            x = torch.cat([net.embedding_layer(word), image.max(dim=2).values], dim=1)
            state = net.rnn.cells[0](x, state)
            torch.testing.assert_close(weights[:, step], net.attention_layer(state))
    assert trainer.model.attentionOver(batch, tokens).std() > 0.01
    assert build({**config, 'cellType': 'GRU'}, {**model_param, 'modelName': 'other/'}).model.attentionOver(batch, tokens) is None


def test_example_pictures(course_folder, config, model_param, capsys):
    from PIL import Image
    root = course_folder()
    trainer = build(config, model_param)
    arguments = trainer.model, model_param, config, trainer.dataLoader
    assert plotImagesAndCaptions(*arguments) is None and 'val2017' in capsys.readouterr().out
    os.makedirs(os.path.join(root, 'val2017'))
    Image.new('L', (64, 48), 100).save(os.path.join(root, 'val2017', f'{12:012d}.jpg'))  # grey, the others missing
    with open(os.path.join(root, 'val2017', f'{11:012d}.jpg'), 'wb') as f:
        f.write(b'\xff\xd8\xff broken')
    with Image.open(plotImagesAndCaptions(*arguments)) as picture:
        assert picture.size[0] > 500


def test_without_a_checkpoint_the_script_that_makes_one_is_named(model_param):
    with pytest.raises(UserError, match='Exercise_Train_task2.py'):
        loadForValidation({**model_param, 'trainingScript': 'Exercise_Train_task2.py'})


def test_losses_are_averaged_over_words_and_parts(course_folder, config, model_param):
    """With parts of 4 words and the state carried, the loss of every image alone adds up to that of the batches."""
    course_folder()
    trainer = build({**config, 'truncated_backprop_length': 4}, model_param)
    loss = teacherForcedLoss(trainer.model, trainer.dataLoader.myDataDicts['val'])
    whole = build(config, {**model_param, 'modelName': 'other/', 'batch_size': 1})
    whole.model.net.load_state_dict(trainer.model.net.state_dict())
    assert abs(teacherForcedLoss(whole.model, whole.dataLoader.myDataDicts['val']) - loss) < 1e-5


def test_attention_learns_where_to_look(course_folder, config, model_param):
    """Captions name what the first detections are, one word each: only an attention that moves can tell their order."""
    root = course_folder(n_train=48, n_val=24)
    rng = np.random.default_rng(1)
    for split in ('Train', 'Val'):
        folder = os.path.join(root, f'{split}2017_detectron2_lim10features')
        for name in os.listdir(folder):
            with open(os.path.join(folder, name), 'rb') as f:
                record = pickle.load(f)
            kinds = rng.integers(0, 4, 10)
            features = np.zeros((10, D), np.float32)
            features[range(10), kinds] = 5
            write_pickle(os.path.join(folder, name), {
                **record, 'cnn_features': features, 'captionsAsTokens': [[1, *(3 + kinds[:3]), 0]] * len(record['captions'])})
    config = {**config, 'featurepathstub': 'detectron2_lim10features', 'cellType': 'LSTM', 'scheduler_milestones': None,
              'learningRecipe': 'informedStart', 'hidden_state_sizes': 32}
    losses = []
    for kind in ('moving', 'constant'):
        param = {**model_param, 'modelName': f'{kind}/', 'batch_size': 16}
        trainer = build(config, param, cocoSource_task4_attention.ImageCaptionModel)
        if kind == 'constant':
            for layer in (1, 3):
                torch.nn.init.zeros_(trainer.model.net.attention_layer[layer].weight)
            trainer.model.net.attention_layer.requires_grad_(False)
        for epoch in range(1, 9):
            trainer.run_epoch('train', trainer.model, True, epoch)
        losses.append(trainer.run_epoch('val', trainer.model, True, 1))
    assert losses[0] < losses[1] - 0.1


def test_a_model_file_with_the_interface_alone_is_trained(course_folder, config, model_param):
    """Another student's model: only forward and a loss_fn beside it."""
    course_folder()

    class Theirs(torch.nn.Module):
        def __init__(self, config):
            super().__init__()
            self.words = torch.nn.Embedding(config['vocabulary_size'], config['vocabulary_size'])

        def forward(self, cnn_features, x_tokens, is_train, current_hidden_state=None):
            if not is_train:
                x_tokens = x_tokens[:, :1].expand(-1, 40)
            return self.words(x_tokens), torch.zeros(1, len(x_tokens), 1)

    trainer = build(config, {**model_param, 'numbOfEpochs': 2}, Theirs)
    trainer.train()
    assert trainer.model.history[1]['train_loss'] < trainer.model.history[0]['train_loss']


def loss_fn(logits, y_tokens, y_weights):
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), y_tokens, reduction='none') * y_weights
    return losses.sum(), losses.sum() / y_weights.sum()


def test_tokens_are_scored_as_the_course_builds_them(course_folder, model_param, config):
    course_folder()
    loader = DataLoaderWrapper(config, model_param)
    validator = CaptionValidator(model_param, loader)
    try:
        assert len(list(validator.batches('captions'))) == 2
        raw = loader.myDataDicts['val'].dataset[0]['captionsAsTokens']
        assert validator.token_references[10] == [' '.join(map(str, caption[1:-1])) for caption in raw]
        results = [{'image_id': image_id, 'caption': loader.wordsOf([int(token) for token in references[1].split()])}
                   for image_id, references in validator.token_references.items()]
        assert validator.meteorOnTokens(results) > 0.5
    finally:
        validator.close()


def test_device(model_param, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    cuda = {'use_cuda': True, 'device_idx': 5}
    with pytest.raises(UserError, match='numbered from 0 to 1'):
        model_module.chooseDevice({**model_param, 'cuda': cuda})
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert model_module.chooseDevice({**model_param, 'cuda': cuda}).type == 'cpu'


def test_a_loss_that_is_not_finite_stops_before_anything_is_lost(course_folder, config, model_param):
    course_folder()
    trainer = build(config, {**model_param, 'numbOfEpochs': 1})
    trainer.train()
    trainer = build(config, {**model_param, 'restoreModelLast': 1})
    before = checkpoints(model_param)
    with torch.no_grad():
        trainer.model.net.output_layer.bias[3] = float('nan')
    with pytest.raises(UserError, match=r'nan in epoch 2, batch 1, images 0000000000'):
        trainer.train()
    assert checkpoints(model_param) == before == ['best_epoch1.pt', 'last_epoch1.pt']


def test_a_validation_loss_that_is_not_finite_stops_before_the_epoch_is_saved(course_folder, config, model_param):
    course_folder()
    trainer = build(config, model_param)
    trainer.model.optimizer.step = lambda: trainer.model.net.output_layer.bias.data.fill_(float('inf'))
    with pytest.raises(UserError, match='The loss is nan in'):
        trainer.train()
    assert checkpoints(model_param) == []


def test_a_full_disk_keeps_the_old_checkpoint_and_says_how_much_is_needed(course_folder, config, model_param, monkeypatch):
    course_folder()
    build(config, {**model_param, 'numbOfEpochs': 1}).train()
    before = checkpoints(model_param)
    trainer = build(config, {**model_param, 'restoreModelLast': 1})
    fsync = os.fsync

    def full(descriptor):
        if os.readlink(f'/proc/self/fd/{descriptor}').endswith('.pt'):
            raise OSError(errno.ENOSPC, 'No space left on device')
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, 'fsync', full)
        said = r'_epoch2\.pt cannot be written: No space left on device\. It needs 0\.\d MB; .* are free'
        with pytest.raises(UserError, match=said):
            trainer.train()
    assert checkpoints(model_param) == before
    assert not [name for name in os.listdir(os.path.join(model_param['modelsDir'], 'm')) if name.startswith('partial')]
    build(config, {**model_param, 'restoreModelLast': 1}).train()
    whole = {**model_param, 'modelName': 'whole/'}
    build(config, whole).train()
    with open(os.path.join(whole['modelsDir'], 'whole', 'history.json')) as f:
        assert read(model_param, 'history.json') == json.load(f)


def test_two_files_of_one_image_are_named(course_folder, config, model_param):
    root = course_folder()
    folder = os.path.join(root, 'Val2017_detectron2_lim10maxfeatures')
    shutil.copy(os.path.join(folder, f'{11:012d}.pickle'), os.path.join(folder, 'copy.pickle'))
    with pytest.raises(UserError, match=r'copy\.pickle is of the image 11'):
        build(config, model_param).train()


def test_an_epoch_without_scores_is_saved_and_the_run_goes_on(course_folder, config, model_param, monkeypatch, capsys):
    course_folder()
    score, calls = CaptionValidator.score, []

    def fail_at_first(self, results):
        calls.append(results)
        if len(calls) == 1:
            raise JavaError('METEOR has ended. It said: out of paper')
        return score(self, results)

    monkeypatch.setattr(CaptionValidator, 'score', fail_at_first)
    build(config, model_param).train()
    first, second, third = read(model_param, 'history.json')
    assert 'meteor' not in first and first['val_loss'] > 0 and 'meteor' in second and 'meteor' in third
    assert 'Epoch 1 stays without scores. METEOR has ended. It said: out of paper' in capsys.readouterr().out
    assert 'last_epoch3.pt' in checkpoints(model_param) and 'best_epoch1.pt' not in checkpoints(model_param)
