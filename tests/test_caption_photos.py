"""Captions of your own photos: which model, which photos, what is written."""
import json
import os
import re

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from test_photo_features import MeanColours, drawn

from cocoSource_task2_gru import ImageCaptionModel as GruModel
from cocoSource_task4_attention import ImageCaptionModel as AttentionModel
from utils import captionPhotos as script
from utils.captionPhotos import captionsOf, loadModel
from utils.data.photoFeatures import MAKER, N_FEATURES
from utils.files.errors import UserError
from utils.files.ownFiles import inProject
from utils.scripts.endings import runScript

WORDS = ['eeee', 'ssss', 'UNK', 'a', 'dog', '<b>cat</b>', 'runs']
STANDARD = {'maker': MAKER, 'mean': [100.] * N_FEATURES, 'deviation': [50.] * N_FEATURES}


@pytest.fixture
def checkpoint(config, tmp_path):
    """A function that writes a model trained on photos, its weights or some keys changed."""
    def write(model_class=AttentionModel, change=lambda weights: None, **changed):
        torch.manual_seed(1)
        sizes = {**config, 'vocabulary_size': len(WORDS), 'number_of_cnn_features': N_FEATURES}
        if model_class is AttentionModel:
            sizes.update(cellType='LSTM', featurepathstub='detectron2_lim10features')
        weights = model_class(sizes).state_dict()
        weights['output_layer.bias'][:2] = torch.tensor([1., -9.])  # ends early, never starts anew
        change(weights)
        values = {'epoch': 3, 'model_state_dict': weights, 'config': sizes,
                  'network': model_class.__module__, 'words': WORDS, 'photoStandard': STANDARD,
                  'feature_mean': torch.zeros(N_FEATURES), **changed}
        path = str(tmp_path / 'mine' / 'best_epoch3.pt')
        os.makedirs(os.path.dirname(path), exist_ok=True)
        torch.save({key: value for key, value in values.items() if value is not None}, path)
        return path

    return write


@pytest.fixture
def photos(checkpoint, tmp_path, monkeypatch):
    """The folder of photos and of results, a fast maker of features, and a model."""
    checkpoint()
    for name, folder in (('PHOTOS', 'photos'), ('RESULTS', 'photos'), ('MODEL', 'mine')):
        monkeypatch.setattr(script, name, str(tmp_path / folder))
    monkeypatch.setattr(script, 'PhotoFeatures', lambda device: MeanColours())
    (tmp_path / 'photos').mkdir()
    return tmp_path / 'photos'


def results_in(folder):
    return json.loads((folder / 'captions.json').read_bytes())


def ids_in(folder):
    return [result['image_id'] for result in results_in(folder)]


def page_of(path):
    """The data in a page of captions."""
    data = r'<script type="application/json" id="data">(.*?)</script>'
    return json.loads(re.search(data, path.read_text(encoding='utf-8'), re.DOTALL)[1])


@pytest.mark.parametrize('network', [AttentionModel, GruModel])
def test_photos_become_captions(network, photos, checkpoint, capsys):
    checkpoint(network, learnedFrom='7 & 3 photos')
    (photos / 'trip').mkdir()
    for number, name in enumerate(('b.jpg', 'trip/a.png', '000000000139.jpg')):
        drawn(number, 90, 60).save(photos / name)
    script.main()
    results = results_in(photos)
    assert ids_in(photos) == [139, 'b', 'a']
    images = page_of(photos / 'captions.html')['images']
    assert [image['imgPath'] for image in images] == ['000000000139.jpg', 'b.jpg', 'trip/a.png']
    for image, result in zip(images, results):
        words = result['caption'].split()
        assert image['caption'] == result['caption'] and words
        assert set(words) <= set(WORDS) - {'eeee', 'ssss'}
        assert image['picture'].startswith('data:image/jpeg')
        assert image['size'] == [90, 60] and image['boxes'][0] == [0, 0, 90, 60]
        captions, shares = zip(*(re.fullmatch(r'(.+) \((\d+) % per word\)', reference).groups()
                                 for reference in image['references']))
        assert captions[0] == image['caption'] and len(shares) == 3
        assert float(shares[0]) == pytest.approx(100 * image['confidence'], abs=.6)
        assert sorted(map(int, shares), reverse=True) == list(map(int, shares))
        if network is AttentionModel:
            assert np.shape(image['attention']) == (len(words), 10)
            assert_allclose(np.sum(image['attention'], axis=1), 1, atol=.01)
        else:
            assert 'attention' not in image
    out = capsys.readouterr().out
    assert f"'b.jpg': {results[1]['caption']}\n" in out
    assert f"Captions on a page: {photos / 'captions.html'}\n" in out
    assert 'best_epoch3.pt, of epoch 3. Choose another by MODEL at the top of' in out
    page = (photos / 'captions.html').read_text(encoding='utf-8')
    assert 'by the model mine, which was trained on 7 &amp; 3 photos.' in page
    assert 'page 1' not in page


