"""The course's layout from published files: forms of features, what is left out, going on."""
import base64
import json
import os
import pathlib
import runpy
import sys
import tracemalloc

import filelock
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from utils import buildCourseLayout as script
from utils.buildCourseLayout import bestRegions, buildCourseLayout
from utils.data import dataFolder
from utils.data.regionFeatures import readFeatures
from utils.dataLoader import DataLoaderWrapper
from utils.files.errors import UserError
from utils.files.ownFiles import PROJECT
from utils.files.safePickle import loadPickle
from utils.scripts.endings import runScript

CAPTIONS = {'train': {9: ['A red house. ', 'a house'], 25: ['a boat', 'one boat'],
                      139: ['Two dogs run.', 'dogs', 'A pair\nof .']},
            'val': {581929: ['A zebra runs.', 'two zebras'], 30: ['the red boat', 'a boat']}}
NAMES = {image_id: f'{image_id:012d}' for ids in CAPTIONS.values() for image_id in ids}
PUBLISHED = 'image_id image_w image_h num_boxes boxes features'
LXMERT = ('img_id img_h img_w objects_id objects_conf attrs_id attrs_conf num_boxes boxes '
          'features')


def detections(image_id):
    """Features of 12 boxes, the boxes, and scores in no order."""
    rng = np.random.default_rng(image_id)
    boxes = rng.uniform(1, 200, (12, 2, 2)).cumsum(1).reshape(12, 4).astype(np.float32)
    return (rng.random((12, 2048), dtype=np.float32), boxes,
            rng.permutation(12).astype(np.float32) / 12)


@pytest.fixture
def captions(tmp_path):
    return captions_folder(tmp_path, CAPTIONS)


def captions_folder(tmp_path, captions):
    """A folder of COCO's captions."""
    folder = tmp_path / 'annotations'
    folder.mkdir(exist_ok=True)
    for mode, group in captions.items():
        names = {key: NAMES.get(key, key) for key in group}
        (folder / f'captions_{mode}2017.json').write_text(json.dumps({
            'images': [{'id': key, 'file_name': f'{name}.jpg'} for key, name in names.items()],
            'annotations': [{'image_id': key, 'caption': caption}
                            for key in group for caption in group[key]]}))
    return str(folder)


def tsv_line(image_id, columns=PUBLISHED, **changed):
    features, boxes, scores = detections(image_id)
    row = {'image_id': image_id, 'img_id': f'COCO_val2014_{image_id:012d}', 'num_boxes': 12,
           'features': features, 'boxes': boxes, 'objects_conf': scores, **changed}
    for key, value in row.items():
        if isinstance(value, np.ndarray):
            row[key] = base64.b64encode(value.tobytes()).decode()
    return '\t'.join(str(row.get(column, 640)) for column in columns.split()) + '\n'


def write_tsv(folder, ids=NAMES, columns=PUBLISHED):
    path = folder / 'trainval_resnet101.tsv.0'
    path.write_text(''.join(tsv_line(image_id, columns) for image_id in ids))
    return path


def write_folder_of_tsv(folder):
    return write_tsv(folder, columns=LXMERT).parent


def write_npz(name, **keys):
    def write(folder):
        for image_id in NAMES:
            features, boxes, scores = detections(image_id)
            values = {'features': features, 'turned': features.T, 'boxes': boxes, 'scores': scores}
            arrays = {key: values[value] for key, value in keys.items()}
            np.savez(folder / name.format(image_id), **arrays)
        return folder

    return write


def write_npy(folder):
    for image_id in NAMES:
        np.save(folder / f'{image_id}.jpg.npy', detections(image_id)[0])
    return folder


FORMS = {  # name → (writer, whether the form has boxes, scores)
    'TSV as published': (write_tsv, True, False),
    'folder of TSV with scores': (write_folder_of_tsv, True, True),
    'npz': (write_npz('{}.npz', feat='features', bbox='boxes', objects_conf='scores'), True, True),
    'npz turned': (write_npz('COCO_train2014_{:012d}.jpg.npz', x='turned'), False, False),
    'npy': (write_npy, False, False),
}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / 'features'
    folder.mkdir()
    return folder


