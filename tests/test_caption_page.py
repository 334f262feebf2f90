"""The pages and pictures of captions: what they show, and that captions are text alone."""
import base64
import io
import json
import os
import re
import shutil
import subprocess
from types import SimpleNamespace
from urllib.parse import unquote

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text
from PIL import Image

from utils.files.ownFiles import runFolder, writeJson
from utils.pages import captionPage, examplePictures
from utils.pages.captionPage import writeCaptionPage
from utils.plotter import curvesFigure
from utils.validate import plotImagesAndCaptions

SCORES = {'meteor': 0.25, 'bleu_4': 0.125, 'cider': 0.5, 'rouge': 0.375}
EVIL = ['</script><script>alert(1)</script>', '<img src=x onerror=alert(1)>', '<!-- <script>',
        '"\' & PAGE_DATA \u2028 ø']


def scriptsOf(page):
    """The texts of the page's two scripts, as a browser divides them: the data and the code."""
    return re.findall('<script.*?>(.*?)</script>', page, re.DOTALL)


@pytest.fixture
def written(model_param):
    """A function that writes the page of some details; returns its text and the data in it."""
    def write(details):
        writeJson(os.path.join(runFolder(model_param), 'details_validation.json'), details)
        path = writeCaptionPage(SCORES, model_param)
        assert path == os.path.join(model_param['img_dir'], 'm', 'captions.html')
        with open(path, encoding='utf-8') as f:
            page = f.read()
        return page, json.loads(scriptsOf(page)[0])

    return write


def detail(number, meteor, **more):
    return {'image_id': number, 'imgPath': f'{number}.jpg', 'caption': f'dog number {number}',
            'meteor': meteor, 'references': [f'The dog {number}.', 'A dog.'], **more}


def test_every_image_with_all_that_is_known_of_it(written):
    looked = {'attention': [[0.25, 0.75]] * 3, 'boxes': [[0, 0, 8, 9], [1, 2, 3, 4]]}
    details = [detail(1, 0.5), detail(2, 0.75, **looked), detail(3, 0.1)]
    page, data = written(details)
    assert data['images'] == [{**details[number], 'rank': rank}
                              for rank, number in ((1, 1), (2, 0), (3, 2))]
    for text in ('<h1>Captions of m</h1>', 'data: 3 of 3 validation images.',
                 '<dt>METEOR</dt><dd>25.0 %</dd>', '<dt>BLEU-4</dt><dd>12.5 %</dd>',
                 '<dt>CIDEr</dt><dd>50.0 %</dd>', '<dt>ROUGE-L</dt><dd>37.5 %</dd>'):
        assert text in page


