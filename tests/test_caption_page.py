"""Pages and pictures of captions and curves; nothing in a caption acts."""
import base64
import io
import json
import os
import re
import shutil
import subprocess
import time
from unittest import mock
from urllib.parse import unquote

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
    """The data of a page, and its program."""
    return re.findall('<script.*?>(.*?)</script>', page, re.DOTALL)


class Images(DataLoaderWrapper):
    """A `DataLoaderWrapper` of nothing but the image files."""

    def __init__(self, folder):
        self.modelParam = {'data_dir': str(folder)}


def keep_details(model_param, details):
    """Leaves details as a validation does."""
    writeJson(os.path.join(runFolder(model_param), 'details_validation.json'), details)


@pytest.fixture
def written(model_param, tmp_path):
    """A function that writes the page of some details; returns its text and the data in it."""
    def write(details):
        keep_details(model_param, details)
        with open(writeCaptionPage(SCORES, model_param, Images(tmp_path)), encoding='utf-8') as f:
            page = f.read()
        return page, json.loads(scriptsOf(page)[0])

    return write


def detail(number, meteor, **more):
    return {'image_id': number, 'imgPath': f'{number}.jpg', 'caption': f'dog number {number}',
            'meteor': meteor, 'references': [f'The dog {number}.', 'A dog.'], **more}