def image(out, name, stub=''):
    """The content of an image's file."""
    path, = pathlib.Path(out).glob(f'*detectron2_lim10{stub}features/{name}.pickle')
    return loadPickle(str(path))


def build_folder(folder, captions, features, **settings):
    """Builds the data folder `out` in a folder; returns its path."""
    out = str(folder / 'out')
    buildCourseLayout(list(map(str, captions)), list(map(str, features)), out, **settings)
    return out


@pytest.fixture
def build(captions, tmp_path):
    """A function that builds a data folder of features, with COCO's captions or others."""
    def make(*features, captions=(captions,), **settings):
        return build_folder(tmp_path, captions, features, **settings)

    return make


def read(out, name):
    return pathlib.Path(out, name).read_text()


def skipped_in(out):
    return json.loads(read(out, 'skipped.json'))


@pytest.mark.parametrize('form', FORMS)
def test_every_form(form, build, folder):
    write, has_boxes, has_scores = FORMS[form]
    out = build(write(folder))
    assert skipped_in(out) == {}
    for image_id, name in NAMES.items():
        features, boxes, scores = detections(image_id)
        best = np.argsort(-scores)[:10] if has_scores else range(10)
        unpooled, pooled = (image(out, name, stub) for stub in ('', 'max'))
        assert_array_equal(unpooled['cnn_features'], features[best])
        assert_array_equal(pooled['cnn_features'], features[best].max(0))
        assert unpooled['cnn_features'].dtype == pooled['cnn_features'].dtype == np.float32
        for record in (unpooled, pooled):
            assert ('boxes' in record) == has_boxes
            if has_boxes:
                assert_array_equal(record['boxes'], boxes[best])


@pytest.mark.parametrize('regions', [3, 10, 36])
def test_what_is_built_is_read(regions, build, tmp_path, config, model_param):
    out = build(write_tsv(tmp_path), regions=regions)
    chosen = np.resize(np.arange(min(regions, 12)), regions)  # without scores the first ones
    for stub, shape in (('', (regions, 2048)), ('max', (2048,))):
        stub = f'detectron2_lim10{stub}features'
        loader = DataLoaderWrapper({**config, 'featurepathstub': stub},
                                   {**model_param, 'data_dir': out})
        for mode, ids in CAPTIONS.items():
            batch, = loader.myDataDicts[mode]
            assert batch['cnn_features'].shape == (len(ids), *shape)
            assert {int(path[:-4]) for path in batch['imgPaths']} == set(ids)
            for name, boxes in zip(batch['imgPaths'], batch['boxes']):
                assert_array_equal(boxes, detections(int(name[:-4]))[1][chosen])


def test_fewer_boxes_are_repeated_the_likeliest_first():
    features, boxes, scores = (values[:4] for values in detections(1))
    order = np.argsort(-scores).tolist()
    chosen, chosen_boxes = bestRegions(features, boxes, scores, 10)
    assert_array_equal(chosen, features[order + order + order[:2]])
    assert_array_equal(chosen_boxes, boxes[order + order + order[:2]])


def test_boxes_that_are_not_in_pixels_are_left_out():
    features, boxes, _ = detections(1)
    assert bestRegions(features, boxes, None, 10)[1] is not None
    for other in (boxes / 400, boxes[:, [2, 3, 0, 1]], boxes * np.nan, boxes * np.inf, boxes[:11],
                  boxes.T, None):
        assert bestRegions(features, other, None, 10)[1] is None


def test_what_is_left_out_is_said(build, tmp_path, capsys):
    lines = [tsv_line(9, features=detections(9)[0] * np.nan), tsv_line(77), tsv_line(30),
             'nobody' + '\t1' * 5 + '\n', tsv_line(25), tsv_line(25, num_boxes=6),
             tsv_line(139)[:50] + '\n']
    (tmp_path / 'some.tsv').write_text(''.join(lines))
    out = build(tmp_path / 'some.tsv')
    reasons = {name: reason for reason, names in skipped_in(out).items() for name in names}
    assert reasons.pop('000000581929.jpg') == 'no features'
    assert 'not finite' in reasons.pop('000000000009.jpg')
    assert 'cannot be used' in reasons.pop('000000000139.jpg') and not reasons
    printed = capsys.readouterr().out
    for line in ('train: 1 of 3 images', 'val: 1 of 2 images', '2 features have no captions for',
                 'Left out, no features: 1, such as 000000581929.jpg.'):
        assert line in printed
    assert read(out, 'about.txt') in printed
    assert_array_equal(image(out, NAMES[25])['cnn_features'], detections(25)[0][:10])