@pytest.mark.parametrize('network, expected', [(AttentionModel, range(10)), (GruModel, [9])])
def test_the_captions_are_those_of_standardised_features(network, expected, checkpoint):
    saved, model = loadModel(checkpoint(network, feature_mean=torch.full((N_FEATURES,), .5)))
    seen = []
    model.net.inputLayer.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    regions = 100 + 50 * np.arange(10, dtype=np.float32)
    captionsOf([regions[:, None].repeat(N_FEATURES, axis=1)] * 2, model, saved)
    assert seen[0].numel() == 2 * len(expected) * N_FEATURES
    assert_array_equal(np.unique(seen[0]), np.subtract(expected, .5))


def test_which_models_are_taken(checkpoint, tmp_path):
    assert loadModel(inProject(script.MODEL))[0]['network'] == 'cocoSource_task4_attention'
    path = checkpoint()
    assert loadModel(path)[0]['path'] == loadModel(os.path.dirname(path))[0]['path'] == path
    with pytest.raises(UserError, match='missing cannot be used: .* Set MODEL at the top'):
        loadModel(str(tmp_path / 'missing'))


@pytest.mark.parametrize('changed, why', [
    ({'words': None}, 'words'), ({'words': WORDS[:2]}, 'size of tensor'),
    ({'photoStandard': None}, 'not trained on'),
    ({'photoStandard': {**STANDARD, 'maker': 'another'}}, 'not trained on features'),
    ({'photoStandard': {**STANDARD, 'mean': [[1.], 2.]}}, 'inhomogeneous|sequence'),
    ({'photoStandard': {**STANDARD, 'mean': [1.] * 7}}, 'broadcast'),
    ({'photoStandard': {**STANDARD, 'mean': [np.nan] * N_FEATURES}}, 'not finite'),
    ({'network': 'Exercise_Train_task1'}, 'Exercise_Train_task1, which is not in this project'),
    ({'network': 'cocoSource_missing'}, "No module named 'cocoSource_missing'"),
    ({'network': None}, 'network'),
    ({'network': 'cocoSource_task3_lstm'}, 'does not fit this network'),
    ({'feature_mean': torch.zeros(3)}, 'size'),
    ({'change': lambda weights: weights.pop('output_layer.bias')}, 'Missing key'),
    ({'change': lambda weights: weights['embedding_layer.weight'][4].fill_(np.nan)}, 'not finite'),
    ({'change': lambda weights: weights.update({'output_layer.bias': torch.zeros(3)})},
     'size mismatch')])
def test_what_is_wrong_with_a_model_is_said(changed, why, checkpoint):
    path = checkpoint(**changed)
    with pytest.raises(UserError, match=f'(?s)pt cannot be used: .*({why}).* Set MODEL at the top'):
        loadModel(path)


def test_no_word_is_said_twice_but_small_ones(checkpoint):
    saved, model = loadModel(checkpoint())
    model.net.output_layer.bias.data[0] = -9  # never the end
    words = captionsOf(np.zeros((1, 10, N_FEATURES), np.float32), model, saved)[0]['caption']
    words = [word for word in words.split() if word != 'a']
    assert len(words) == len(set(words) - {'UNK'}) == 3


def test_no_photos_end_in_a_sentence(photos):
    for name in ('notes.txt', 'broken.jpg'):
        (photos / name).write_text('no photo')
        with pytest.raises(SystemExit, match=r'no photos in .* Put some there \(JPEG, .*PHOTOS'):
            runScript(script.main)
    assert sorted(os.listdir(photos)) == ['broken.jpg', 'notes.txt']


