"""The same seed gives the same weights on several threads: at real sizes, as small ones hide it."""
import importlib

import pytest
import torch
from test_fast_paths import batch_of

from utils.model import Model, seedEverything

IMAGES, V = 128, 500


@pytest.fixture(autouse=True)
def several_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(5)  # which share out a batch unevenly
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize('task, captions_per_image, changes', [
    (1, 1, {}), (2, 1, {'learningRecipe': 'regularised'}), (3, 4, {}), (4, 1, {}),
    (4, 1, {'attention': 'content', 'attentionHeads': 2}), (4, 4, {'attention': 'content'})])
def test_gradients_are_the_same_again(task, captions_per_image, changes):
    script = importlib.import_module(f'Exercise_Train_task{task}')
    config = {**script.config, 'vocabulary_size': V, 'hidden_state_sizes': 128, **changes}
    modelParam = {'cuda': {'use_cuda': False}, 'inference': False}
    model = Model(config, modelParam, script.ImageCaptionModel)
    model.net.train(captions_per_image == 1)
    seedEverything(1)
    features = torch.randn([IMAGES, 10, 2048] if task == 4 else [IMAGES, 2048])
    lengths = torch.randint(5, 24, (IMAGES * captions_per_image,)).tolist()
    batch = batch_of(features, lengths, 25, V)
    if captions_per_image > 1:  # as in self-critical epochs
        batch['advantages'] = torch.randn(len(lengths))
    gradients = []
    for _ in range(4):
        seedEverything(2)
        model.net.zero_grad()
        sum(model.lossOfParts(batch)).backward()
        gradients.append(torch.cat([parameter.grad.flatten()
                                    for parameter in model.net.parameters()]))
    for again in gradients[1:]:
        assert torch.equal(again, gradients[0])