@pytest.mark.parametrize('features, scores, reason', [
    (np.zeros((12, 1024)), None, r'of the shape \[12, 1024\] instead of \[K, 2048\]'),
    (np.zeros((0, 2048)), None, r'of the shape \[0, 2048\]'),
    (np.float32(3), None, r'of the shape \[\]'),
    (np.ones((12, 2048), complex), None, 'complex'),
    (np.zeros((3, 2048)), np.zeros(2), 'cannot reshape')])
def test_features_of_an_image_that_cannot_be_used(features, scores, reason):
    with pytest.raises((ValueError, TypeError), match=reason):
        bestRegions(features, None, scores, 10)


@pytest.mark.parametrize('arrays, reason', [
    ({'boxes': np.zeros((3, 4))}, 'none of features, feat, x, arr_0 among boxes'),
    ({'feat': np.array([print], dtype=object)}, 'Object arrays cannot be loaded'),
    ({}, 'BadZipFile')])
def test_a_file_that_cannot_be_used(arrays, reason, build, folder):
    write_npz('{}.npz', feat='features')(folder)
    np.savez(folder / '9.npz', **arrays)
    if not arrays:
        os.truncate(folder / '9.npz', 5)
    (why, names), = skipped_in(build(folder)).items()
    assert reason in why and names == ['000000000009.jpg']


@pytest.mark.parametrize('fault, sentence', [
    (KeyboardInterrupt(), 'Stopped. What is finished is kept'),
    (OSError(28, 'No space left on device'), 'disk is full.* What is finished')])
def test_a_stopped_run_goes_on(fault, sentence, captions, tmp_path, monkeypatch):
    features, out, at_once = write_tsv(tmp_path), tmp_path / 'out', tmp_path / 'at once'
    buildCourseLayout([captions], [str(features)], str(at_once), script.MINIMUM_COUNT)
    for name, path in (('CAPTIONS', captions), ('FEATURES', features), ('OUT', out)):
        monkeypatch.setattr(script, name, str(path))
    calls = []

    def stopping(path, value, write=dataFolder.writePickle):
        calls.append(path)
        if len(calls) == 6:  # two images and half of the third are written
            half = os.path.join(os.path.dirname(path), 'partial_' + os.path.basename(path))
            with open(half, 'wb') as f:
                f.write(b'half a fi')  # as a kill leaves it
            raise fault
        write(path, value)

    with monkeypatch.context() as patch, pytest.raises(SystemExit, match=sentence):
        patch.setattr(dataFolder, 'writePickle', stopping)
        runScript(script.main)
    assert not out.exists()
    first = 'Train2017_detectron2_lim10maxfeatures/000000000009.pickle'
    written = (tmp_path / 'out.partial' / first).stat().st_mtime_ns
    script.main()
    assert (out / first).stat().st_mtime_ns == written and not (tmp_path / 'out.partial').exists()
    assert contents(out) == contents(at_once)


def contents(root):
    """Path → bytes of every file."""
    return {path.relative_to(root): path.read_bytes()
            for path in root.glob('**/*') if path.is_file()}


def test_nothing_is_overwritten_nor_mixed(build, tmp_path):
    features = write_tsv(tmp_path)
    out = build(features)
    with pytest.raises(UserError, match='exists already'):
        build(features)
    os.rename(out, out + '.partial')
    for settings, changed in (({'regions': 36}, 'REGIONS'), ({'minimumCount': 2}, 'MINIMUM_COUNT')):
        with pytest.raises(UserError, match=f'begun with other {changed}[.] Set that back'):
            build(features, **settings)
    captions_folder(tmp_path, {'val': {30: ['another caption']}})
    with pytest.raises(UserError, match='begun with other captions[.]'):
        build(features)
    captions_folder(tmp_path, CAPTIONS)
    build(features)