def test_every_image_with_all_that_is_known_of_it(written, tmp_path):
    (tmp_path / 'val2017').mkdir()
    Image.new('L', (1000, 500), 100).save(str(tmp_path / 'val2017' / '2.jpg'))  # grey
    whole = (tmp_path / 'val2017' / '2.jpg').read_bytes()
    (tmp_path / 'val2017' / '3.jpg').write_bytes(whole[:len(whole) // 2])
    details = [detail(1, .5), detail(2, .75, attention=[[.25, .75]] * 3, boxes=[[0, 0, 8, 9]] * 2),
               detail(3, .1)]
    page, data = written(details)
    assert data['number'] == 3
    kind, content = data['images'][1].pop('picture').split(',')
    assert kind == 'data:image/jpeg;base64' and data['images'][1].pop('size') == [1000, 500]
    assert data['images'] == [{**image, 'rank': rank} for image, rank in zip(details, (2, 1, 3))]
    with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
        assert picture.size == (320, 160) and picture.mode == 'RGB'
    for text in ('<h1>Captions of m</h1>', ': 3 validation images.',
                 '<dt>METEOR</dt><dd>25.0 %</dd>', '<dt>BLEU-4</dt><dd>12.5 %</dd>',
                 '<dt>CIDEr</dt><dd>50.0 %</dd>', '<dt>ROUGE-L</dt><dd>37.5 %</dd>'):
        assert text in page


def test_captions_are_text_and_nothing_else(written, model_param):
    model_param['modelName'] = '<b>&m/'
    plain, _ = written([detail(1, .5)] * len(EVIL))
    page, data = written([detail(1, .5, caption=text, references=EVIL, imgPath=text + '.jpg')
                          for text in EVIL])
    assert [image['caption'] for image in data['images']] == EVIL
    assert data['images'][0]['references'] == EVIL
    assert '<h1>Captions of &lt;b&gt;&amp;m</h1>' in page
    captions = scriptsOf(page)[0]
    assert '<' not in captions and page == plain.replace(scriptsOf(plain)[0], captions)
    # the script makes text nodes of captions, and the page asks nothing of a network
    assert not re.search('innerHTML|outerHTML|insertAdjacentHTML|document.write', plain)
    assert not re.search(r'(https?:)?//[a-z0-9-]+\.|@import|url\(|fetch\(|XMLHttpRequest', plain)
    assert "default-src 'none'" in plain
    assert all(link.startswith('data:') for link in re.findall(r'(?:src|href)="([^"]*)"', plain))


def test_many_images_are_shown_evenly_from_the_best_to_the_worst(written, monkeypatch):
    monkeypatch.setattr(captionPage, 'SHOWN', 5)
    page, data = written([detail(number, number // 4 / 6) for number in range(24)])
    assert data['number'] == 24 and '24 validation images, of which 5 are shown' in page
    # they come in their own order, as do equal scores in the ranking
    assert [(image['image_id'], image['rank']) for image in data['images']] == [
        (3, 24), (5, 18), (15, 12), (17, 6), (20, 1)]


def browser():
    """The command of a Chromium that starts, or None."""
    for name in ('chromium', 'chromium-browser', 'google-chrome', 'chrome'):
        if shutil.which(name):
            started = subprocess.run([name, '--version'], capture_output=True)
            if started.returncode == 0:
                return name
    return None


def usedInBrowser(page, reader, folder):
    """What a script that reads and uses a page in a browser leaves there as `seen`, in JSON."""
    (folder / 'used.html').write_text(page.replace('</body>', reader), encoding='utf-8')
    options = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-background-networking',
               f"--user-data-dir={folder / 'browser'}", '--virtual-time-budget=1000', '--dump-dom']
    done = subprocess.run([browser(), *options, (folder / 'used.html').as_uri()],
                          capture_output=True, timeout=60)
    match = re.search(rb'id="seen">([^<]*)<', done.stdout)
    assert match, done.stderr.decode()
    return json.loads(unquote(match[1].decode()))


# What a reader does, and what is seen after it
READER = """<script>
const seen = {}, $ = selector => document.querySelector(selector);
const texts = selector =>
  [...document.querySelectorAll(selector)].map(element => element.textContent.trim());
const choose = order => {
  $('#order').value = order;
  $('#order').dispatchEvent(new Event('change'));
};
const seek = words => {
  $('#filter').value = words;
  $('#filter').dispatchEvent(new Event('input'));
};
const press = key => document.activeElement.dispatchEvent(
  new KeyboardEvent('keydown', {key, bubbles: true}));
const looked = () => [texts('.word.looked').join(), $('.readout').textContent,
  texts('.bars span').join(),
  [...document.querySelectorAll('.box')].map(box => Number(box.style.opacity).toFixed(2)).join()];
for (const order of ['best', 'worst', 'image']) {
  choose(order);
  seen[order] = texts('.card h2');
}
for (const words of ['CAT', 'dog a', 'bird']) {
  seek(words);
  seen[words] = [texts('.card h2'), $('#count').textContent];
}
seek('');
seen.none = looked();
$('.word').click();
seen.click = looked();
press('ArrowRight');
seen.right = looked();
press('ArrowRight');
seen.end = looked();
document.activeElement.blur();
seen.left = looked();
seen.evil = [window.acted, texts('.card li').filter(text => text.includes('<'))];
seen.missing = texts('.missing');
const pre = document.body.appendChild(document.createElement('pre'));
Object.assign(pre, {id: 'seen', textContent: encodeURIComponent(JSON.stringify(seen))});
</script></body>"""


@pytest.mark.skipif(browser() is None, reason='no Chromium is installed to open the page in')
def test_the_page_in_a_browser(written, tmp_path):
    (tmp_path / 'val2017').mkdir()
    Image.new('RGB', (20, 10)).save(str(tmp_path / 'val2017' / '1.jpg'))
    evil = '<img src=x onerror="window.acted = 1"></script><script>window.acted = 1</script>'
    page, _ = written([
        detail(1, .3, caption='a dog', references=['A dog.', evil],
               attention=[[.2, .8], [.75, .25]], boxes=[[0, 0, 10, 10], [5, 5, 20, 10]]),
        detail(2, .9, caption='two trees', references=['One cat.']),
        detail(3, .1, caption='', references=[])])
    best = ['two trees', 'a dog', '(no word)']
    none = ['', 'All words together look most at detection 2 (53\u00a0%)', '48,53', '0.00,0.00']
    second = ['dog', '“dog” looks most at detection 1 (75\u00a0%)', '75,25', '1.00,0.33']
    assert usedInBrowser(page, READER, tmp_path) == {
        'best': best, 'worst': best[::-1], 'image': ['a dog', 'two trees', '(no word)'],
        'CAT': [['two trees'], '1 of 3 images'], 'dog a': [['a dog'], '1 of 3 images'],
        'bird': [[], '0 of 3 images'],
        'none': none, 'right': second, 'end': second, 'left': none,
        'click': ['a', '“a” looks most at detection 2 (80\u00a0%)', '20,80', '0.25,1.00'],
        'evil': [None, [evil]],
        'missing': [f'The picture {number}.jpg is missing.' for number in (2, 3)]}


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved."""
    saved = []
    for module in ('utils.pages.examplePictures', 'utils.plotter'):
        monkeypatch.setattr(f'{module}.saveFigure', lambda figure, path: saved.append(figure))
    return saved


def textsOf(figure):
    return [text for text in figure.findobj(Text) if text.get_text()]


def test_examples_stand_beside_their_pictures(figures):
    details = [{'caption': 'a dog ' * 30, 'references': ['One\n$1 dog. ' * 30] * 7, 'meteor': .5},
               {'caption': '', 'references': ['A cat.'], 'meteor': None}]
    pictures = [Image.new('RGB', size, 'red') for size in ((40, 20), (20, 80))]
    examplePictures.drawExamples(zip(pictures, details), 'what people say', 'a.png')
    figure, = figures
    about, caption, lines, more = textsOf(figure)
    assert about.get_text() == 'Bold: predicted, greedy. Below: what people say.'
    assert caption.get_text().split() == ['a', 'dog'] * 30 and caption.get_weight() == 'bold'
    assert lines.get_text().startswith('METEOR 50.0 %\n– One $1 dog.')
    assert lines.get_text().count('$1') == 30 * examplePictures.REFERENCES
    assert more.get_text() == '– A cat.'
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [artist.get_window_extent(renderer)
             for artist in textsOf(figure) + figure.findobj(AxesImage)]
    for number, box in enumerate(boxes):
        assert figure.bbox.fully_contains(*box.min) and figure.bbox.fully_contains(*box.max)
        assert not any(box.overlaps(other) for other in boxes[:number])


def test_the_example_picture_has_what_the_model_says_now(model_param, tmp_path, figures, capsys):
    images = [{'imgPath': f'{number}.png', 'original_captions': [f'Own {number}.']}
              for number in (1, 2, 3)]
    dataLoader = Images(tmp_path)
    dataLoader.wordsOf = str
    dataLoader.myDataDicts = {'val': mock.Mock(dataset=images, collate_fn=list)}
    model = mock.Mock()
    model.greedyTokens = lambda batch: [f"said of {image['imgPath']}" for image in batch]
    assert plotImagesAndCaptions(model, model_param, {}, dataLoader) is None and not figures
    assert 'No example pictures' in capsys.readouterr().out
    (tmp_path / 'val2017').mkdir()
    for number in (1, 3):
        Image.new('RGB', (8, 6)).save(str(tmp_path / 'val2017' / f'{number}.png'))
    keep_details(model_param, [
        detail(1, .25, imgPath='1.png', caption='said of 1.png'),
        detail(3, .75, imgPath='3.png', caption='said by another model')])
    path = plotImagesAndCaptions(model, model_param, {}, dataLoader)
    assert path == os.path.join(model_param['img_dir'], 'm', 'examples.png')
    assert [text.get_text() for text in textsOf(figures[0])][1:] == [
        'said of 1.png', 'METEOR 25.0 %\n– Own 1.', 'said of 3.png', '– Own 3.']


def history(*meteors):
    return [{'epoch': epoch, 'val_loss': 2., 'meteor': meteor}
            for epoch, meteor in enumerate(meteors, start=1)]


def test_curves_mark_the_epoch_that_was_kept(model_param, figures):
    plotter = Plotter(model_param, {})
    plotter.plot(history(.1, .3, .3, .2))
    plotter.plot([{'epoch': 1, 'val_loss': 2.}, {'epoch': 2, 'reward': 1., 'cider': .5}])
    for figure, kept in zip(figures, (2, 1)):  # in the second, no epoch has been scored
        FigureCanvasAgg(figure).draw()
        texts = [text.get_text() for text in textsOf(figure)]
        assert 'm' in texts and texts.count(f'kept: epoch {kept}') == 2
    assert [len(figure.axes) for figure in figures] == [2, 4]
    scores = figures[0].axes[1]
    assert list(scores.lines[0].get_ydata()) == [.1, .3, .3, .2]
    assert scores.get_ylabel().endswith('[%]')
    assert max(float(label.get_text()) for label in scores.get_yticklabels()) >= 30


def test_a_deleted_picture_comes_back_and_leftovers_of_killed_runs_go(model_param):
    folder = runFolder(model_param, 'img_dir')
    for name, age in (('partial_1_curves.png', 7200), ('partial_2_captions.html', 0)):
        with open(os.path.join(folder, name), 'w'):
            os.utime(os.path.join(folder, name), (time.time() - age,) * 2)
    plotter = Plotter(model_param, {})
    plotter.plotMissing([])
    assert os.listdir(folder) == ['partial_2_captions.html']  # it may be in use
    plotter.plotMissing(history(.1))
    assert os.path.getsize(os.path.join(folder, 'curves.png')) > 1000
