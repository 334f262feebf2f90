"""The recipes: what they take from the data, that they make no other model, and how runs go on."""

from unittest import mock

import numpy as np
import pytest
import torch
from conftest import D
from stand_ins import without_java  # noqa: F401
from test_training import build, check_resumed

import cocoSource_task3_lstm
import cocoSource_task4_attention
import cocoSource_xcnnfused
from utils.data.captionWords import UNKNOWN
from utils.data.dataFolder import featureFiles
from utils.dataLoader import DataLoaderWrapper
from utils.files.errors import UserError
from utils.files.safePickle import loadPickle
from utils.networks import learningRecipe
from utils.networks.learningRecipe import droppedWords
from utils.saverRestorer import loadForValidation
from utils.validate_metrics import teacherForcedLoss, validateCaptions

pytestmark = pytest.mark.usefixtures('without_java')

TASKS = {1: (cocoSource_xcnnfused.ImageCaptionModel, {'cellType': 'RNN', 'num_rnn_layers': 1}),
         4: (cocoSource_task4_attention.ImageCaptionModel,
             {'cellType': 'LSTM', 'featurepathstub': 'detectron2_lim10features'})}


@pytest.fixture(params=TASKS)
def task(request, config):
    model, changes = TASKS[request.param]
    return {**config, **changes, 'learningRecipe': 'informedStart'}, model


def test_the_network_starts_from_mean_and_word_frequencies(course_folder, task, model_param):
    """Whether threads read the files or not."""
    config, model = task
    config = {**config, 'vocabulary_size': 20}                           # so that some are unknown
    images = list(map(loadPickle, featureFiles(course_folder(), 'train',
                                               config['featurepathstub'])))
    threads = 2 if config['cellType'] == 'LSTM' else 0
    informed = build(config, {**model_param, 'numbOfCPUThreadsUsed': threads}, model).model
    mean = np.concatenate([image['cnn_features'].reshape(-1, D) for image in images]).mean(0)
    assert np.allclose(informed.feature_mean.numpy(), mean, atol=1e-6)
    counts = np.zeros(20)
    for image in images:
        for caption in image['captionsAsTokens']:
            words = list(caption[1:])                                    # from the first to the end
            if caption[-1] != 0:
                words.append(0)
            for token in words:
                counts[token if token < 20 else 2] += 1
    assert counts.min() == 0 and counts[2] > 1
    counts = np.maximum(counts, 1)
    shares = informed.net.output_layer.bias.detach().exp().numpy()
    assert np.allclose(shares, counts / counts.sum(), atol=1e-6)


def test_the_biases_of_the_cells_start_at_zero(course_folder, config, model_param):
    course_folder()
    config = {**config, 'cellType': 'LSTM'}
    for recipe, value in (('assignment', 2), ('informedStart', 0)):
        net = build({**config, 'learningRecipe': recipe}, {**model_param, 'modelName': recipe},
                    cocoSource_task3_lstm.ImageCaptionModel).model.net
        biases = [parameter for name, parameter in net.rnn.named_parameters() if 'bias' in name]
        assert len(biases) == 8 and all((bias == value).all() for bias in biases)


def test_it_is_the_plain_model_with_another_bias(course_folder, task, model_param):
    config, model = task
    course_folder()
    model_param = {**model_param, 'numbOfEpochs': 1}
    trainer = build(config, model_param, model)
    trainer.train()
    informed = trainer.model
    plain = build({**config, 'learningRecipe': 'assignment'},
                  {**model_param, 'modelName': 'plain/'}, model).model
    state = informed.net.state_dict()
    weight = state['inputLayer.1.weight'].flatten(1)                     # [M, D]
    assert informed.feature_mean.abs().min() > 0
    state['inputLayer.1.bias'] = state['inputLayer.1.bias'] - weight @ informed.feature_mean
    plain.net.load_state_dict(state)                                     # which has nothing else
    batches = list(trainer.dataLoader.myDataDicts['val'])
    expected = teacherForcedLoss(informed, batches)
    assert teacherForcedLoss(plain, batches) == pytest.approx(expected, abs=1e-5)
    for batch in batches:
        assert plain.greedyTokens(batch) == informed.greedyTokens(batch)


