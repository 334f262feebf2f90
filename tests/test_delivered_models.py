"""What the delivered models make of two demo images or two random photos, against committed values.

After a delivery, PYTHONPATH=. python tests/test_delivered_models.py writes the values anew.
"""
import functools
import importlib
import json
import os

import numpy as np
import pytest
import torch

from utils.data.captionWords import START
from utils.data.photoFeatures import applyStandard
from utils.demo.demoData import FeatureExtractor, cropsOf, detections
from utils.demo.scenes import Scene
from utils.model import Model
from utils.saverRestorer import DELIVERED, loadWeights, newestCheckpoint, readCheckpoint

VALUES = os.path.join(os.path.dirname(__file__), 'deliveredModels.json')
with open(VALUES) as values_file:
    EXPECTED = json.load(values_file)


@functools.lru_cache(maxsize=1)
def demo_features():
    """Of the validation's first two images."""
    extractor, features = FeatureExtractor(), []
    for scene in (Scene('2000'), Scene('2001')):
        scene.captions()                                                 # first, as in the data
        features.append(extractor(cropsOf(scene.draw(), detections(scene))))
    return np.stack(features)


def photo_features(standard):
    noise = torch.rand(2, 10, 2048, generator=torch.Generator().manual_seed(1)).numpy()
    return applyStandard(standard, 4 * noise ** 2 * np.float32(standard['mean']))


def values_of(name):
    """The captions' tokens, the first logits after each, and the weights of the attention."""
    checkpoint = readCheckpoint(newestCheckpoint(os.path.join(DELIVERED, name), 'best'))
    if 'trainedBy' in checkpoint:
        pytest.skip('the values are of the models that come with the package')
    standard = checkpoint.get('photoStandard')
    features = photo_features(standard) if standard else demo_features()
    if checkpoint['config']['featurepathstub'] == 'detectron2_lim10maxfeatures':
        features = features.max(1)
    model = Model(checkpoint['config'], {'cuda': {'use_cuda': False}, 'inference': True},
                  importlib.import_module(checkpoint['network']).ImageCaptionModel)
    loadWeights(model, checkpoint)
    model.net.eval()
    batch = {'cnn_features': torch.from_numpy(features), 'xTokens': torch.full((2, 1, 1), START)}
    captions = model.greedyTokens(batch)
    with torch.no_grad():
        logits, _ = model.net(model.features(batch), torch.tensor(captions), True)
    values = {'captions': captions, 'logits': logits[:, :, :3]}
    if 'attention' in checkpoint['network']:
        values['attention'] = model.attentionOver(batch, captions)[:, :, :4]
    return {key: np.float64(numbers).round(4).tolist() for key, numbers in values.items()}


@pytest.mark.parametrize('name', EXPECTED)
def test_captions_logits_and_attention(name):
    values = values_of(name)
    for key, expected in EXPECTED[name].items():
        np.testing.assert_allclose(values[key], expected, atol=2e-3)


if __name__ == '__main__':
    with open(VALUES, 'w') as values_file:
        json.dump({name: values_of(name) for name in sorted(os.listdir(DELIVERED))}, values_file)
