"""The recipes: what they take from the data, that they make no other model, and how runs go on."""
import functools
from unittest import mock

import numpy as np
import pytest
import torch
from conftest import D
from test_training import check_resumed

from cocoSource_task2_gru import ImageCaptionModel as GruModel
from cocoSource_task4_attention import ImageCaptionModel as AttentionModel
from cocoSource_xcnnfused import ImageCaptionModel as SimpleModel
from utils.data.captionWords import UNKNOWN
from utils.data.dataFolder import featureFiles
from utils.dataLoader import DataLoaderWrapper
from utils.files.errors import UserError
from utils.files.safePickle import loadPickle
from utils.networks import learningRecipe
from utils.networks.learningRecipe import droppedWords
from utils.validate import restoredModel
from utils.validate_metrics import teacherForcedLoss, validateCaptions

pytestmark = pytest.mark.usefixtures('without_java')


@pytest.fixture(params=[SimpleModel, AttentionModel])
def new_model(request, new_trainer):
    """A function that makes a trainer of the first or the last task."""
    changes = {'cellType': 'RNN', 'num_rnn_layers': 1} if request.param is SimpleModel else {}
    return functools.partial(new_trainer, request.param, **changes)


@pytest.mark.parametrize('threads', [0, 2])
def test_the_network_starts_from_mean_and_word_frequencies(threads, new_model):
    """And with biases of zero in the cells, whether threads read the files or not."""
    trainer = new_model(learningRecipe='informedStart', numbOfCPUThreadsUsed=threads,
                        vocabulary_size=20)                              # so that some are unknown
    informed = trainer.model
    images = list(map(loadPickle, featureFiles(trainer.modelParam['data_dir'], 'train',
                                               trainer.config['featurepathstub'])))
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
    for name, parameter in informed.net.rnn.named_parameters():
        assert parameter.detach().any() == ('bias' not in name)


def test_it_is_the_plain_model_with_another_bias(new_model):
    trainer = new_model(learningRecipe='informedStart', numbOfEpochs=1)
    trainer.train()
    informed = trainer.model
    plain = new_model(modelName='plain').model
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
def test_a_run_goes_on_and_is_validated_as_it_was(recipe, new_trainer, validation_param):
    make = functools.partial(new_trainer, AttentionModel, numbOfEpochs=2, learningRecipe=recipe)
    statistics = DataLoaderWrapper.trainingStatistics
    with mock.patch.object(DataLoaderWrapper, 'trainingStatistics', autospec=True,
                           side_effect=statistics) as asked:
        whole = check_resumed(make)
    assert asked.call_count == 2  # a resumed run has those of the checkpoint
    model, loader = restoredModel(validation_param, AttentionModel)
    scores = validateCaptions(model, validation_param, loader.config, loader)
    assert scores['loss'] == whole.model.history[model.start_epoch - 1]['val_loss']


def test_runs_of_two_recipes_do_not_mix(new_trainer):
    new_trainer(numbOfEpochs=1).train()
    informed = functools.partial(new_trainer, learningRecipe='informedStart')
    with pytest.raises(UserError, match="'assignment' and is 'informedStart'"):
        informed(numbOfEpochs=1)
    assert informed(restoreModelLast=1).model.feature_mean is None       # it is past its start


class WithoutOutputLayer(GruModel):
    def __init__(self, config):
        super().__init__(config)
        del self.output_layer


@pytest.mark.parametrize('recipe', ['informedStart', 'regularised'])
def test_a_network_without_a_layer_that_a_recipe_sets_is_named(recipe, new_trainer):
    with pytest.raises(UserError, match='needs a network with an output_layer'):
        new_trainer(WithoutOutputLayer, learningRecipe=recipe)


def test_half_of_the_hidden_elements_are_dropped_out_in_training_alone(new_model):
    net = new_model(learningRecipe='regularised').model.net
    plain = new_model(modelName='plain').model.net
    assert net.state_dict().keys() == plain.state_dict().keys()
    seen = []
    net.output_layer.register_forward_pre_hook(lambda layer, hidden: seen.append(hidden[0]))
    hidden = torch.ones(400, net.hidden_state_sizes)
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


def test_labels_are_smoothed_in_training_alone(new_trainer, monkeypatch):
    monkeypatch.setattr(learningRecipe, 'HIDDEN_DROPOUT', 0.0)
    monkeypatch.setattr(learningRecipe, 'WORD_DROPOUT', 0.0)
    trainer = new_trainer(learningRecipe='regularised')
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