def test_a_broken_photo_among_many_is_named(photos, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(script, 'SHOWN', 3)
    results = tmp_path / 'results'
    monkeypatch.setattr(script, 'RESULTS', str(results))
    (photos / 'x').mkdir()
    results.mkdir()
    for name in ('captions_2.html', 'captions_3.html', 'captions_4.html', 'captions_mine.html'):
        (results / name).write_text('an older run')
    for name in ('0.png', '1.png', '2.png', '4.png', 'x/1.png'):
        Image.new('RGB', (20, 20)).save(photos / name)
    (photos / '3.png').write_text('no photo')
    script.main()
    assert "Left out: '3.png', no photo of a known kind" in capsys.readouterr().out
    assert ids_in(results) == [0, '1.png', 2, 4, 'x/1.png']
    names = 'captions.html', 'captions_2.html'
    pages = [page_of(results / name) for name in names]
    links = [re.findall('<a href="(.+?)">|(page . of .)', (results / name).read_text())
             for name in names]
    assert links == [[('', 'page 1 of 2'), ('captions_2.html', '')],
                     [('captions.html', ''), ('', 'page 2 of 2')]]
    assert [[image['imgPath'] for image in page['images']] for page in pages] == [
        ['0.png', '1.png', '2.png'], ['4.png', 'x/1.png']]
    assert len(os.listdir(photos)) == 6  # nothing is written there
    assert sorted(os.listdir(results)) == [
        'captions.html', 'captions.json', 'captions_2.html', 'captions_mine.html']


def test_names_of_all_kinds(photos, capsys):
    names = [b'caf\xe9.png', b'new\nline\x1b[31m.png', 'ø².png'.encode(), b'7' * 240 + b'.png']
    for name in names + [b'broken\n\xe9.png']:
        path = os.path.join(os.fsencode(photos), name)
        with open(path, 'wb') as f:
            if name in names:
                drawn(1, 20, 20).save(f, 'PNG')
    script.main()
    out = capsys.readouterr().out
    assert "Left out: 'broken\\n\\\\xe9.png', no photo" in out and '\x1b' not in out
    ids = sorted(ids_in(photos))
    assert ids == ['7' * 240, 'caf\\xe9', 'new\nline\x1b[31m', 'ø²']
    shown = [image['imgPath'] for image in page_of(photos / 'captions.html')['images']]
    assert sorted(shown) == [f'{name}.png' for name in ids]


class Stopping(MeanColours):
    """Ctrl-C comes while it makes the third batch of features."""

    def __init__(self):
        self.batches = 0

    def __call__(self, squares):
        self.batches += 1
        if self.batches == 3:
            raise KeyboardInterrupt
        return super().__call__(squares)


def test_what_is_captioned_before_ctrl_c_is_written(photos, monkeypatch):
    monkeypatch.setattr(script, 'PhotoFeatures', lambda device: Stopping())
    monkeypatch.setattr(script, 'BATCH', 4)
    monkeypatch.setattr(script, 'SHOWN', 10)
    for number in range(30):
        Image.new('RGB', (20, 20)).save(photos / f'{number:02}.png')
    with pytest.raises(UserError, match='Stopped. 16 of 30 photos are captioned; the next start'):
        script.main()
    assert len(results_in(photos)) == 16
    pages = [page_of(photos / name) for name in ('captions.html', 'captions_2.html')]
    assert [len(page['images']) for page in pages] == [10, 6]


def test_a_photo_is_opened_once(photos, monkeypatch):
    """It may be gone afterwards."""
    for name in ('1.png', '2.png'):
        drawn(1, 30, 20).save(photos / name)
    made = script.featuresOfPhotos

    def removed(*args):
        for photo in made(*args):
            os.remove(photo[0])
            yield photo

    monkeypatch.setattr(script, 'featuresOfPhotos', removed)
    script.main()
    assert ids_in(photos) == [1, 2]


def test_results_that_cannot_be_written_are_noticed_at_once(photos, monkeypatch):
    monkeypatch.setattr(script, 'RESULTS', '/proc')  # where no user can write
    monkeypatch.setattr(script, 'photosIn', None)    # it does not come so far
    with pytest.raises(UserError, match='/proc cannot be used: .* Set RESULTS at the top'):
        script.main()
