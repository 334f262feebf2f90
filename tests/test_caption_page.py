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
from matplotlib.image import AxesImage
from matplotlib.text import Text
from PIL import Image

from utils.dataLoader import DataLoaderWrapper
from utils.files.atomic import writeJson
from utils.files.project import runFolder
from utils.pages import captionPage, examplePictures
from utils.pages.captionPage import writeCaptionPage
from utils.plotter import Plotter
from utils.validate import plotImagesAndCaptions

SCORES = {'meteor': 0.25, 'bleu_4': 0.125, 'cider': 0.5, 'rouge': 0.375}
EVIL = ['</script><script>alert(1)</script>', '<img src=x onerror=alert(1)>', '<!-- <script>',
        '"\' & PAGE_DATA \u2028 ø']


def scriptsOf(page):
    """The texts of the page's two scripts, as a browser divides them: the data and the code."""
    return re.findall('<script.*?>(.*?)</script>', page, re.DOTALL)


class Images(DataLoaderWrapper):
    """A `DataLoaderWrapper` of nothing but the image files."""

    def __init__(self, folder):
        self.modelParam = {'data_dir': str(folder)}


@pytest.fixture
def written(model_param, tmp_path):
    """A function that writes the page of some details; returns its text and the data in it."""
    def write(details):
        writeJson(os.path.join(runFolder(model_param), 'details_validation.json'), details)
        path = writeCaptionPage(SCORES, model_param, Images(tmp_path))
        assert path == os.path.join(runFolder(model_param, 'img_dir'), 'captions.html')
        with open(path, encoding='utf-8') as f:
            page = f.read()
        return page, json.loads(scriptsOf(page)[0])

    return write


def detail(number, meteor, **more):
    return {'image_id': number, 'imgPath': f'{number}.jpg', 'caption': f'dog number {number}',
            'meteor': meteor, 'references': [f'The dog {number}.', 'A dog.'], **more}


def test_every_image_with_all_that_is_known_of_it(written, tmp_path):
    (tmp_path / 'val2017').mkdir()
    Image.new('L', (1000, 500), 100).save(str(tmp_path / 'val2017' / '2.jpg'))  # grey
    (tmp_path / 'val2017' / '3.jpg').write_bytes(b'no picture')
    looked = {'attention': [[0.25, 0.75]] * 3, 'boxes': [[0, 0, 8, 9], [1, 2, 3, 4]]}
    details = [detail(1, 0.5), detail(2, 0.75, **looked), detail(3, 0.1)]
    page, data = written(details)
    kind, content = data['images'][1].pop('picture').split(',')
    assert kind == 'data:image/jpeg;base64' and data['images'][1].pop('size') == [1000, 500]
    assert data['images'] == [{**image, 'rank': rank} for image, rank in zip(details, (2, 1, 3))]
    with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
        assert picture.size == (320, 160) and picture.mode == 'RGB'
    for text in ('<h1>Captions of m</h1>', 'data: 3 validation images.',
                 '<dt>METEOR</dt><dd>25.0 %</dd>', '<dt>BLEU-4</dt><dd>12.5 %</dd>',
                 '<dt>CIDEr</dt><dd>50.0 %</dd>', '<dt>ROUGE-L</dt><dd>37.5 %</dd>'):
        assert text in page


def test_captions_and_names_are_text_and_nothing_else(written, model_param):
    model_param['modelName'] = '<b>&m/'
    plain, _ = written([detail(1, 0.5)] * len(EVIL))
    page, data = written([detail(1, 0.5, caption=text, references=EVIL, imgPath=text + '.jpg')
                          for text in EVIL])
    assert [image['caption'] for image in data['images']] == EVIL
    assert data['images'][0]['references'] == EVIL
    assert '<h1>Captions of &lt;b&gt;&amp;m</h1>' in page
    captions = scriptsOf(page)[0]
    assert '<' not in captions and page == plain.replace(scriptsOf(plain)[0], captions)
    # the code makes text nodes of captions, and the page asks nothing of a network
    assert not re.search('innerHTML|outerHTML|insertAdjacentHTML|document.write', plain)
    assert not re.search(r'(https?:)?//[a-z0-9-]+\.|@import|url\(|fetch\(|XMLHttpRequest', plain)
    assert "default-src 'none'" in plain
    assert all(link.startswith('data:') for link in re.findall(r'(?:src|href)="([^"]*)"', plain))


