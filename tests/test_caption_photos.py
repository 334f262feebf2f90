"""Captions of your own photos: which model, which photos, what is written."""
import json
import os
import re

import numpy as np
import pytest
import torch
from PIL import Image
from test_photo_features import MeanColours, drawn

from cocoSource_task2_gru import ImageCaptionModel as GruModel
from cocoSource_task4_attention import ImageCaptionModel as AttentionModel
from utils import captionPhotos as script
from utils.captionPhotos import captionsOf, findModel, modelOf
from utils.data.photoFeatures import MAKER, N_FEATURES
from utils.files.errors import UserError
from utils.files.project import inProject
from utils.saverRestorer import readCheckpoint
from utils.scripts.endings import runScript

WORDS = ['eeee', 'ssss', 'UNK', 'a', 'dog', '<b>cat</b>', 'runs']
STANDARD = {'maker': MAKER, 'mean': [100.] * N_FEATURES, 'deviation': [50.] * N_FEATURES}


@pytest.fixture
def checkpoint(config, tmp_path):
    """A function that writes a model trained on photos, with some of its keys changed."""
    def write(model_class=AttentionModel, **changed):
        torch.manual_seed(1)
        sizes = {**config, 'vocabulary_size': len(WORDS), 'number_of_cnn_features': N_FEATURES}
        if model_class is AttentionModel:
            sizes.update(cellType='LSTM', featurepathstub='detectron2_lim10features')
        weights = model_class(sizes).state_dict()
        weights['output_layer.bias'][:2] = torch.tensor([1., -9.])  # ends early, never starts anew
        values = {'epoch': 3, 'model_state_dict': weights, 'config': sizes,
                  'network': model_class.__module__, 'words': WORDS, 'photoStandard': STANDARD,
                  'feature_mean': torch.zeros(N_FEATURES), **changed}
        path = str(tmp_path / 'mine' / 'best_epoch3.pt')
        os.makedirs(os.path.dirname(path), exist_ok=True)
        torch.save({key: value for key, value in values.items() if value is not None}, path)
        return path

    return write


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """The folder of photos and of results, and a fast maker of features."""
    for name, folder in (('PHOTOS', 'photos'), ('RESULTS', 'photos'), ('MODEL', 'mine')):
        monkeypatch.setattr(script, name, str(tmp_path / folder))
    monkeypatch.setattr(script, 'PhotoFeatures', lambda device: MeanColours())
    (tmp_path / 'photos').mkdir()
    return tmp_path / 'photos'


def page_of(path):
    """The data in a page of captions."""
    data = r'<script type="application/json" id="data">(.*?)</script>'
    return json.loads(re.search(data, path.read_text(encoding='utf-8'), re.DOTALL)[1])


@pytest.mark.parametrize('network', [AttentionModel, GruModel])
def test_photos_become_captions(network, photos, checkpoint, capsys):
    checkpoint(network)
    (photos / 'trip').mkdir()
    for number, name in enumerate(('b.jpg', 'trip/a.png', '000000000139.jpg')):
        drawn(number, 90, 60).save(str(photos / name))
    script.main()
    results = json.loads((photos / 'captions.json').read_text())
    assert [result['image_id'] for result in results] == [139, 'b', 'a']
    images = page_of(photos / 'captions.html')['images']
    assert [image['imgPath'] for image in images] == ['000000000139.jpg', 'b.jpg', 'trip/a.png']
    for position, (image, result) in enumerate(zip(images, results)):
        words = result['caption'].split()
        assert image['caption'] == result['caption'] and words
        assert set(words) <= set(WORDS) - {'eeee', 'ssss'}
        assert image['position'] == position and image['picture'].startswith('data:image/jpeg')
        assert image['size'] == [90, 60] and image['boxes'][0] == [0, 0, 90, 60]
        assert len(image['references']) == 3
        for reference in image['references']:
            probabilities = re.fullmatch(r'(.+) \((\d+)% a word, (.+) in all\)', reference)
            caption, per_word, whole = probabilities.groups()
            steps = min(len(caption.split()) + 1, 40)
            assert float(per_word) == pytest.approx(100 * float(whole) ** (1 / steps), abs=2)
        if network is AttentionModel:
            assert np.shape(image['attention']) == (len(words), 10)
            np.testing.assert_allclose(np.sum(image['attention'], axis=1), 1, atol=.01)
        else:
            assert 'attention' not in image
    assert f"b: {results[1]['caption']}\n" in capsys.readouterr().out


@pytest.mark.parametrize('network, expected', [(AttentionModel, range(10)), (GruModel, [9])])
def test_the_captions_are_those_of_standardised_features(network, expected, checkpoint):
    saved = readCheckpoint(checkpoint(network, feature_mean=torch.full((N_FEATURES,), .5)))
    model, seen = modelOf(saved), []
    model.net.inputLayer.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    regions = 100 + 50 * np.arange(10, dtype=np.float32)
    captionsOf([regions[:, None].repeat(N_FEATURES, axis=1)] * 2, model, saved)
    assert seen[0].numel() == 2 * len(expected) * N_FEATURES
    np.testing.assert_array_equal(np.unique(seen[0]), np.subtract(expected, .5))


def test_which_models_are_taken(checkpoint, tmp_path):
    assert findModel(inProject(script.MODEL))['network'] == 'cocoSource_task4_attention'
    path = checkpoint()
    assert findModel(path)['path'] == findModel(os.path.dirname(path))['path'] == path
    with pytest.raises(UserError, match='missing cannot be used'):
        findModel(str(tmp_path / 'missing'))
    for lacking in ({'words': None}, {'photoStandard': None},
                    {'photoStandard': {**STANDARD, 'maker': 'another'}}):
        with pytest.raises(UserError, match='not trained on features .* Set MODEL'):
            findModel(checkpoint(**lacking))
    for network in ('Exercise_Train_task1', 'cocoSource_missing'):
        with pytest.raises(UserError, match=f'the network {network}.py, which is not in this'):
            modelOf(readCheckpoint(checkpoint(network=network)))


def test_no_photos_end_in_a_sentence(photos, checkpoint):
    checkpoint()
    for name in ('notes.txt', 'broken.jpg'):
        (photos / name).write_text('no photo')
        with pytest.raises(SystemExit, match=r'no photos in .* Put some there \(JPEG, .*PHOTOS'):
            runScript(script.main)
    assert sorted(os.listdir(str(photos))) == ['broken.jpg', 'notes.txt']


def test_a_broken_photo_among_many_is_named(photos, checkpoint, capsys, monkeypatch, tmp_path):
    checkpoint()
    monkeypatch.setattr(script, 'SHOWN', 3)
    monkeypatch.setattr(script, 'RESULTS', str(tmp_path / 'results'))
    (photos / 'x').mkdir()
    for name in ('0.png', '1.png', '2.png', '4.png', 'x/1.png'):
        Image.new('RGB', (20, 20)).save(str(photos / name))
    (photos / '3.png').write_text('no photo')
    script.main()
    assert 'Left out: 3.png, no photo of a known kind' in capsys.readouterr().out
    results = json.loads((tmp_path / 'results' / 'captions.json').read_text())
    assert [result['image_id'] for result in results] == [0, '1.png', 2, 4, 'x/1.png']
    pages = [page_of(tmp_path / 'results' / name) for name in ('captions.html', 'captions_2.html')]
    assert [[image['imgPath'] for image in page['images']] for page in pages] == [
        ['0.png', '1.png', '2.png'], ['4.png', 'x/1.png']]
    assert len(os.listdir(str(photos))) == 6  # nothing is written there
