"""`config['precision']`, and the cross entropy in parts."""
import importlib

import pytest
import torch
import torch.nn.functional as F
from test_training import build

import cocoSource_task4_attention
import utils.model
from cocoSource_xcnnfused import CrossEntropies
from utils.files.errors import UserError
from utils.networks import precision
from utils.networks.decoding import beamSearch

pytestmark = pytest.mark.usefixtures('shared_meteor')
scales_on_cpus = pytest.mark.skipif(not hasattr(getattr(torch, 'amp', None), 'GradScaler'),
                                    reason='this torch scales losses on GPUs only')
ROWS = CrossEntropies.words_at_once['cpu']
CPU, GPU = torch.device('cpu'), torch.device('cuda', 0)


@pytest.mark.parametrize('words', [1, ROWS, 2 * ROWS + 3])
def test_cross_entropy_in_parts_is_that_of_torch(words):
    torch.manual_seed(1)
    ours = torch.randn(words, 50, requires_grad=True)
    torchs = ours.detach().clone().requires_grad_()
    tokens, weights = torch.randint(0, 50, (words,)), torch.rand(words)
    values = CrossEntropies.apply(ours, tokens), F.cross_entropy(torchs, tokens, reduction='none')
    for value in values:
        (value * weights).sum().backward()
    assert torch.equal(*values) and torch.equal(ours.grad, torchs.grad)


def test_cross_entropy_of_short_logits_is_computed_in_float32():
    torch.manual_seed(1)
    logits = (5 * torch.randn(100, 50)).bfloat16()
    short, long = logits.clone().requires_grad_(), logits.float().requires_grad_()
    tokens = torch.randint(0, 50, (100,))
    values = [CrossEntropies.apply(each, tokens) for each in (short, long)]
    for value in values:
        value.sum().backward()
    assert values[0].dtype == torch.float32 and torch.equal(*values)
    assert torch.equal(short.grad, long.grad.bfloat16())


def test_a_device_that_is_slow_at_it_is_refused(monkeypatch):
    monkeypatch.setattr(precision, '_cpuInstructions', lambda: {'avx2'})
    assert 'avx512_bf16' in precision.hindrance('bfloat16', CPU) and precision.hindrance('float16', CPU)
    assert precision.hindrance('float32', CPU) == ''
    monkeypatch.setattr(precision, '_cpuInstructions', lambda: {'avx2', 'avx512_bf16'})
    assert precision.hindrance('bfloat16', CPU) == ''
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda device: 'Some GPU')
    for capability, hindered in (((6, 1), {'float16', 'bfloat16'}), ((7, 5), {'bfloat16'}), ((9, 0), set())):
        monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device, found=capability: found)
        assert {name for name in precision.PRECISIONS if precision.hindrance(name, GPU)} == hindered
    assert precision.hindrance('bfloat16', GPU) == ''


def test_training_is_refused_and_validation_goes_on_in_float32(course_folder, config, model_param, monkeypatch, capsys):
    course_folder()
    monkeypatch.setattr(utils.model, 'hindrance', lambda name, _: '' if name == 'float32' else 'this CPU is too old')
    with pytest.raises(UserError, match="cannot be 'bfloat16' here, since this CPU is too old"):
        build({**config, 'precision': 'bfloat16'}, model_param)
    model = utils.model.Model({**config, 'precision': 'bfloat16'}, {**model_param, 'inference': True},
                              type(build(config, model_param).model.net))
    assert model.precision == 'float32' and 'trained in bfloat16, but this CPU is too old' in capsys.readouterr().out