def test_features_of_another_network_are_not_mixed(build, folder, tmp_path):
    out = build(write_npy(folder))
    os.rename(out, out + '.partial')
    os.remove(next(pathlib.Path(out + '.partial').glob(f'*max*/{NAMES[9]}.pickle')))
    (tmp_path / 'a.tsv').write_text(tsv_line(9, features=detections(1)[0]))
    with pytest.raises(UserError, match='begun with other FEATURES[.]'):
        build(tmp_path)
    build(folder, tmp_path)
    os.rename(out, out + '.partial')
    np.save(folder / '30.jpg.npy', detections(1)[0])
    with pytest.raises(UserError, match='begun with other FEATURES[.]'):
        build(folder)


def test_several_sources_become_one_folder(captions, build, folder, tmp_path):
    """With one vocabulary; a photo that two of them have is refused."""
    table = tmp_path / 'own.csv'
    table.write_text(''.join(f'own{number}.jpg,a zebra {number}\n' for number in range(20)))
    write_npy(folder)
    for number in range(20):
        np.save(folder / f'own{number}.npy', detections(number)[0])
    out = build(folder, captions=[captions, table])
    vocabulary = loadPickle(os.path.join(out, 'vocabulary', 'vocabulary.pickle'))
    assert {'zebra', 'boat'} <= set(vocabulary['wordToToken'])
    about = read(out, 'about.txt')
    assert f'{table}, 2 of 20 photos drawn for validation' in about and "COCO's captions" in about
    assert skipped_in(out) == {}
    assert len(list(pathlib.Path(out).glob('Train*max*/own*'))) == 18
    table.write_text(f'{NAMES[9]}.jpg,a zebra\nb.jpg,a cat\n')
    with pytest.raises(UserError, match='own.csv cannot be used: .* count as the same photo'):
        build_folder(tmp_path / 'other', [captions, table], [folder])


def test_a_broken_file_may_be_replaced(build, folder):
    features = write_npy(folder)
    whole = (folder / '30.jpg.npy').read_bytes()
    (folder / '30.jpg.npy').write_bytes(whole[:-9])
    out = build(features)
    assert '30.jpg' in str(skipped_in(out))
    os.rename(out, out + '.partial')
    (folder / '30.jpg.npy').write_bytes(whole)
    build(features)
    assert skipped_in(out) == {}


def test_one_split_alone_is_kept_until_the_other_comes(build, folder, tmp_path):
    features = write_tsv(tmp_path, CAPTIONS['train'])
    with pytest.raises(UserError, match='no usable features of val images'):
        build(features)
    out = build(features, write_tsv(folder, CAPTIONS['val']))
    assert all(image(out, name) for name in NAMES.values())


def test_what_training_would_refuse_is_left_out(build, tmp_path, config, model_param):
    """By name, and the rest is trained on."""
    lines = [tsv_line(1).replace('1', str(name), 1)
             for name in (*NAMES, '.a', 'b' * 250, 'c\0', 'd')]
    (tmp_path / 'a.tsv').write_text(''.join(lines))
    odd = {'.a.jpg': ['a dog'], 'b' * 250 + '.jpg': ['a dog'], 'c\0.jpg': ['a dog'],
           'd.jpg': ['a ' * 999], '\ud800.jpg': ['a dog']}
    images = [{'filename': f'{name}.jpg', 'split': mode, 'sentences': [{'raw': 'A dog'}]}
              for mode, ids in CAPTIONS.items() for name in ids]
    images += [{'filename': name, 'split': 'train', 'sentences': [{'raw': texts[0]}]}
               for name, texts in odd.items()]
    images[0]['sentences'] = [{'raw': '.'}, {'raw': ' '}]
    (tmp_path / 'dataset_coco.json').write_text(json.dumps({'images': images}))
    out = build(tmp_path / 'a.tsv', captions=[tmp_path / 'dataset_coco.json'])
    assert {name for names in skipped_in(out).values() for name in names} == {
        images[0]['filename'], *odd} - {'\ud800.jpg'} | {'?.jpg'}
    for stub in ('', 'max'):
        loader = DataLoaderWrapper({**config, 'featurepathstub': f'detectron2_lim10{stub}features'},
                                   {**model_param, 'data_dir': out})
        loader.checkFiles()
        assert [len(loader.myDataDicts[mode].dataset) for mode in CAPTIONS] == [2, 2]