def test_pictures_are_small_and_inside_and_broken_ones_left_out(written, tmp_path):
    (tmp_path / 'data' / 'val2017').mkdir(parents=True)
    Image.new('L', (1000, 500), 100).save(tmp_path / 'data' / 'val2017' / '1.jpg')  # grey
    (tmp_path / 'data' / 'val2017' / '2.jpg').write_bytes(b'no picture')
    _, data = written([detail(1, 0.5), detail(2, 0.4)])
    image, broken = data['images']
    assert image['size'] == [1000, 500] and 'picture' not in broken
    kind, content = image['picture'].split(',')
    assert kind == 'data:image/jpeg;base64'
    with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
        assert picture.size == (captionPage.PIXELS, captionPage.PIXELS // 2)
        assert picture.mode == 'RGB'


def test_captions_and_names_are_text_and_nothing_else(written, tmp_path):
    plain, _ = written([detail(number, 0.5) for number in range(len(EVIL))])
    page, data = written([detail(1, 0.5, caption=text, references=EVIL, imgPath=text + '.jpg')
                          for text in EVIL])
    assert [image['caption'] for image in data['images']] == EVIL
    assert data['images'][0]['references'] == EVIL
    assert '<' not in scriptsOf(page)[0]
    assert page.replace(scriptsOf(page)[0], '') == plain.replace(scriptsOf(plain)[0], '')
    # data become text nodes alone
    assert not re.search('innerHTML|outerHTML|insertAdjacentHTML|document.write', page)
    path = tmp_path / 'named.html'
    captionPage.writePage(str(path), {'images': [], 'unsure': .5}, title='<b>&m', about='')
    assert '<h1>&lt;b&gt;&amp;m</h1>' in path.read_text(encoding='utf-8')


def test_the_page_asks_nothing_of_a_network(written):
    page, _ = written([detail(1, 0.5)])
    assert not re.search(r'(https?:)?//[a-z0-9-]+\.|@import|url\(|fetch\(|XMLHttpRequest', page)
    assert "default-src 'none'" in page
    assert all(link.startswith('data:') for link in re.findall(r'(?:src|href)="([^"]*)"', page))


def test_many_images_are_shown_evenly_from_the_best_to_the_worst(written, monkeypatch):
    monkeypatch.setattr(captionPage, 'SHOWN', 5)
    page, data = written([detail(number, number * 7 % 22 / 22) for number in range(21)])
    assert '5 of 21 validation images.' in page
    assert [image['rank'] for image in data['images']] == [1, 6, 11, 16, 21]
    meteors = [image['meteor'] for image in data['images']]
    assert meteors == sorted(meteors, reverse=True)


CHROMIUM = shutil.which('chromium') or shutil.which('google-chrome')

# What a reader does, and what is seen after it
READER = """<script>
const seen = {}, $ = selector => document.querySelector(selector);
const $$ = selector => [...document.querySelectorAll(selector)];
const captions = () => $$('.card h2').map(element => element.textContent.trim());
const set = (selector, value, event) => {
  $(selector).value = value; $(selector).dispatchEvent(new Event(event)); };
const choose = order => set('#order', order, 'change');
const seek = words => set('#filter', words, 'input');
const looked = () => [$$('.word.looked').map(element => element.textContent).join(),
                      $('.readout').textContent,
                      $$('.bars span').map(element => element.textContent).join(),
                      $$('.box').map(element => Number(element.style.opacity).toFixed(2)).join()];
for (const order of ['best', 'worst', 'image']) { choose(order); seen[order] = captions(); }
for (const words of ['CAT', 'dog a', 'bird']) {
  seek(words); seen[words] = [captions(), $('#count').textContent]; }
seek('');
seen.none = looked();
$$('.word')[0].click();
seen.click = looked();
for (const name of ['right', 'end']) {
  document.activeElement.dispatchEvent(
    new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true}));
  seen[name] = looked();
}
document.activeElement.blur();
seen.left = looked();
const references = $$('.card li').map(element => element.textContent);
seen.evil = [window.acted, references.filter(text => text.includes('<'))];
const pre = document.body.appendChild(document.createElement('pre'));
Object.assign(pre, {id: 'seen', textContent: encodeURIComponent(JSON.stringify(seen))});
</script></body>"""


in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason='no Chromium is installed')


def seenIn(page, reader, folder):
    """What the script `reader` has seen on a page."""
    used = folder / 'used.html'
    used.write_text(page.replace('</body>', reader), encoding='utf-8')
    dumped = subprocess.run(
        [CHROMIUM, '--headless', '--no-sandbox', '--disable-gpu',
         f"--user-data-dir={folder / 'browser'}", '--virtual-time-budget=1000', '--dump-dom',
         used.as_uri()], stdout=subprocess.PIPE, timeout=60).stdout.decode()
    return json.loads(unquote(re.search('id="seen">([^<]*)<', dumped)[1]))


@in_a_browser
def test_how_sure_a_model_is(tmp_path):
    path = tmp_path / 'page.html'
    images = [{'imgPath': f'{name}.jpg', 'caption': f'a {name}', 'confidence': confidence,
               'references': [], 'attention': [[.2, .8]] * 2}
              for name, confidence in (('cat', .64), ('dog', .9), ('ant', .66))]
    captionPage.writePage(str(path), {'images': images, 'unsure': .65, 'region': 'region',
                                      'ownCaptions': ''}, title='Photos', about='')
    start, end = READER.index('for (const order'), READER.index('const pre')
    reader = READER[:start] + '''
        for (const order of ["image", "sure", "unsure"]) {
          choose(order); seen[order] = captions(); }
        seen.marked = $$('.card').filter(card => card.textContent.includes('unsure')).length;
        seen.look = $('.readout').textContent;
        ''' + READER[end:]
    assert seenIn(path.read_text(encoding='utf-8'), reader, tmp_path) == {
        'image': ['a ant', 'a cat', 'a dog'], 'sure': ['a dog', 'a ant', 'a cat'],
        'unsure': ['a cat', 'a ant', 'a dog'], 'marked': 1,
        'look': 'On average, words look most at region 2 (80\u00a0%)'}


