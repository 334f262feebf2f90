"""Recorded training steps, on a CPU: the same learning, by functions that a GPU can record."""
import pytest
import torch
from test_models import D, V, config_for

import cocoSource_task2_gru
import cocoSource_task3_lstm
import cocoSource_task4_attention
import cocoSource_xcnnfused
from utils.data.captionDataset import Collate
from utils.model import Model
from utils.networks.stepGraphs import StepGraphs

if not hasattr(torch, 'compile'):
    pytest.skip('CUDA graphs need a newer torch', allow_module_level=True)

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

IMAGES, LONGEST = 6, 12
in_a_graph = StepGraphs._recorded
CONTENT = {'attention': 'content', 'attentionHeads': 2}
SETTINGS = [(cocoSource_xcnnfused, 'RNN', 1, {}), (cocoSource_task2_gru, 'GRU', 2, {}),
            (cocoSource_task3_lstm, 'LSTM', 2, {'learningRecipe': 'regularised'}),
            (cocoSource_task4_attention, 'LSTM', 2, {}),
            (cocoSource_task4_attention, 'LSTM', 2, CONTENT)]
every_setting = pytest.mark.parametrize('module, cell, layers, changes', SETTINGS)


class CalledAgain:
    """In place of a CUDA graph: calls the function again, on the same tensors."""

    def __init__(self, graphs, inputs):
        self.graphs, self.inputs = graphs, inputs
        self.loss = torch.zeros((), device=graphs.model.device)

    def replay(self):
        self.loss.copy_(self.graphs._pass(*self.inputs))


def called_again(graphs, *inputs):
    graph = CalledAgain(graphs, inputs)
    return graph, graph.loss


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch):
    monkeypatch.setattr(StepGraphs, '_recorded', called_again)


def new_model(module, cell, layers, changes, recorded=False, use_cuda=False):
    torch.manual_seed(1)
    config = {**config_for(cell, layers), 'truncated_backprop_length': LONGEST,
              'optimizer': 'SGD', 'learningRate': {'lr': .1}, 'weight_decay': 0, 'seed': 1,
              'scheduler_milestones': [], 'scheduler_factor': 1, **changes}
    model = Model(config, {'cuda': {'use_cuda': use_cuda, 'device_idx': 0}, 'inference': False,
                           'batch_size': IMAGES},
                  module.ImageCaptionModel)
    model.graphs.possible = recorded
    for layer in model.net.modules():
        layer.train(not isinstance(layer, torch.nn.Dropout))  # whose draws differ with the padding
    return model


def batches(attends):
    """Batches of several lengths, in one part, in two, with samples of each image, a small one."""
    torch.manual_seed(2)
    for longest, captions_per_image, images in ((9, 1, 6), (7, 1, 6), (14, 1, 6), (9, 1, 6),
                                                (7, 4, 6), (8, 1, 2), (9, 1, 6), (7, 4, 6)):
        lengths = torch.randint(2, longest, (images * captions_per_image,)).tolist()
        captions = [[1, *torch.randint(3, V, (length,)).tolist(), 0] for length in lengths]
        captions[1] = [1] + [3] * longest + [0]
        batch = {'cnn_features': torch.randn(images, 10, D) if attends else torch.randn(images, D),
                 **Collate(LONGEST).captionTensors(captions)}
        if captions_per_image > 1:
            batch['advantages'] = torch.randn(len(captions))
        yield batch


@every_setting
def test_they_learn_the_same(module, cell, layers, changes, monkeypatch, capsys):
    monkeypatch.setattr('utils.model.droppedWords', lambda words: words)
    monkeypatch.setattr('utils.networks.learningRecipe.HIDDEN_DROPOUT', 0.)
    models = [new_model(module, cell, layers, changes, recorded) for recorded in (False, True)]
    for batch in batches(module is cocoSource_task4_attention):
        words = float(batch['yWeights'].sum())
        losses, recorded = (torch.stack(model.learn(batch, words)) for model in models)
        torch.testing.assert_close(recorded, losses)
    plain, recorded = (model.net.state_dict() for model in models)
    for name in plain:
        torch.testing.assert_close(recorded[name], plain[name], rtol=1e-4, atol=1e-4)
    steps = models[1].graphs
    assert steps.possible
    assert [steps for _, _, steps in steps.graphs] == [LONGEST, 10, 8, LONGEST, 8]
    assert capsys.readouterr().out == ''


