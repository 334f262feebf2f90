"""The recipes: what 'informedStart' takes from the data, that it makes no other model, and how its runs go on."""
import os
import pickle
from unittest import mock

import numpy as np
import pytest
import torch
from conftest import D
from test_training import build, checkpoints, read, weights

import cocoSource_task3_lstm
import cocoSource_task4_attention
import cocoSource_xcnnfused
from utils.data.captionWords import UNKNOWN
from utils.dataLoader import DataLoaderWrapper
from utils.files.errors import UserError
from utils.networks import learningRecipe
from utils.networks.learningRecipe import droppedWords
from utils.saverRestorer import loadForValidation
from utils.validate_metrics import teacherForcedLoss, validateCaptions

pytestmark = pytest.mark.usefixtures('shared_meteor')

TASKS = {1: (cocoSource_xcnnfused.ImageCaptionModel, {'cellType': 'RNN', 'num_rnn_layers': 1}),
         4: (cocoSource_task4_attention.ImageCaptionModel,
             {'cellType': 'LSTM', 'featurepathstub': 'detectron2_lim10features'})}


@pytest.fixture(params=TASKS)
def task(request, config):
    model, changes = TASKS[request.param]
    return {**config, **changes, 'learningRecipe': 'informedStart'}, model


def records(root, config):
    folder = os.path.join(root, 'Train2017_' + config['featurepathstub'])
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), 'rb') as f:
            yield pickle.load(f)


def begin(config, param, model):
    """Trains a run's first epoch."""
    begun = build(config, param, model)
    begun.modelParam = {**param, 'numbOfEpochs': 1}
    begun.train()


def test_the_network_starts_from_mean_and_word_frequencies(course_folder, task, model_param):
    config, model = task
    config = {**config, 'vocabulary_size': 20}                               # so that some words are unknown
    images = list(records(course_folder(), config))
    informed = build(config, model_param, model).model
    mean = np.concatenate([image['cnn_features'].reshape(-1, D) for image in images]).mean(0)
    assert np.allclose(informed.feature_mean.numpy(), mean, atol=1e-6)
    counts = np.zeros(20)
    for image in images:
        for caption in image['captionsAsTokens']:
            for token in [*caption[1:], *[0] * int(caption[-1] != 0)]:          # from the first word to the end
                counts[token if token < 20 else 2] += 1
    assert counts.min() == 0 and counts[2] > 1
    counts = np.maximum(counts, 1)
    assert np.allclose(informed.net.output_layer.bias.detach().exp().numpy(), counts / counts.sum(), atol=1e-6)


def test_reading_processes_find_the_same_statistics(course_folder, task, model_param):
    config, _ = task
    course_folder()
    mean, counts = DataLoaderWrapper(config, model_param).trainingStatistics()
    others = DataLoaderWrapper(config, {**model_param, 'numbOfCPUThreadsUsed': 2}).trainingStatistics()
    assert torch.equal(others[0], mean) and torch.equal(others[1], counts)


def test_the_biases_of_the_cells_start_at_zero(course_folder, config, model_param):
    course_folder()
    config = {**config, 'cellType': 'LSTM'}
    for recipe, value in (('assignment', 2), ('informedStart', 0)):
        param = {**model_param, 'modelName': f'{recipe}/'}
        net = build({**config, 'learningRecipe': recipe}, param, cocoSource_task3_lstm.ImageCaptionModel).model.net
        biases = [bias for cell in net.rnn.cells for name, bias in cell.named_parameters() if name.startswith('bias')]
        assert len(biases) == 8 and all(torch.equal(bias, torch.full_like(bias, value)) for bias in biases)


def test_it_is_the_plain_model_with_another_bias(course_folder, task, model_param):
    config, model = task
    course_folder()
    trainer = build(config, model_param, model)
    trainer.train()
    informed = trainer.model
    plain = build({**config, 'learningRecipe': 'assignment'}, {**model_param, 'modelName': 'plain/'}, model).model
    state = informed.net.state_dict()
    mean = informed.feature_mean
    assert mean.abs().min() > 0
    state['inputLayer.1.bias'] = state['inputLayer.1.bias'] - state['inputLayer.1.weight'].flatten(1) @ mean
    plain.net.load_state_dict(state)                                         # strict: there is nothing else in it
    batches = list(trainer.dataLoader.myDataDicts['val'])
    assert teacherForcedLoss(plain, batches) == pytest.approx(teacherForcedLoss(informed, batches), abs=1e-5)
    for batch in batches:
        assert plain.greedyTokens(batch) == informed.greedyTokens(batch)


def test_a_run_goes_on_and_is_validated_as_it_was(course_folder, task, model_param):
    config, model = task
    course_folder()
    whole = build(config, model_param, model)
    whole.train()
    param = {**model_param, 'modelsDir': model_param['modelsDir'] + 'again'}
    begin(config, param, model)
    with mock.patch.object(DataLoaderWrapper, 'trainingStatistics', side_effect=AssertionError):  # they are the checkpoint's
        resumed = build(config, param, model)
    assert resumed.model.start_epoch == 1
    resumed.train()
    assert torch.equal(weights(resumed), weights(whole))
    assert read(param, 'history.json') == read(model_param, 'history.json')

    validation = {**model_param, 'inference': True, 'modeSetups': [['val', True]]}
    loaded = build(loadForValidation(validation)['config'], validation, model)
    scores = validateCaptions(loaded.model, validation, loaded.config, loaded.dataLoader)
    assert scores['loss'] == whole.model.history[loaded.model.start_epoch - 1]['val_loss']