def test_many_images_are_shown_evenly_from_the_best_to_the_worst(written, monkeypatch):
    monkeypatch.setattr(captionPage, 'SHOWN', 5)
    page, data = written([detail(number, number // 4 / 5) for number in range(21)])
    assert '21 validation images. 5 are shown' in page
    # they come in their own order, as do equal scores in the ranking
    assert [(image['image_id'], image['rank']) for image in data['images']] == [
        (3, 21), (6, 16), (9, 11), (12, 6), (20, 1)]


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


@pytest.mark.skipif(CHROMIUM is None, reason='no Chromium is installed')
def test_the_page_in_a_browser(written, tmp_path):
    (tmp_path / 'val2017').mkdir()
    Image.new('RGB', (20, 10)).save(str(tmp_path / 'val2017' / '1.jpg'))
    evil = '<img src=x onerror="window.acted = 1"></script><script>window.acted = 1</script>'
    page, _ = written([
        {**detail(1, 0.3), 'caption': 'a dog', 'references': ['A dog.', evil],
         'attention': [[.2, .8], [.75, .25]], 'boxes': [[0, 0, 10, 10], [5, 5, 20, 10]]},
        {**detail(2, 0.9), 'caption': 'two trees', 'references': ['One cat.']},
        {**detail(3, 0.1), 'caption': '', 'references': []}])
    used = tmp_path / 'used.html'
    used.write_text(page.replace('</body>', READER), encoding='utf-8')
    dumped = subprocess.run(
        [CHROMIUM, '--headless', '--no-sandbox', '--disable-gpu',
         f"--user-data-dir={tmp_path / 'browser'}", '--virtual-time-budget=1000', '--dump-dom',
         used.as_uri()], stdout=subprocess.PIPE, timeout=60).stdout.decode()
    seen = json.loads(unquote(re.search('id="seen">([^<]*)<', dumped)[1]))
    best = ['two trees', 'a dog', '(no word)']
    assert seen['best'] == best and seen['worst'] == best[::-1]
    assert seen['image'] == ['a dog', 'two trees', '(no word)']
    assert seen['CAT'] == [['two trees'], '1 of 3 images']
    assert seen['dog a'] == [['a dog'], '1 of 3 images'] and seen['bird'] == [[], '0 of 3 images']
    all_words = 'All words together look most at detection 2 (53\u00a0%)'
    assert seen['none'] == seen['left'] == ['', all_words, '48,53', '0.00,0.00']
    assert seen['click'] == ['a', '“a” looks most at detection 2 (80\u00a0%)', '20,80', '0.25,1.00']
    assert seen['right'] == seen['end'] == [
        'dog', '“dog” looks most at detection 1 (75\u00a0%)', '75,25', '1.00,0.33']
    assert seen['evil'] == [None, [evil]]


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved from here on."""
    saved = []
    for module in ('utils.pages.examplePictures', 'utils.plotter'):
        monkeypatch.setattr(f'{module}.saveFigure', lambda figure, path: saved.append(figure))
    return saved


def textsOf(figure):
    return [text for text in figure.findobj(Text) if text.get_text()]


def test_examples_stand_beside_their_pictures(figures):
    texts = [('a dog ' * 30, ['One\n$1 dog. ' * 30] * 7), ('', ['A cat.'])]
    pictures = [Image.new('RGB', (40, 20), color) for color in ('red', 'blue')]
    examplePictures.drawExamples([(picture, *text) for picture, text in zip(pictures, texts)], '')
    figure, = figures
    arrays = [image.get_array() for image in figure.findobj(AxesImage)]
    assert len(arrays) == 2 and all(map(np.array_equal, arrays, map(np.asarray, pictures)))
    words = ' '.join(text.get_text() for text in textsOf(figure)).split()
    assert words.count('$1') == 30 * examplePictures.REFERENCES and 'cat.' in words
    bold = [text.get_text() for text in textsOf(figure) if text.get_weight() == 'bold']
    assert ' '.join(bold).split() == ['a', 'dog'] * 30
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in textsOf(figure)]
    boxes += [image.get_window_extent() for image in figure.findobj(AxesImage)]
    for number, box in enumerate(boxes):
        assert 0 <= box.x0 and box.x1 <= figure.bbox.x1
        assert 0 <= box.y0 and box.y1 <= figure.bbox.y1
        assert not any(box.overlaps(other) for other in boxes[:number])


def test_the_example_picture_has_the_captions_of_the_model(model_param, tmp_path, figures):
    (tmp_path / 'val2017').mkdir()
    for number in (1, 3):                                        # the second has no picture
        Image.new('RGB', (number, 6)).save(str(tmp_path / 'val2017' / f'{number}.png'))
    images = [{'imgPath': f'{number}.png', 'original_captions': [f'Own {number}.']}
              for number in (1, 2, 3)]
    dataLoader = Images(tmp_path)
    loader = SimpleNamespace(dataset=images, collate_fn=lambda chosen: chosen)
    dataLoader.myDataDicts = {'val': loader}
    dataLoader.wordsOf = str
    model = SimpleNamespace(
        net=SimpleNamespace(eval=lambda: None),
        greedyTokens=lambda batch: [f"caption of {image['imgPath']}" for image in batch])
    path = plotImagesAndCaptions(model, model_param, {}, dataLoader)
    assert path == os.path.join(model_param['img_dir'], 'm', 'examples.png')
    texts = {text.get_text() for text in textsOf(figures[0])}
    assert {'caption of 1.png', '– Own 1.', 'caption of 3.png', '– Own 3.'} < texts
    assert [image.get_size() for image in figures[0].findobj(AxesImage)] == [(6, 1), (6, 3)]
    loader.dataset = images[1:2]
    assert plotImagesAndCaptions(model, model_param, {}, dataLoader) is None and len(figures) == 1


def test_curves_mark_the_epoch_that_was_kept(model_param, figures):
    meteors = .1, .3, .3, .2
    Plotter(model_param, {}).plot([{'epoch': epoch, 'val_loss': 2., 'meteor': meteor}
                                   for epoch, meteor in enumerate(meteors, start=1)])
    Plotter(model_param, {}).plot([{'epoch': 1, 'val_loss': 2.}])  # without scores
    for figure, kept in zip(figures, (2, 1)):
        titles = [axes.get_title(loc='right') for axes in figure.axes]
        assert titles == [f'kept: epoch {kept}'] * 2
    scores = figures[0].axes[1]
    assert tuple(scores.lines[0].get_ydata()) == meteors
    assert scores.get_ylabel().endswith('[%]') and scores.yaxis.get_major_formatter()(.3) == '30'


def test_missing_curves_are_drawn_and_unfinished_files_removed(model_param):
    folder, history = os.path.join(model_param['img_dir'], 'm'), [{'epoch': 1, 'val_loss': 2.}]
    os.makedirs(folder)
    unfinished = os.path.join(folder, 'partial_1_curves.png')
    with open(unfinished, 'w'):
        os.utime(unfinished, (0, 0))
    Plotter(model_param, {}).plotMissing([])
    assert os.listdir(folder) == []
    path = os.path.join(folder, 'curves.png')
    Plotter(model_param, {}).plotMissing(history)
    before = os.stat(path).st_mtime_ns
    Plotter(model_param, {}).plotMissing(history)
    assert os.stat(path).st_mtime_ns == before