def test_gradients_that_overflow_or_are_missing(capsys):
    """As in float16 until the scale of the loss has adapted, and of a layer that is used nowhere.
    """
    model = new_model(*SETTINGS[1], recorded=True)
    model.net.unused = torch.nn.Linear(1, 1)
    model.scaler.scale = lambda loss: loss * float('inf')
    batch = next(batches(False))
    model.learn(batch, float(batch['yWeights'].sum()))
    assert len(model.graphs.graphs) == 2 and capsys.readouterr().out == ''


def test_without_recording_no_random_number_is_drawn_for_it():
    model = new_model(*SETTINGS[2])
    batch = next(batches(False))
    following = []
    for learn in (lambda: list(model.lossOfParts(batch)), lambda: model.learn(batch, 9.)):
        torch.manual_seed(4)
        learn()
        following.append(torch.rand(1))
    assert following[0] == following[1]


class OnDevice(TorchDispatchMode):
    """Refuses what moves values between a device and the CPU; device `meta` has no values."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        devices = {leaf.device.type for leaf in tree_leaves((args, kwargs, result))
                   if isinstance(leaf, torch.Tensor)}
        assert devices != {'cpu', 'meta'}, f'{function} moves values between devices'
        return result


@every_setting
@pytest.mark.parametrize('captions_per_image', [1, 4])
def test_nothing_waits_for_a_value(module, cell, layers, changes, captions_per_image):
    model = new_model(module, cell, layers, changes)
    model.setFeatureMean(torch.zeros(D))
    model.net.to('meta').train()
    model.device, model.feature_mean = torch.device('meta'), model.feature_mean.to('meta')
    shape = (IMAGES, 10, D) if module is cocoSource_task4_attention else (IMAGES, D)
    x = torch.ones(7, IMAGES * captions_per_image, dtype=torch.long, device='meta')
    tensors = torch.rand(shape, device='meta'), torch.ones((), device='meta'), x, x, x.float()
    with OnDevice():
        model.graphs._pass(6, *tensors)
    assert all(parameter.grad is not None for parameter in model.net.parameters())


def test_what_differs_is_not_learned(capsys, monkeypatch):
    def wrong(graphs, steps, features, words, *padded):
        return called_again(graphs, steps, features, 1.1 * words, *padded)

    monkeypatch.setattr(StepGraphs, '_recorded', wrong)
    module, cell, layers, _ = SETTINGS[3]
    models = [new_model(module, cell, layers, {}, recorded) for recorded in (False, True)]
    for batch in batches(True):
        for model in models:
            model.learn(batch, float(batch['yWeights'].sum()))
    plain, recorded = (model.net.state_dict() for model in models)
    for name in plain:
        assert torch.equal(recorded[name], plain[name])
    sentence, = capsys.readouterr().out.splitlines()
    assert sentence == ('Training goes on without CUDA graphs: '
                        'their loss or gradients differ by 9.1e-02.')


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
@pytest.mark.parametrize('precision', ['float32', 'bfloat16', 'float16'])
@every_setting
def test_a_graph_is_its_function(module, cell, layers, changes, precision, monkeypatch):
    """Bit for bit, with dropout and a new seed for each step."""
    weights = []
    for record in (in_a_graph, called_again):
        monkeypatch.setattr(StepGraphs, '_recorded', record)
        model = new_model(module, cell, layers, {**changes, 'precision': precision}, True, True)
        model.net.train()
        for number, batch in enumerate(batches(module is cocoSource_task4_attention)):
            torch.manual_seed(number)
            model.learn(batch, float(batch['yWeights'].sum()))
            assert model.graphs.possible
        weights.append(model.net.state_dict())
    for name, values in weights[0].items():
        assert torch.equal(weights[1][name], values)