@in_a_browser
def test_the_page_in_a_browser(written, tmp_path):
    (tmp_path / 'data' / 'val2017').mkdir(parents=True)
    Image.new('RGB', (20, 10)).save(tmp_path / 'data' / 'val2017' / '1.jpg')
    evil = '<img src=x onerror="window.acted = 1"></script><script>window.acted = 1</script>'
    page, _ = written([
        detail(1, 0.3, caption='a dog', references=['A dog.', evil],
               attention=[[.2, .8], [.75, .25]], boxes=[[0, 0, 10, 10], [5, 5, 20, 10]]),
        detail(2, 0.9, caption='two trees', references=['One cat.']),
        detail(3, 0.1, caption='', references=[])])
    seen = seenIn(page, READER, tmp_path)
    best = ['two trees', 'a dog', '(no word)']
    assert seen['best'] == best and seen['worst'] == best[::-1]
    assert seen['image'] == ['a dog', 'two trees', '(no word)']
    assert seen['CAT'] == [['two trees'], '1 of 3 images']
    assert seen['dog a'] == [['a dog'], '1 of 3 images'] and seen['bird'] == [
        [], 'No caption has these words.']
    all_words = 'On average, words look most at detection 2 (53\u00a0%)'
    assert seen['none'] == seen['left'] == ['', all_words, '48,53', '0.00,0.00']
    assert seen['click'] == ['a', '“a” looks most at detection 2 (80\u00a0%)', '20,80', '0.25,1.00']
    assert seen['right'] == seen['end'] == [
        'dog', '“dog” looks most at detection 1 (75\u00a0%)', '75,25', '1.00,0.33']
    assert seen['evil'] == [None, [evil]]


def test_examples_stand_beside_their_pictures():
    lines = ['One\n$1 dog. ' * 30] * 7
    pictures = [Image.new('RGB', (40, 20), 'red'), None]
    figure = examplePictures.examplesFigure(zip(pictures, ['a dog ' * 30, ''], [lines, []]))
    image, = figure.findobj(AxesImage)
    assert np.array_equal(image.get_array(), np.asarray(pictures[0]))
    caption, below, missing = (text for text in figure.findobj(Text) if text.get_text())
    assert caption.get_text().startswith('a dog') and caption.get_weight() == 'bold'
    assert below.get_text().count('\nOne $1 dog.') == examplePictures.LINES - 1
    assert missing.get_text() == 'The image is missing.'
    FigureCanvasAgg(figure).draw()
    boxes = [thing.get_window_extent() for thing in (caption, below, figure.axes[0])]
    for number, box in enumerate(boxes):
        assert 0 <= box.x0 and box.x1 <= figure.bbox.x1
        assert 0 <= box.y0 and box.y1 <= figure.bbox.y1
        assert not any(box.overlaps(other) for other in boxes[:number])


def test_the_example_picture_has_the_captions_of_the_model(model_param, monkeypatch):
    saved = []
    monkeypatch.setattr(examplePictures, 'examplesFigure',
                        lambda examples: saved.extend(examples) or Figure())
    images = [{'imgPath': f'{number}.png', 'original_captions': [f'Own {number}.']}
              for number in range(7)]
    dataLoader = SimpleNamespace(
        myDataDicts={'val': SimpleNamespace(dataset=images, collate_fn=lambda chosen: chosen)},
        vocabulary={'TokenToWord': {number: f'word{number}' for number in range(7)}})
    model = SimpleNamespace(
        net=SimpleNamespace(eval=lambda: None),
        greedyTokens=lambda batch: [[6, 2 + int(image['imgPath'][0]), 0] for image in batch])
    path = plotImagesAndCaptions(model, model_param, {}, dataLoader)
    assert path == os.path.join(model_param['img_dir'], 'm', 'examples.png')
    assert os.path.exists(path)
    assert saved == [(None, f'word6 word{2 + number}', [f'Own {number}.']) for number in range(5)]


def test_curves_mark_the_epoch_that_was_kept():
    history = [{'epoch': epoch, 'val_loss': 2., 'meteor': meteor}
               for epoch, meteor in enumerate((.1, .3, .3, .2), start=1)]
    unscored = [{'epoch': 1, 'val_loss': 2.}, {'epoch': 2, 'val_loss': 1., 'reward': 1.}]
    for entries, kept, number in ((history, 2, 2), (unscored, 1, 4)):
        figure = curvesFigure(entries)
        assert len(figure.axes) == number
        for axes in figure.axes:
            assert axes.get_title(loc='right') == f'kept: epoch {kept}'
            assert list(axes.lines[-1].get_xdata()) == [kept, kept]
    assert list(curvesFigure(history).axes[1].lines[0].get_ydata()) == [10, 30, 30, 20]