@pytest.mark.parametrize('recipe', ['informedStart', 'regularised'])
def test_a_run_goes_on_and_is_validated_as_it_was(recipe, course_folder, config, model_param):
    model, changes = TASKS[4]
    config = {**config, **changes, 'learningRecipe': recipe}
    course_folder()
    model_param = {**model_param, 'numbOfEpochs': 2}
    statistics = DataLoaderWrapper.trainingStatistics
    with mock.patch.object(DataLoaderWrapper, 'trainingStatistics', autospec=True,
                           side_effect=statistics) as asked:
        whole = check_resumed(lambda param: build(config, param, model), model_param)
    assert asked.call_count == 2  # a resumed run has those of the checkpoint
    validation = {**model_param, 'inference': True, 'modeSetups': [['val', True]]}
    loaded = build(loadForValidation(validation)['config'], validation, model)
    scores = validateCaptions(loaded.model, validation, loaded.config, loaded.dataLoader)
    assert scores['loss'] == whole.model.history[loaded.model.start_epoch - 1]['val_loss']


def test_runs_of_two_recipes_do_not_mix(course_folder, config, model_param):
    course_folder()
    build(config, {**model_param, 'numbOfEpochs': 1}).train()
    informed = {**config, 'learningRecipe': 'informedStart'}
    with pytest.raises(UserError, match="'assignment' and is 'informedStart'"):
        build(informed, {**model_param, 'numbOfEpochs': 1})
    forced = build(informed, {**model_param, 'restoreModelLast': 1})
    assert forced.model.feature_mean is None                             # it is past its start


@pytest.mark.parametrize('recipe', ['informedStart', 'regularised'])
def test_a_network_without_the_layers_that_a_recipe_sets_is_named(
        recipe, course_folder, config, model_param):
    course_folder()
    with pytest.raises(UserError, match='needs a network with an output_layer'):
        build({**config, 'learningRecipe': recipe}, model_param, WithoutLayers)


class WithoutLayers(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.words = torch.nn.Embedding(config['vocabulary_size'], config['vocabulary_size'])


def loss_fn(logits, y_tokens, y_weights):
    raise AssertionError


def test_half_of_the_hidden_elements_are_dropped_out_in_training_alone(
        course_folder, task, model_param):
    config, model = task
    course_folder()
    trainer = build({**config, 'learningRecipe': 'regularised'}, model_param, model)
    net = trainer.model.net
    assert net.state_dict().keys() == model(trainer.config).state_dict().keys()
    seen = []
    net.output_layer.register_forward_pre_hook(lambda layer, hidden: seen.append(hidden[0]))
    hidden = torch.ones(400, config['hidden_state_sizes'])
    net.eval().output_layer(hidden)
    assert torch.equal(seen[0], hidden)
    torch.manual_seed(1)
    net.train().output_layer(hidden)
    assert set(seen[1].flatten().tolist()) == {0, 2} and abs(seen[1].mean() - 1) < 0.05


def test_a_tenth_of_the_words_becomes_unknown():
    torch.manual_seed(1)
    words = torch.arange(5).repeat(20000, 1)
    dropped = droppedWords(words)
    assert torch.equal(dropped[:, :3], words[:, :3])                     # end, start and unknown
    unknown = dropped[:, 3:] == UNKNOWN
    assert torch.equal(dropped[:, 3:][~unknown], words[:, 3:][~unknown])
    assert abs(float(unknown.float().mean()) - 0.1) < 0.005


def test_labels_are_smoothed_in_training_alone(course_folder, config, model_param, monkeypatch):
    monkeypatch.setattr(learningRecipe, 'HIDDEN_DROPOUT', 0.0)
    monkeypatch.setattr(learningRecipe, 'WORD_DROPOUT', 0.0)
    course_folder()
    trainer = build({**config, 'learningRecipe': 'regularised'}, model_param)
    batch = next(iter(trainer.dataLoader.myDataDicts['train']))
    model = trainer.model
    model.net.inputLayer[0].p = 0.0
    x, y, weights_of_words = (batch[key][:, :, 0] for key in ('xTokens', 'yTokens', 'yWeights'))
    with torch.no_grad():
        log_p = model.net(model.features(batch), x, True)[0].log_softmax(2)
        right, all_words = log_p.gather(2, y.unsqueeze(2)).squeeze(2), log_p.mean(2)
        for training, expected in ((False, right), (True, 0.9 * right + 0.1 * all_words)):
            model.net.train(training)
            loss = float(sum(model.lossOfParts(batch)))
            assert np.isclose(loss, -float((expected * weights_of_words).sum()), rtol=1e-5)
