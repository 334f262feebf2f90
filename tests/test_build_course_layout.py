"""The course's layout from published files: forms of features, what is left out, going on."""
import base64
import json
import os
import runpy
import sys
import tracemalloc

import numpy as np
import pytest

from utils import buildCourseLayout as script
from utils.buildCourseLayout import bestRegions, buildCourseLayout
from utils.data.captionWords import UNKNOWN
from utils.data.regionFeatures import readFeatures
from utils.dataLoader import DataLoaderWrapper
from utils.files.errors import UserError
from utils.files.project import PROJECT
from utils.files.safePickle import loadPickle
from utils.generateVocabulary import loadVocabulary
from utils.scripts.endings import runScript

CAPTIONS = {'train': {9: ['A red house. ', 'a house'], 25: ['a boat', 'one boat'],
                      139: ['Two dogs run.', 'dogs', 'A pair\nof .']},
            'val': {581929: ['A zebra runs.', 'two zebras'], 30: ['the red boat', 'a boat']}}
IDS = [image_id for group in CAPTIONS.values() for image_id in group]
PUBLISHED = 'image_id image_w image_h num_boxes boxes features'
LXMERT = ('img_id img_h img_w objects_id objects_conf attrs_id attrs_conf num_boxes boxes '
          'features')


def detections(image_id, K=12):
    """Features of K boxes, the boxes, and scores in no order."""
    rng = np.random.default_rng(image_id)
    corners = rng.uniform(0, 200, (K, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(2, 200, (K, 2))], 1)
    scores = rng.permutation(K).astype(np.float32) / K
    return rng.random((K, 2048), dtype=np.float32), boxes.astype(np.float32), scores


@pytest.fixture
def captions(tmp_path):
    return captions_folder(tmp_path, CAPTIONS)


def captions_folder(tmp_path, groups):
    folder = tmp_path / 'annotations'
    folder.mkdir(exist_ok=True)
    for mode, group in groups.items():
        (folder / f'captions_{mode}2017.json').write_text(json.dumps({
            'images': [{'id': image_id, 'file_name': f'{image_id:012d}.jpg'} for image_id in group],
            'annotations': [{'image_id': image_id, 'caption': caption}
                            for image_id in group for caption in group[image_id]]}))
    return str(folder)


def tsv_line(columns, image_id, K=12, **changed):
    features, boxes, scores = detections(image_id, K)
    row = {'image_id': image_id, 'img_id': f'COCO_val2014_{image_id:012d}', 'num_boxes': K,
           'features': features, 'boxes': boxes, 'objects_conf': scores, **changed}
    row = {key: base64.b64encode(value.tobytes()).decode() if isinstance(value, np.ndarray)
           else str(value) for key, value in row.items()}
    return '\t'.join(row.get(column, '640') for column in columns.split()) + '\n'


def write_tsv(columns=PUBLISHED):
    def write(folder):
        path = folder / 'trainval_resnet101.tsv.0'
        path.write_text(''.join(tsv_line(columns, image_id) for image_id in IDS))
        return path

    return write


def write_folder_of_tsv(folder):
    for mode, group in CAPTIONS.items():
        lines = [tsv_line(PUBLISHED, image_id) for image_id in group]
        (folder / f'{mode}.tsv').write_text(''.join(lines))
    (folder / 'readme.txt').write_text('about these files')
    return folder


def write_npz(name, **keys):
    def write(folder):
        for image_id in IDS:
            features, boxes, scores = detections(image_id)
            values = {'features': features, 'turned': features.T, 'boxes': boxes, 'scores': scores}
            arrays = {key: values[value] for key, value in keys.items()}
            np.savez(str(folder / name.format(image_id)), **arrays)
        return folder

    return write


def write_npy(folder):
    for image_id in IDS:
        np.save(str(folder / f'{image_id}.jpg.npy'), detections(image_id)[0])
    return folder


def write_array(folder):
    features, boxes, scores = (np.stack(arrays) for arrays in zip(*map(detections, IDS)))
    np.save(str(folder / 'trainval.npy'), features)
    np.save(str(folder / 'trainval_boxes.npy'), boxes)
    np.save(str(folder / 'trainval_scores.npy'), scores)
    names = [f'COCO_val2014_{image_id:012d}.jpg' for image_id in IDS]
    (folder / 'trainval_ids.json').write_text(json.dumps(names))
    return folder / 'trainval.npy'