def test_validation_captions_without_words_are_refused(build, tmp_path):
    """Scores cannot be had from them."""
    captions_folder(tmp_path, {'train': CAPTIONS['train'], 'val': {30: ['.', '']}})
    with pytest.raises(UserError, match='no usable features of val images'):
        build(write_tsv(tmp_path))


@pytest.mark.parametrize('block', [
    lambda out: os.symlink('nowhere', out), lambda out: open(out, 'w').close(),
    lambda out: os.symlink('nowhere', out + '.partial'),
    lambda out: open(out + '.partial', 'w').close(),
    lambda out: os.makedirs(out + '.partial/madeOf.json')])
def test_a_place_that_cannot_be_written_is_named_at_once(block, build, tmp_path):
    block(str(tmp_path / 'out'))
    with pytest.raises(UserError, match='out(.partial(/madeOf.json)?)? (exists|cannot be used)'):
        build(write_tsv(tmp_path))


def test_two_builds_of_one_folder(build, tmp_path):
    (tmp_path / 'out.partial').mkdir()
    with filelock.FileLock(tmp_path / 'out.partial' / 'lock'):  # as another process has it
        with pytest.raises(UserError, match='Another run works in .*out.partial.* another OUT'):
            build(write_tsv(tmp_path))
    build(write_tsv(tmp_path))


def test_names_of_features_steer_no_terminal(build, tmp_path, capsys):
    features = write_tsv(tmp_path)
    folder = tmp_path / 'red \x1b[31m\udce5'
    folder.mkdir()
    os.rename(features, folder / 'a.tsv')
    build(folder)
    printed = capsys.readouterr().out
    assert 'red  [31m ' in printed and '\x1b' not in printed and printed.encode()


def test_a_tsv_is_streamed(tmp_path):
    path = write_tsv(tmp_path, range(60))  # 8 MB
    tracemalloc.start()
    try:
        assert sum(len(read()[0]) for _, read in readFeatures([str(path)])) == 60 * 12
        assert tracemalloc.get_traced_memory()[1] < 2e6
    finally:
        tracemalloc.stop()


def file(name, text):
    def write(folder):
        (folder / name).write_text(text)
        return folder / name

    return write


def make_fifo(path):
    """A pipe, which nobody ever writes to."""
    if not hasattr(os, 'mkfifo'):
        pytest.skip('the system has no named pipes')
    os.mkfifo(path)


def write_fifo(folder):
    make_fifo(folder / 'a.npy')
    return folder


@pytest.mark.parametrize('write, sentence', [
    (file('a.tsv', '1\t2\t3\n'), 'a.tsv cannot be used: .*3 columns .* known are 6, 10'),
    (file('a.lmdb', ''), 'no photos or features at .*a.lmdb; .* Set FEATURES'),
    (lambda folder: folder / 'missing', 'no photos or features at .*missing; .* Set FEATURES'),
    (write_fifo, 'no photos or features at .*features; .* Set FEATURES'),
])
def test_features_that_cannot_be_used(write, sentence, build, folder):
    with pytest.raises(UserError, match=sentence):
        build(write(folder))


@pytest.mark.parametrize('name', ['REGIONS', 'MINIMUM_COUNT'])
def test_numbers_at_the_top_that_are_none(name, monkeypatch):
    monkeypatch.setattr(script, name, '10')
    said = f"^{name} at the top .* is '10', but must be a whole number of 1 or more"
    with pytest.raises(UserError, match=said):
        script.main()


def test_a_vocabulary_without_words_is_refused(build, tmp_path):
    with pytest.raises(UserError, match='no word 9 times or more. Set MINIMUM_COUNT .* lower'):
        build(write_tsv(tmp_path), minimumCount=9)


def test_the_script_started_elsewhere_ends_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', ['the folder of the script', *sys.path])
    monkeypatch.setattr(sys, 'argv', ['without parameters'])
    with pytest.raises(SystemExit, match='no photos or features at .*features; .* Set FEATURES'):
        runpy.run_path(os.path.join(PROJECT, 'utils', 'buildCourseLayout.py'), run_name='__main__')
    assert sys.path[0] == PROJECT