def test_the_assignments_recipe_takes_nothing_from_the_data(course_folder, config, model_param):
    course_folder()
    with mock.patch.object(DataLoaderWrapper, 'trainingStatistics', side_effect=AssertionError):
        trainer = build(config, model_param)
        trainer.train()
        del config['learningRecipe']                                         # an own configuration need not name it
        other = build(config, {**model_param, 'modelName': 'other/'})
        other.train()
    assert torch.equal(weights(trainer), weights(other))
    assert trainer.model.feature_mean is None


def test_runs_of_the_two_recipes_do_not_mix(course_folder, config, model_param):
    course_folder()
    build(config, {**model_param, 'numbOfEpochs': 1}).train()
    informed = {**config, 'learningRecipe': 'informedStart'}
    with pytest.raises(UserError, match=r"config\['learningRecipe'\] was 'assignment' and is 'informedStart'"):
        build(informed, {**model_param, 'numbOfEpochs': 1})
    assert build(informed, {**model_param, 'restoreModelLast': 1}).model.feature_mean is None  # it is past its start


def test_a_mean_that_an_earlier_version_kept_in_the_network_is_read(course_folder, task, model_param):
    config, model = task
    course_folder()
    build(config, {**model_param, 'numbOfEpochs': 1}, model).train()
    path = os.path.join(model_param['modelsDir'], 'm', 'best_epoch1.pt')
    checkpoint = torch.load(path)
    mean = checkpoint.pop('feature_mean')
    torch.save({**checkpoint, 'model_state_dict': {**checkpoint['model_state_dict'], 'inputLayer.feature_mean': mean}}, path)
    validation = {**model_param, 'inference': True, 'modeSetups': [['val', True]]}
    assert torch.equal(build(loadForValidation(validation)['config'], validation, model).model.feature_mean, mean)


def test_a_network_without_the_layers_that_an_informed_start_sets_is_named(course_folder, config, model_param):
    course_folder()
    with pytest.raises(UserError, match='needs a network with an output_layer'):
        build({**config, 'learningRecipe': 'informedStart'}, model_param, WithoutLayers)


class WithoutLayers(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.words = torch.nn.Embedding(config['vocabulary_size'], config['vocabulary_size'])


def loss_fn(logits, y_tokens, y_weights):
    raise AssertionError


def test_a_run_that_is_older_than_the_recipes_goes_on(course_folder, config, model_param):
    course_folder()
    trainer = build(config, model_param)
    trainer.modelParam = {**model_param, 'numbOfEpochs': 1}
    trainer.train()
    name, = (name for name in checkpoints(model_param) if name.startswith('last'))
    path = os.path.join(model_param['modelsDir'], 'm', name)
    checkpoint = torch.load(path)
    del checkpoint['config']['learningRecipe']
    torch.save(checkpoint, path)
    resumed = build(config, model_param)
    assert resumed.model.start_epoch == 1
    resumed.train()


def test_the_regularised_recipe_drops_hidden_elements_in_training_alone(course_folder, task, model_param):
    config, model = task
    course_folder()
    trainer = build({**config, 'learningRecipe': 'regularised'}, model_param, model)
    net, hidden = trainer.model.net, torch.ones(400, config['hidden_state_sizes'])
    plain = torch.nn.functional.linear(hidden, net.output_layer.weight, net.output_layer.bias)
    assert torch.equal(net.eval().output_layer(hidden), plain)
    torch.manual_seed(1)
    dropped = net.train().output_layer(hidden)
    assert not torch.allclose(dropped[0], dropped[1]) and torch.allclose(dropped.mean(0), plain[0], atol=0.15)
    assert net.state_dict().keys() == model(trainer.config).state_dict().keys()


def test_a_tenth_of_the_words_becomes_unknown():
    torch.manual_seed(1)
    words = torch.arange(5).repeat(20000, 1)
    dropped = droppedWords(words)
    assert torch.equal(dropped[:, :3], words[:, :3])                             # the end, the start and the unknown word
    unknown = dropped[:, 3:] == UNKNOWN
    assert torch.equal(dropped[:, 3:][~unknown], words[:, 3:][~unknown]) and abs(float(unknown.float().mean()) - 0.1) < 0.005


def test_labels_are_smoothed_in_training_alone(course_folder, config, model_param, monkeypatch):
    monkeypatch.setattr(learningRecipe, 'HIDDEN_DROPOUT', 0.0)
    monkeypatch.setattr(learningRecipe, 'WORD_DROPOUT', 0.0)
    course_folder()
    trainer = build({**config, 'learningRecipe': 'regularised'}, model_param)
    batch = next(iter(trainer.dataLoader.myDataDicts['train']))
    model = trainer.model
    model.net.inputLayer[0].p = 0.0
    model.net.eval()
    plain = float(sum(model.lossOfParts(batch)).detach())
    model.net.train()
    smoothed = float(sum(model.lossOfParts(batch)).detach())
    x, y, weights_of_words = (batch[key][:, :, 0] for key in ('xTokens', 'yTokens', 'yWeights'))
    with torch.no_grad():
        log_p = model.net(model.features(batch), x, True)[0].log_softmax(2)
    right, all_words = log_p.gather(2, y.unsqueeze(2)).squeeze(2), log_p.mean(2)
    assert np.isclose(plain, -float((right * weights_of_words).sum()), rtol=1e-5)
    assert np.isclose(smoothed, -float(((0.9 * right + 0.1 * all_words) * weights_of_words).sum()), rtol=1e-5)


def test_a_regularised_run_goes_on_to_the_same(course_folder, task, model_param):
    config, model = task
    course_folder()
    config = {**config, 'learningRecipe': 'regularised'}
    whole = build(config, model_param, model)
    whole.train()
    param = {**model_param, 'modelsDir': model_param['modelsDir'] + 'again'}
    begin(config, param, model)
    build(config, param, model).train()
    assert read(param, 'history.json') == read(model_param, 'history.json')