FORMS = {  # name → (writer, whether the form has boxes, scores)
    'TSV as published': (write_tsv(), True, False),
    'TSV with scores': (write_tsv(LXMERT), True, True),
    'folder of TSV': (write_folder_of_tsv, True, False),
    'npz': (write_npz('{}.npz', feat='features', bbox='boxes', objects_conf='scores'), True, True),
    'npz turned': (write_npz('COCO_train2014_{:012d}.jpg.npz', x='turned'), False, False),
    'npy': (write_npy, False, False),
    'one array': (write_array, True, True),
}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / 'features'
    folder.mkdir()
    return folder


def image(out, image_id, stub=''):
    split = 'Train' if image_id in CAPTIONS['train'] else 'Val'
    folder = f'{split}2017_detectron2_lim10{stub}features'
    return loadPickle(os.path.join(out, folder, f'{image_id:012d}.pickle'))


def build(captions, features, tmp_path, **settings):
    out = str(tmp_path / 'out')
    buildCourseLayout(captions, [str(path) for path in features], out, **settings)
    return out


def skipped_in(out):
    with open(os.path.join(out, 'skipped.json')) as f:
        return json.load(f)


@pytest.mark.parametrize('form', FORMS)
def test_every_form(form, captions, folder, tmp_path):
    write, has_boxes, has_scores = FORMS[form]
    out = build(captions, [write(folder)], tmp_path)
    assert skipped_in(out) == {}
    for image_id in IDS:
        features, boxes, scores = detections(image_id)
        best = list(range(10))
        if has_scores:
            best = sorted(range(12), key=lambda box: -scores[box])[:10]
        unpooled, pooled = image(out, image_id), image(out, image_id, 'max')
        np.testing.assert_array_equal(unpooled['cnn_features'], features[best])
        np.testing.assert_array_equal(pooled['cnn_features'], features[best].max(0))
        assert unpooled['cnn_features'].dtype == pooled['cnn_features'].dtype == np.float32
        for record in (unpooled, pooled):
            assert ('boxes' in record) == has_boxes
            if has_boxes:
                np.testing.assert_array_equal(record['boxes'], boxes[best])
            assert record['original_captions'] in (CAPTIONS['train'].get(image_id),
                                                   CAPTIONS['val'].get(image_id))


def test_what_is_built_is_read(captions, tmp_path, config, model_param):
    out = build(captions, [write_tsv()(tmp_path)], tmp_path)
    vocabulary = loadVocabulary(out)
    assert vocabulary['vocabulary'][:5] == ['eeee', 'ssss', 'UNK', 'a', 'house']
    counted = dict(zip(vocabulary['vocabulary'], vocabulary['wordCounter']))
    assert counted['boat'] == 2 and counted['a'] == 4 and 'zebra' not in counted
    for stub, shape in (('detectron2_lim10features', (10, 2048)),
                        ('detectron2_lim10maxfeatures', (2048,))):
        sizes = {**config, 'number_of_cnn_features': 2048, 'featurepathstub': stub}
        loader = DataLoaderWrapper(sizes, {**model_param, 'data_dir': out})
        for mode, group in CAPTIONS.items():
            batch, = loader.myDataDicts[mode]
            assert batch['cnn_features'].shape == (len(group), *shape)
            assert sorted(batch['imgPaths']) == sorted(f'{image_id:012d}.jpg' for image_id in group)
            for captions, tokens in zip(batch['allcaptions'], batch['allcaptionsAsTokens']):
                assert tokens == [[vocabulary['wordToToken'].get(word, UNKNOWN) for word in caption]
                                  for caption in captions]


@pytest.mark.parametrize('regions', [3, 36])
def test_images_have_as_many_regions_as_asked_for(regions, captions, tmp_path, config, model_param):
    out = build(captions, [write_tsv()(tmp_path)], tmp_path, regions=regions)
    loader = DataLoaderWrapper({**config, 'featurepathstub': 'detectron2_lim10features'},
                               {**model_param, 'data_dir': out})
    assert loader.config['numberOfRegions'] == regions
    batch, = loader.myDataDicts['val']
    _, boxes, _ = detections(int(batch['imgPaths'][0][:-4]))
    assert batch['cnn_features'].shape[1:] == (regions, 2048)
    chosen = np.resize(np.arange(min(regions, 12)), regions)  # without scores the first ones
    np.testing.assert_array_equal(batch['boxes'][0], boxes[chosen])


