"""`config['precision']`: what is computed in it, what is not, and where it is refused."""
import io

import pytest
import torch
from test_models import TASKS, build

import utils.model
from utils.files.errors import UserError
from utils.networks import precision
from utils.networks.decoding import beamSearch

pytestmark = pytest.mark.usefixtures('without_java')
scales_on_cpus = pytest.mark.skipif(not hasattr(getattr(torch, 'amp', None), 'GradScaler'),
                                    reason='this torch scales losses on GPUs only')
CPU, GPU = torch.device('cpu'), torch.device('cuda', 0)


def test_a_device_that_is_slow_at_it_is_refused(monkeypatch):
    cpuinfo = io.StringIO('cpu cores : 2\nflags : avx2 avx512_bf16\n')
    monkeypatch.setattr(precision, 'open', lambda path: cpuinfo, raising=False)
    assert precision.hindrance('bfloat16', CPU) == ''
    monkeypatch.setattr(precision, '_cpuInstructions', lambda: {'avx2'})
    assert 'avx512_bf16' in precision.hindrance('bfloat16', CPU)
    assert precision.hindrance('float16', CPU) == 'a CPU is slow at it'
    assert precision.hindrance('float32', CPU) == ''
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda device: 'Some GPU')
    for capability, refused in (((6, 1), {'float16', 'bfloat16'}), ((7, 5), {'bfloat16'}),
                                ((9, 0), set())):
        monkeypatch.setattr(torch.cuda, 'get_device_capability',
                            lambda device, found=capability: found)
        assert {name for name in precision.PRECISIONS if precision.hindrance(name, GPU)} == refused


def test_training_is_refused_and_validation_goes_on_in_float32(
        new_trainer, validation_param, monkeypatch, capsys):
    monkeypatch.setattr(utils.model, 'hindrance',
                        lambda name, _: '' if name == 'float32' else 'this CPU is too old')
    with pytest.raises(UserError, match="cannot be 'bfloat16' here, since this CPU is too old"):
        new_trainer(precision='bfloat16')
    plain = new_trainer()
    model = utils.model.Model({**plain.config, 'precision': 'bfloat16'}, validation_param,
                              type(plain.model.net))
    assert model.precision == 'float32'
    assert 'trained in bfloat16, but this CPU is too old' in capsys.readouterr().out


def test_a_training_in_bfloat16(new_trainer, monkeypatch):
    """Close to that in float32 and yet another; the loss and all that is kept are float32."""
    monkeypatch.setattr(utils.model, 'hindrance', lambda *_: '')
    models, dtypes = [], set()
    for name in ('bfloat16', 'float32'):
        trainer = new_trainer(numbOfEpochs=2, modelName=name, precision=name)
        loss_fn = trainer.model.loss_fn

        def watched(logits, *others, loss_fn=loss_fn):
            dtypes.add(logits.dtype)
            return loss_fn(logits, *others)

        trainer.model.loss_fn = watched
        trainer.train()
        models.append(trainer.model)
    short, plain = models
    tensors = [*short.net.state_dict().values()]
    for state in short.optimizer.state.values():
        tensors += [value for value in state.values() if torch.is_tensor(value)]
    dtypes.update(tensor.dtype for tensor in tensors if tensor.is_floating_point())
    assert dtypes == {torch.float32}
    losses = [model.history[-1]['train_loss'] for model in models]
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=.01)


@pytest.mark.parametrize('task', TASKS[1:])
def test_states_and_beams_stay_float32(task):
    net, features, tokens = build(*task)
    with torch.no_grad(), precision.products('bfloat16', CPU):
        logits, state = net(features, tokens, True)
        _, scores = beamSearch(net, features, tokens[:, 0], 3)
    assert logits.dtype == torch.bfloat16 and state.dtype == scores.dtype == torch.float32
    assert not torch.equal(scores, scores.bfloat16().float())


@scales_on_cpus
def test_a_scaled_loss_learns_the_same_and_the_scale_is_kept(new_trainer, monkeypatch):
    plain = new_trainer(modelName='plain', numbOfEpochs=1)
    plain.train()
    monkeypatch.setattr(utils.model, 'lossScaler', lambda _: torch.amp.GradScaler(
        'cpu', init_scale=64., growth_interval=1))
    scaled = new_trainer()
    scaled.epochs = 1
    scaled.train()
    assert scaled.model.history == plain.model.history                   # powers of two are exact
    grown = scaled.model.scaler.get_scale()
    assert grown > 64
    assert new_trainer().model.scaler.get_scale() == grown