def test_a_training_in_bfloat16(course_folder, config, model_param, monkeypatch):
    """Close to that in float32 and yet another; all that is kept is float32; it goes on to the same result."""
    course_folder()
    monkeypatch.setattr(utils.model, 'hindrance', lambda *_: '')
    kept = {}
    for name, settings, epochs in (('whole', {'precision': 'bfloat16'}, [2]), ('resumed', {'precision': 'bfloat16'}, [1, 2]),
                                   ('float32', {}, [2])):
        for last in epochs:
            trainer = build({**config, **settings}, {**model_param, 'modelName': name, 'numbOfEpochs': 2})
            trainer.modelParam = {**trainer.modelParam, 'numbOfEpochs': last}
            trainer.train()
        kept[name] = trainer.model
    short, other, plain = kept['whole'], kept['resumed'], kept['float32']
    tensors = [*short.net.state_dict().values(), *(value for state in short.optimizer.state.values() for value in state.values())]
    assert {tensor.dtype for tensor in tensors if torch.is_tensor(tensor) and tensor.is_floating_point()} == {torch.float32}
    assert short.history == other.history
    for ours, resumed, full in zip(*(model.net.parameters() for model in (short, other, plain))):
        assert torch.equal(ours, resumed)
    losses = [model.history[-1]['train_loss'] for model in (short, plain)]
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=.01)


@pytest.mark.parametrize('module, cell', [('cocoSource_task2_gru', 'GRU'), ('cocoSource_task3_lstm', 'LSTM')])
def test_states_stay_float32(module, cell):
    net = importlib.import_module(module).ImageCaptionModel({
        'vocabulary_size': 20, 'embedding_size': 8, 'number_of_cnn_features': 16, 'hidden_state_sizes': 8, 'num_rnn_layers': 2,
        'cellType': cell})
    with precision.products('bfloat16', CPU):
        logits, state = net(torch.rand(3, 16), torch.ones(3, 4, dtype=torch.long), True)
    assert logits.dtype == torch.bfloat16 and state.dtype == torch.float32


def test_a_beam_adds_up_in_float32():
    net = cocoSource_task4_attention.ImageCaptionModel({
        'vocabulary_size': 20, 'embedding_size': 8, 'number_of_cnn_features': 16, 'hidden_state_sizes': 8, 'num_rnn_layers': 2,
        'cellType': 'LSTM'}).eval()
    with torch.no_grad(), precision.products('bfloat16', CPU):
        captions, scores = beamSearch(net, torch.rand(3, 10, 16), torch.ones(3, dtype=torch.long), 3)
        logits, _ = net(torch.rand(3, 10, 16), captions[:, 0], True)
    assert logits.dtype == torch.bfloat16                                        # as what is added up comes
    assert scores.dtype == torch.float32 and not torch.equal(scores, scores.bfloat16().float())


@scales_on_cpus
def test_a_scaled_loss_learns_the_same_and_the_scale_is_kept(course_folder, config, model_param, monkeypatch):
    course_folder()
    plain = build({**config, 'learningRecipe': 'assignment'}, {**model_param, 'modelName': 'plain', 'numbOfEpochs': 1})
    plain.train()
    monkeypatch.setattr(utils.model, 'lossScaler', lambda _: torch.amp.GradScaler('cpu', init_scale=64., growth_interval=1))
    scaled = build(config, {**model_param, 'modelName': 'scaled', 'numbOfEpochs': 2})
    scaled.modelParam = {**scaled.modelParam, 'numbOfEpochs': 1}
    scaled.train()
    assert scaled.model.history == plain.model.history                            # powers of two round nothing
    grown = scaled.model.scaler.get_scale()
    assert grown > 64
    assert build(config, {**model_param, 'modelName': 'scaled', 'numbOfEpochs': 2}).model.scaler.get_scale() == grown


@scales_on_cpus
def test_a_step_that_overflows_is_left_out(course_folder, config, model_param, monkeypatch):
    course_folder()
    monkeypatch.setattr(utils.model, 'lossScaler', lambda _: torch.amp.GradScaler('cpu', init_scale=2. ** 126))
    trainer = build(config, model_param)
    before = [parameter.detach().clone() for parameter in trainer.model.net.parameters()]
    batch = next(iter(trainer.dataLoader.myDataDicts['train']))
    trainer.model.net.train()
    trainer.model.learn(trainer.model.lossOfParts(batch), 1e-3)
    assert all(map(torch.equal, before, trainer.model.net.parameters()))
    assert trainer.model.scaler.get_scale() == 2. ** 125