def test_fewer_boxes_are_repeated_the_likeliest_first():
    features, boxes, scores = detections(1, 4)
    order = sorted(range(4), key=lambda box: -scores[box])
    probabilities = np.stack([np.ones(4), scores / 2, scores, scores / 3], 1)  # background first
    for likely in (scores, probabilities):
        chosen, chosen_boxes = bestRegions(features, boxes, likely, 10)
        np.testing.assert_array_equal(chosen, features[order + order + order[:2]])
        np.testing.assert_array_equal(chosen_boxes, boxes[order + order + order[:2]])


def test_boxes_that_are_not_in_pixels_are_left_out():
    features, boxes, _ = detections(1)
    assert bestRegions(features, boxes, None, 10)[1] is not None
    broken = boxes.copy()
    broken[3, 2] = np.nan
    others = boxes / 400, boxes[:, [2, 3, 0, 1]], broken, boxes * np.inf, boxes[:11], boxes.T, None
    for other in others:
        assert bestRegions(features, other, None, 10)[1] is None


def test_what_is_left_out_is_said(captions, tmp_path, capsys):
    lines = [tsv_line(PUBLISHED, 9, features=detections(9)[0] * np.nan), tsv_line(PUBLISHED, 77),
             tsv_line(PUBLISHED, 30), 'nobody' + '\t1' * 5 + '\n', tsv_line(PUBLISHED, 25),
             tsv_line(PUBLISHED, 25, 10), tsv_line(PUBLISHED, 139)[:-3000]]
    (tmp_path / 'some.tsv').write_text(''.join(lines))
    out = build(captions, [tmp_path / 'some.tsv'], tmp_path)
    skipped = skipped_in(out)
    torn, = (reason for reason in skipped if 'base64' in reason)
    assert skipped == {'features that cannot be used (not finite)': ['000000000009.jpg'],
                       torn: ['000000000139.jpg'], 'no features': ['000000581929.jpg']}
    printed = capsys.readouterr().out
    for line in ('train: 1 of 3 images', 'val: 1 of 2 images', '2 of them have no captions',
                 'Left out, no features: 1, such as 000000581929.jpg.'):
        assert line in printed
    with open(os.path.join(out, 'about.txt')) as f:
        assert f.read() in printed
    np.testing.assert_array_equal(image(out, 25)['cnn_features'], detections(25)[0][:10])
    val = os.path.join(out, 'Val2017_detectron2_lim10features')
    assert os.listdir(val) == ['000000000030.pickle']


@pytest.mark.parametrize('arrays, reason', [
    ({'feat': np.zeros((12, 1024))}, 'of the shape [12, 1024] instead of [K, 2048]'),
    ({'feat': np.zeros(2048)}, 'of the shape [2048] instead of [K, 2048]'),
    ({'feat': np.zeros((0, 2048))}, 'of the shape [0, 2048] instead of [K, 2048]'),
    ({'feat': np.zeros((3, 2048)), 'conf': np.zeros(2)}, 'cannot reshape'),
    ({'boxes': np.zeros((3, 4))}, 'none of features, feat, x, arr_0 among boxes'),
    ({'feat': np.array([print, 'an object'], dtype=object)}, 'Object arrays cannot be loaded'),
    (None, 'BadZipFile'),
])
def test_a_file_that_cannot_be_used(arrays, reason, captions, folder, tmp_path):
    write_npz('{}.npz', feat='features')(folder)
    if arrays is None:
        (folder / '9.npz').write_bytes((folder / '9.npz').read_bytes()[:5000])
    else:
        np.savez(str(folder / '9.npz'), **arrays)
    (why, names), = skipped_in(build(captions, [folder], tmp_path)).items()
    assert reason in why and names == ['000000000009.jpg']


@pytest.mark.parametrize('fault, sentence', [
    (KeyboardInterrupt(), 'Stopped. What was finished is kept'),
    (OSError(28, 'No space left on device'), 'disk is full.* What was finished')])
def test_a_stopped_run_goes_on(fault, sentence, captions, tmp_path, monkeypatch):
    features, calls = write_tsv()(tmp_path), []
    expected = str(tmp_path / 'at once')
    buildCourseLayout(captions, [str(features)], expected, script.MINIMUM_COUNT)
    out = str(tmp_path / 'out')
    for name, value in (('CAPTIONS', captions), ('FEATURES', str(features)), ('OUT', out)):
        monkeypatch.setattr(script, name, value)

    def stopping(path, value, write=script.writePickle):
        calls.append(path)
        if len(calls) == 7:  # the vocabulary, two images and half of the third are written
            half = os.path.join(os.path.dirname(path), 'partial_' + os.path.basename(path))
            with open(half, 'wb') as f:
                f.write(b'half a fi')  # as a kill leaves it
            raise fault
        write(path, value)

    with monkeypatch.context() as patch, pytest.raises(SystemExit, match=sentence):
        patch.setattr(script, 'writePickle', stopping)
        runScript(script.main)
    assert not os.path.exists(out)
    first = os.path.join('Train2017_detectron2_lim10maxfeatures', '000000000009.pickle')
    written = os.stat(os.path.join(out + '.partial', first)).st_mtime_ns
    script.main()
    assert os.stat(os.path.join(out, first)).st_mtime_ns == written
    assert not os.path.exists(out + '.partial') and contents(out) == contents(expected)


