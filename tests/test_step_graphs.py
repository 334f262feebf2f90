"""Recorded training steps, on a CPU: the same learning, by functions that a GPU can record."""
import pytest
import torch
from test_fast_paths import batch_of
from test_models import D, config_for, needs_gpu
from torch.testing import assert_close

import cocoSource_task2_gru
import cocoSource_task3_lstm
import cocoSource_task4_attention
import cocoSource_xcnnfused
from utils.model import Model
from utils.networks.decoding import (
    STEPS_BETWEEN_CHECKS,
    bestOfBeam,
    greedyTokens,
    sampledTokens,
)
from utils.networks.stepGraphs import StepGraphs

if not hasattr(torch, 'export'):  # before 2.1
    pytest.skip('CUDA graphs need a newer torch', allow_module_level=True)

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_flatten  # noqa: E402

aten = torch.ops.aten
IMAGES, LONGEST = 6, 12
in_a_graph = StepGraphs._recorded
CONTENT = {'attention': 'content', 'attentionHeads': 2}
DECODERS = [(greedyTokens, ()), (sampledTokens, (2,)), (bestOfBeam, (3,))]
SETTINGS = [(cocoSource_xcnnfused, 'RNN', 1, {}), (cocoSource_task2_gru, 'GRU', 2, {}),
            (cocoSource_task3_lstm, 'LSTM', 2, {'learningRecipe': 'regularised'}),
            (cocoSource_task4_attention, 'LSTM', 2, {}),
            (cocoSource_task4_attention, 'LSTM', 2, CONTENT)]
every_setting = pytest.mark.parametrize('setting', SETTINGS)


class OnTape(TorchDispatchMode):
    """In place of a CUDA graph: does the same operations again, on the same tensors."""

    def __init__(self):
        super().__init__()
        self.tape, self.constants = [], []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function is not aten._local_scalar_dense.default, 'a wait for a value'
        if function is aten.copy_.default:
            assert all(args[1] is not constant for constant in self.constants), 'a copy to a GPU'
        result = function(*args, **(kwargs or {}))
        if function is aten.lift_fresh.default:  # a number, which stays on the CPU
            self.constants.append(result)
        self.tape.append((function, args, kwargs or {}, result))
        return result

    @torch.no_grad()
    def replay(self):
        for function, args, kwargs, result in self.tape:
            for old, new in zip(tree_flatten(result)[0],
                                tree_flatten(function(*args, **kwargs))[0]):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def on_tape(graphs, steps):
    recorded, going = [], True
    while going is not False:
        with OnTape() as tape:
            going, result = next(steps)
        recorded.append((tape, going, result))
    return recorded


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch):
    monkeypatch.setattr(StepGraphs, '_recorded', on_tape)
    for device in 'cpu', 'meta':
        monkeypatch.setitem(STEPS_BETWEEN_CHECKS, device, 8)


def new_model(setting, recorded=False, use_cuda=False, **others):
    torch.manual_seed(1)
    module, cell, layers, changes = setting
    config = {**config_for(cell, layers), 'truncated_backprop_length': LONGEST,
              'optimizer': 'SGD', 'learningRate': {'lr': .1}, 'weight_decay': 0,
              'scheduler_milestones': [], 'scheduler_factor': 1, **changes, **others}
    model = Model(config, {'cuda': {'use_cuda': use_cuda, 'device_idx': 0}, 'inference': False,
                           'batch_size': IMAGES},
                  module.ImageCaptionModel)
    model.graphs.possible = model.captionGraphs.possible = recorded
    for layer in model.net.modules():
        layer.train(not isinstance(layer, torch.nn.Dropout))  # whose draws differ with the padding
    return model


def batches(setting):
    """Batches of several lengths, in one part, in two, with samples of each image, a small one."""
    torch.manual_seed(2)
    for longest, captions_per_image, images in ((9, 1, 6), (7, 1, 6), (14, 1, 6), (9, 1, 6),
                                                (7, 4, 6), (8, 1, 2), (9, 1, 6), (7, 4, 6)):
        lengths = torch.randint(2, longest, (images * captions_per_image,)).tolist()
        lengths[1] = longest
        batch = batch_of(torch.randn(images, *shape_of_features(setting)), lengths, LONGEST)
        if captions_per_image > 1:
            batch['advantages'] = torch.randn(len(lengths))
        yield batch


def shape_of_features(setting):
    return [10, D] if setting[0] is cocoSource_task4_attention else [D]


def captions_of(model, batch, decoder, options):
    batch = {**batch, 'xTokens': batch['xTokens'][:len(batch['cnn_features'])]}
    return model._tokens(decoder, batch, *options)


def learned(model, batch):
    """The losses of a step."""
    return model.learn(batch, float(batch['yWeights'].sum()))


@every_setting
def test_they_learn_the_same(setting, monkeypatch, capsys):
    monkeypatch.setattr('utils.model.droppedWords', lambda words: words)
    monkeypatch.setattr('utils.networks.learningRecipe.HIDDEN_DROPOUT', 0.)
    models = [new_model(setting, recorded) for recorded in (False, True)]
    for batch in batches(setting):
        losses, recorded = (torch.stack(learned(model, batch)).sum() for model in models)
        assert_close(recorded, losses)
    assert_close(*(model.net.state_dict() for model in models), rtol=1e-4, atol=1e-4)
    steps = models[1].graphs
    assert steps.possible
    assert [key[2:] for key in steps.graphs] == [(1, LONGEST), (1, 10), (1, 8), (2, LONGEST),
                                                 (1, LONGEST), (1, 8)]
    assert capsys.readouterr().out == ''


