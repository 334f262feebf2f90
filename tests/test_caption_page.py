"""The page of captions: what it holds of each image, which images it shows, and that nothing in a caption acts."""
import base64
import io
import json
import os
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from utils.dataLoader import DataLoaderWrapper
from utils.pages import captionPage
from utils.pages.captionPage import spread, writeCaptionPage

SCORES = {'meteor': 0.25, 'bleu_4': 0.125, 'cider': 0.5, 'rouge': 0.375}
EVIL = ['</script><script>alert(1)</script>', '<img src=x onerror=alert(1)>', '<!-- <script>', '"\' & PAGE_DATA \u2028 ø']


class Scripts(HTMLParser):
    """Counts the tags, and gathers the text of each script element, as a browser finds them."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.scripts = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == 'script':
            self.scripts.append('')

    def handle_data(self, data):
        if self.tags and self.tags[-1] == 'script':
            self.scripts[-1] += data


class Images(DataLoaderWrapper):
    """A `DataLoaderWrapper` of nothing but the image files."""

    def __init__(self, folder):
        self.modelParam = {'data_dir': str(folder)}


@pytest.fixture
def written(model_param, tmp_path):
    """A function that writes the page of some details; returns its text and the data in it."""
    def write(details):
        os.makedirs(os.path.join(model_param['modelsDir'], 'm'), exist_ok=True)
        with open(os.path.join(model_param['modelsDir'], 'm', 'details_validation.json'), 'w') as f:
            json.dump(details, f)
        path = writeCaptionPage(SCORES, model_param, Images(tmp_path))
        assert path == os.path.join(model_param['img_dir'], 'm', 'captions.html')
        with open(path, encoding='utf-8') as f:
            page = f.read()
        return page, json.loads(Scripts(page).scripts[0])

    return write


def detail(number, meteor, **more):
    return {'image_id': number, 'imgPath': f'{number}.jpg', 'caption': f'dog number {number}', 'meteor': meteor,
            'references': [f'The dog {number}.', 'A dog.'], **more}


def test_every_image_with_all_that_is_known_of_it(written, tmp_path):
    details = [detail(1, 0.5), detail(2, 0.75, attention=[[0.25, 0.75]] * 3, boxes=[[0, 0, 8, 9], [1, 2, 3, 4]]), detail(3, 0.1)]
    _, data = written(details)
    assert [image['rank'] for image in data['images']] == [1, 2, 3]
    for image, position in zip(data['images'], (1, 0, 2)):
        assert image['position'] == position and {key: image[key] for key in details[position]} == details[position]
    assert (data['model'], data['data'], data['number'], data['scores']) == ('m', 'data', 3, SCORES)


def test_pictures_are_small_and_inside(written, tmp_path):
    (tmp_path / 'val2017').mkdir()
    Image.new('L', (1000, 500), 100).save(str(tmp_path / 'val2017' / '1.jpg'))  # grey
    _, data = written([detail(1, 0.5)])
    image, = data['images']
    assert image['size'] == [1000, 500]
    kind, content = image['picture'].split(',')
    assert kind == 'data:image/jpeg;base64'
    with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
        assert picture.size == (captionPage.PIXELS, captionPage.PIXELS // 2) and picture.mode == 'RGB'


def test_missing_and_broken_pictures_leave_the_frame_of_the_boxes_or_none(written, tmp_path):
    (tmp_path / 'val2017').mkdir()
    (tmp_path / 'val2017' / '1.jpg').write_bytes(b'no picture')
    Image.new('RGB', (300, 200)).save(str(tmp_path / 'val2017' / '3.jpg'))
    whole = (tmp_path / 'val2017' / '3.jpg').read_bytes()
    (tmp_path / 'val2017' / '3.jpg').write_bytes(whole[:len(whole) // 2])
    _, data = written([detail(1, 0.5), detail(2, 0.4, boxes=[[0, 5, 80, 9], [1, 2, 3, 60]]), detail(3, 0.3)])
    assert [image['picture'] for image in data['images']] == [None] * 3
    assert [image['size'] for image in data['images']] == [None, [80, 60], None]


def test_captions_are_text_and_nothing_else(written):
    plain, _ = written([detail(1, 0.5)])
    page, data = written([{**detail(1, 0.5), 'caption': text, 'references': EVIL, 'imgPath': text + '.jpg'} for text in EVIL])
    assert [image['caption'] for image in data['images']] == EVIL and data['images'][0]['references'] == EVIL
    assert Scripts(page).tags == Scripts(plain).tags
    assert '<' not in Scripts(page).scripts[0] and Scripts(page).scripts[1] == Scripts(plain).scripts[1]
    assert not re.search('innerHTML|outerHTML|insertAdjacentHTML|document.write', page)  # data become text nodes alone


def test_the_page_asks_nothing_of_a_network(written):
    page, _ = written([detail(1, 0.5)])
    assert not re.search(r'(https?:)?//[a-z0-9-]+\.|@import|url\(|fetch\(|XMLHttpRequest', page)
    assert "default-src 'none'" in page
    assert all(link.startswith('data:') for link in re.findall(r'(?:src|href)="([^"]*)"', page))


def test_many_images_are_shown_evenly_from_the_best_to_the_worst(written, monkeypatch):
    monkeypatch.setattr(captionPage, 'SHOWN', 5)
    _, data = written([detail(number, number * 7 % 23 / 23) for number in range(23)])
    assert [image['rank'] for image in data['images']] == [1, 6, 12, 17, 23] and data['number'] == 23
    assert [image['meteor'] * 23 for image in data['images']] == pytest.approx([22, 17, 11, 6, 0])


@pytest.mark.parametrize('number', [1, 2, 499, 500, 501, 999, 5000])
def test_spread(number):
    places = list(spread(number, 500))
    assert len(places) == min(number, 500) and places[0] == 0 and places[-1] == number - 1
    steps = {after - before for before, after in zip(places, places[1:])}
    assert not steps or min(steps) > 0 and max(steps) - min(steps) <= 1


def test_equal_scores_keep_the_order_of_the_images(written):
    _, data = written([detail(number, 0.5) for number in range(4)])
    assert [image['position'] for image in data['images']] == [0, 1, 2, 3]