def contents(root):
    """Path → bytes of every file."""
    paths = [os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names]
    values = {}
    for path in paths:
        with open(path, 'rb') as f:
            values[os.path.relpath(path, root)] = f.read()
    return values


def test_nothing_is_overwritten_nor_mixed(captions, tmp_path):
    features = [write_tsv()(tmp_path)]
    out = build(captions, features, tmp_path)
    with pytest.raises(UserError, match='exists already'):
        build(captions, features, tmp_path)
    os.rename(out, out + '.partial')
    for settings in ({'regions': 36}, {'minimumCount': 2}):
        with pytest.raises(UserError, match='begun with other captions, .*MINIMUM_COUNT, REGIONS'):
            build(captions, features, tmp_path, **settings)
    captions_folder(tmp_path, {'val': {30: ['another caption']}})
    with pytest.raises(UserError, match='begun with other captions'):
        build(captions, features, tmp_path)
    captions_folder(tmp_path, CAPTIONS)
    build(captions, features, tmp_path)


def test_one_split_alone_is_kept_until_the_other_comes(captions, tmp_path):
    for mode, group in CAPTIONS.items():
        lines = [tsv_line(PUBLISHED, image_id) for image_id in group]
        (tmp_path / f'{mode}.tsv').write_text(''.join(lines))
    with pytest.raises(UserError, match='no usable features of val images'):
        build(captions, [tmp_path / 'train.tsv'], tmp_path)
    out = build(captions, [tmp_path / 'val.tsv'], tmp_path)
    assert all(image(out, image_id) for image_id in IDS)


def test_a_tsv_is_streamed(tmp_path):
    path = tmp_path / 'long.tsv'
    with open(str(path), 'w') as f:
        f.writelines(tsv_line(PUBLISHED, number, 36) for number in range(30))  # 12 MB
    tracemalloc.start()
    try:
        names = [name for name, read in readFeatures(str(path)) if len(read()[0]) == 36]
        assert names == [str(number) for number in range(30)]
        assert tracemalloc.get_traced_memory()[1] < 4e6
    finally:
        tracemalloc.stop()


def write_text(name, text):
    def write(folder):
        (folder / name).write_text(text)
        return folder / name

    return write


def write_zeros(shape, names=None):
    def write(folder):
        np.save(str(folder / 'a.npy'), np.zeros(shape, np.float32))
        if names is not None:
            (folder / 'a_ids.json').write_text(json.dumps(names))
        return folder / 'a.npy'

    return write


@pytest.mark.parametrize('write, sentence', [
    (write_text('a.tsv', '1\t2\t3\n'), 'a.tsv cannot be used: .*3 columns .* known are 6, 7, 10'),
    (write_text('a.npy', 'no array'), 'a.npy cannot be used: '),
    (write_zeros((3, 2048), [1, 2, 3]), r'the shape \[3, 2048\] is not'),
    (write_zeros((3, 12, 2048)), 'a_ids.json'),
    (write_zeros((3, 12, 2048), [9, 139]), 'a_ids.json does not list N images'),
    (write_zeros((2, 12, 2048), {'9': 0, '139': 1}), 'a_ids.json does not list N images'),
    (write_text('a.lmdb', ''), 'no photos or features .*a.lmdb. Set FEATURES'),
    (lambda folder: folder, 'no photos or features .*features. Set FEATURES'),
    (lambda folder: folder / 'missing', 'no photos or features .*missing. Set FEATURES'),
])
def test_features_that_cannot_be_used(write, sentence, captions, folder, tmp_path):
    with pytest.raises(UserError, match=sentence):
        build(captions, [write(folder)], tmp_path)


def test_the_script_started_elsewhere_ends_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', ['the folder of the script', *sys.path])
    with pytest.raises(SystemExit, match='Set FEATURES'):
        runpy.run_path(os.path.join(PROJECT, 'utils', 'buildCourseLayout.py'), run_name='__main__')
    assert sys.path[0] == PROJECT