def test_gradients_that_overflow_or_are_missing(capsys):
    """As in float16 until the scale of the loss has adapted, and of a layer that is used nowhere.
    """
    model = new_model(SETTINGS[1], recorded=True)
    model.net.unused = torch.nn.Linear(1, 1)
    model.scaler.scale = lambda loss: loss * float('inf')
    batch = next(batches(SETTINGS[1]))
    learned(model, batch)
    assert len(model.graphs.graphs) == 2 and capsys.readouterr().out == ''


@every_setting
@pytest.mark.parametrize('decoder, options', DECODERS)
def test_they_caption_the_same(setting, decoder, options, capsys):
    """Images, and weights, that they have not been recorded with."""
    models = [new_model(setting, recorded) for recorded in (False, True)]
    found = []
    for batch in batches(setting):
        batch['cnn_features'] *= 30
        for model in models:
            model.net.eval().output_layer.weight.data *= 2
            torch.manual_seed(3)
            found.append(captions_of(model, batch, decoder, options))
    assert found[::2] == found[1::2]
    assert len(set(map(str, found))) > 3
    assert [len(graphs) for graphs in models[1].captionGraphs.graphs.values()] == [5]
    assert capsys.readouterr().out == ''


def test_without_recording_no_random_number_is_drawn_for_it():
    model = new_model(SETTINGS[2])
    batch = next(batches(SETTINGS[1]))
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
        devices = {leaf.device.type for leaf in tree_flatten((args, kwargs, result))[0]
                   if isinstance(leaf, torch.Tensor)}
        assert devices != {'cpu', 'meta'}, f'{function} moves values between devices'
        return result


@every_setting
@pytest.mark.parametrize('captions_per_image', [1, 4])
def test_nothing_waits_for_a_value(setting, captions_per_image):
    model = new_model(setting)
    model.setFeatureMean(torch.zeros(D))
    model.net.to('meta').train()
    model.device, model.feature_mean = torch.device('meta'), model.feature_mean.to('meta')
    x = torch.ones(2, 7, IMAGES * captions_per_image, dtype=torch.long, device='meta')
    features = torch.rand(IMAGES, *shape_of_features(setting), device='meta')
    tensors = features, torch.ones((), device='meta'), x, x, x.float()
    with OnDevice():
        list(model.graphs._pass((True, x.shape[2], 2, 6), *tensors))
    assert all(parameter.grad is not None for parameter in model.net.parameters())
    model.net.eval()
    start = x[0, 0, :IMAGES]
    for decoder, options in DECODERS:
        with torch.no_grad(), OnDevice():
            list(model.captionGraphs._captions((False, decoder, options), features, start))


def wrong(graphs, steps):
    for (place, _), tensor in graphs.inputs.items():
        tensor += 9 * (place == 1)  # the number of words, or the start tokens
    return on_tape(graphs, steps)


def failing(graphs, steps):
    on_tape(graphs, steps)
    raise RuntimeError('it cannot be recorded.\nC++ stack trace')


@pytest.mark.parametrize('record, reason, setting', [
    (wrong, 'their results differ by ', SETTINGS[0]),
    (failing, 'it cannot be recorded.', SETTINGS[3])])  # which has running statistics
def test_what_differs_or_fails_is_not_used(record, reason, setting, capsys, monkeypatch):
    monkeypatch.setattr(StepGraphs, '_recorded', record)
    models = [new_model(setting, recorded) for recorded in (False, True)]
    for model in models:
        model.net.embedding_layer.weight.data *= 9  # so that start tokens matter
    for batch in batches(setting):
        captions = []
        for model in models:
            learned(model, batch)
            torch.manual_seed(1)
            captions.append(captions_of(model, batch, *DECODERS[1]))
        assert captions[0] == captions[1]
    assert_close(*(model.net.state_dict() for model in models), rtol=0, atol=0)
    sentences = capsys.readouterr().out.splitlines()
    assert len(sentences) == 2
    for sentence in sentences:
        assert sentence.startswith(f'The run goes on without CUDA graphs: {reason}')


@needs_gpu
@pytest.mark.parametrize('precision', ['float32', 'bfloat16', 'float16'])
@every_setting
def test_a_graph_is_its_function(setting, precision, monkeypatch):
    """Bit for bit, with dropout and a new seed for each step."""
    monkeypatch.setattr(torch.backends.cudnn, 'deterministic', True)
    weights, captions = [], []
    for record in (in_a_graph, on_tape):
        monkeypatch.setattr(StepGraphs, '_recorded', record)
        model = new_model(setting, recorded=True, use_cuda=True, precision=precision)
        model.net.train()
        found = []
        for number, batch in enumerate(batches(setting)):
            torch.manual_seed(number)
            learned(model, batch)
            found += [captions_of(model, batch, *decoder) for decoder in DECODERS]
            assert model.graphs.possible and model.captionGraphs.possible
        weights.append(model.net.state_dict())
        captions.append(found)
    assert_close(*weights, rtol=0, atol=0)
    assert captions[0] == captions[1]
