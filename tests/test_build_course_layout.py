"""The course's layout from public files: every form of features, what is left out, stopping and going on."""
import base64
import json
import os
import pickle
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from utils import buildCourseLayout as script
from utils.buildCourseLayout import bestRegions, buildCourseLayout
from utils.data.captionWords import UNKNOWN
from utils.data.regionFeatures import findReaders, idInName
from utils.dataLoader import DataLoaderWrapper
from utils.files.errors import UserError
from utils.files.project import PROJECT
from utils.files.safePickle import loadPickle
from utils.generateVocabulary import loadVocabulary
from utils.scripts.endings import runScript

CAPTIONS = {'train': {9: ['A red house. ', 'a house'], 139: ['Two dogs run.', 'dogs', 'A pair\nof dogs .'],
                      25: ['a boat', 'one boat']},
            'val': {581929: ['A zebra runs.', 'two zebras'], 30: ['the red boat', 'a boat']}}
IDS = [id for group in CAPTIONS.values() for id in group]


def detections(id, K):
    """Features of K boxes, the boxes, and scores in no order."""
    rng = np.random.default_rng(id)
    corners = rng.uniform(0, 200, (K, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(2, 200, (K, 2))], 1)
    return rng.random((K, 2048), dtype=np.float32), boxes.astype(np.float32), rng.permutation(K).astype(np.float32) / K


def class_probabilities(scores):
    """[K, C] with the background first, which is the likeliest class, and the score second or third."""
    return np.stack([np.ones_like(scores), scores * (np.arange(len(scores)) % 2), scores, scores / 2], 1).astype(np.float32)


@pytest.fixture
def captions(tmp_path):
    return captions_folder(tmp_path, CAPTIONS)


def captions_folder(tmp_path, groups):
    folder = tmp_path / 'annotations'
    folder.mkdir(exist_ok=True)
    for mode, group in groups.items():
        captions_file(folder, mode, group)
    return str(folder)


def captions_file(folder, mode, group):
    path = str(folder / f'captions_{mode}2017.json')
    images = [{'id': id, 'file_name': f'{id:012d}.jpg', 'width': 640, 'height': 480} for id in group]
    pairs = [{'id': 100 * id + n, 'image_id': id, 'caption': caption} for id in group for n, caption in enumerate(group[id])]
    with open(path, 'w') as f:
        json.dump({'images': images, 'annotations': pairs[::-1]}, f)


def tsv_line(columns, id, K=12, **changed):
    features, boxes, scores = detections(id, K)
    row = {'image_id': id, 'img_id': f'COCO_val2014_{id:012d}', 'num_boxes': K, 'features': features, 'boxes': boxes,
           'objects_conf': scores, 'cls_prob': class_probabilities(scores), **changed}
    row = {key: base64.b64encode(value.tobytes()).decode() if isinstance(value, np.ndarray) else str(value)
           for key, value in row.items()}
    return '\t'.join(row.get(column, '640') for column in columns.split()) + '\n'


PUBLISHED = 'image_id image_w image_h num_boxes boxes features'
LXMERT = 'img_id img_h img_w objects_id objects_conf attrs_id attrs_conf num_boxes boxes features'


def write_tsv(columns):
    def write(folder):
        path = folder / 'trainval_resnet101.tsv.0'
        path.write_text(''.join(tsv_line(columns, id) for id in IDS))
        return path

    return write


def write_files(name, with_scores=True, **keys):
    def write(folder):
        for id in IDS:
            values = dict(zip(('features', 'boxes', 'scores'), detections(id, 12)))
            values['transposed'] = values['features'].T
            path = str(folder / name.format(id))
            if keys:
                np.savez(path, **{key: values[value] for key, value in keys.items()})
            else:
                np.save(path, values['features'])
        return folder

    return write


def write_map(ids_name):
    def write(folder):
        features, boxes, scores = (np.stack(arrays) for arrays in zip(*(detections(id, 12) for id in IDS)))
        np.save(str(folder / 'trainval.npy'), features)
        if 'json' in ids_name:  # the others are written without boxes and scores
            np.save(str(folder / 'trainval_boxes.npy'), boxes)
            np.save(str(folder / 'trainval_scores.npy'), scores)
        write_ids(folder / ids_name)
        return folder / 'trainval.npy'

    return write


def write_ids(path):
    if path.suffix == '.npy':
        np.save(str(path), np.array(IDS))
    elif path.suffix == '.pkl':
        path.write_bytes(pickle.dumps({id: place for place, id in enumerate(IDS)}, protocol=2))
    elif path.suffix == '.json':
        path.write_text(json.dumps([f'COCO_val2014_{id:012d}.jpg' for id in IDS]))
    else:
        path.write_text('\n'.join(map(str, IDS)))


def number_of_boxes(id, form):
    return 12 + IDS.index(id) * form.endswith('rows')


def write_hdf5(form):
    def write(folder):
        h5py = pytest.importorskip('h5py')
        path = folder / f'{form}.hdf5'
        with h5py.File(str(path), 'w') as f:
            images = [detections(id, number_of_boxes(id, form)) for id in IDS]
            for id, (features, boxes, scores) in zip(IDS, images):
                if form == 'sets':
                    f[str(id)] = features
                elif form == 'groups':
                    f[f'{id:012d}/features'], f[f'{id:012d}/bbox'], f[f'{id:012d}/conf'] = features, boxes, scores
                elif form == 'suffixes':
                    f[f'{id}_features'], f[f'{id}_boxes'], f[f'{id}_cls_prob'] = features, boxes, class_probabilities(scores)
            if form == 'arrays':
                f['image_features'], f['image_bb'], _ = (np.stack(arrays) for arrays in zip(*images))
                f['image_ids'] = [str(id).encode() for id in IDS]
            elif form == 'rows':
                f['image_features'], f['image_bb'], _ = (np.concatenate(arrays) for arrays in zip(*images))
                ends = np.cumsum([number_of_boxes(id, form) for id in IDS])
                f['pos_boxes'] = np.stack([np.append(0, ends[:-1]), ends], 1)
                write_ids(folder / f'{form}_imgid2idx.pkl')
        return path

    return write


FORMS = {  # name → (writer, whether the form has boxes, scores)
    'TSV as published': (write_tsv(PUBLISHED), True, False),
    'TSV with class probabilities': (write_tsv(PUBLISHED + ' cls_prob'), True, True),
    'TSV with scores': (write_tsv(LXMERT), True, True),
    'npz': (write_files('{}.npz', feat='features', bbox='boxes', objects_conf='scores'), True, True),
    'npz of arrays that have no name': (write_files('{:012d}.npz', arr_0='features'), False, False),
    'npz turned': (write_files('COCO_train2014_{:012d}.jpg.npz', x='transposed', bbox='boxes'), True, False),
    'npy': (write_files('{}.npy'), False, False),
    'one npy, ids in JSON': (write_map('trainval_ids.json'), True, True),
    'one npy, ids in npy': (write_map('trainval_ids.npy'), False, False),
    'one npy, ids in lines': (write_map('trainval_ids.txt'), False, False),
    'HDF5 sets': (write_hdf5('sets'), False, False),
    'HDF5 groups': (write_hdf5('groups'), True, True),
    'HDF5 suffixes': (write_hdf5('suffixes'), True, True),
    'HDF5 arrays': (write_hdf5('arrays'), True, False),
    'HDF5 rows': (write_hdf5('rows'), True, False),
}


def image(out, id, stub=''):
    split = 'Train' if id in CAPTIONS['train'] else 'Val'
    return loadPickle(os.path.join(out, f'{split}2017_detectron2_lim10{stub}features', f'{id:012d}.pickle'))


def build(captions, features, tmp_path, out='out', minimumCount=1):
    out = str(tmp_path / out)
    buildCourseLayout(captions, [str(path) for path in features], out, minimumCount)
    return out


@pytest.mark.parametrize('form', FORMS)
def test_every_form(form, captions, tmp_path, capsys):
    write, has_boxes, has_scores = FORMS[form]
    folder = tmp_path / 'features'
    folder.mkdir()
    out = build(captions, [write(folder)], tmp_path)
    assert 'train: 3 of 3 ' in capsys.readouterr().out
    for id in IDS:
        features, boxes, scores = detections(id, number_of_boxes(id, form))
        best = sorted(range(len(scores)), key=lambda box: -scores[box])[:10] if has_scores else list(range(10))
        unpooled, pooled = image(out, id), image(out, id, 'max')
        np.testing.assert_array_equal(unpooled['cnn_features'], features[best])
        np.testing.assert_array_equal(pooled['cnn_features'], features[best].max(0))
        assert unpooled['cnn_features'].dtype == pooled['cnn_features'].dtype == np.float32
        for record in (unpooled, pooled):
            assert ('boxes' in record) == has_boxes
            if has_boxes:
                np.testing.assert_array_equal(record['boxes'], boxes[best])
            assert sorted(record['original_captions']) == sorted((CAPTIONS['train'].get(id) or CAPTIONS['val'][id]))


def test_what_is_built_is_read(captions, tmp_path, config, model_param):
    out = build(captions, [write_tsv(PUBLISHED)(tmp_path)], tmp_path)
    vocabulary = loadVocabulary(out)
    assert vocabulary['vocabulary'][:5] == ['eeee', 'ssss', 'UNK', 'a', 'dogs']
    counted = dict(zip(vocabulary['vocabulary'], vocabulary['wordCounter']))
    assert counted['boat'] == 2 and counted['a'] == 4 and 'zebra' not in counted and len(vocabulary['sentenceLen']) == 7
    for stub, shape in (('detectron2_lim10features', (10, 2048)), ('detectron2_lim10maxfeatures', (2048,))):
        loader = DataLoaderWrapper({**config, 'number_of_cnn_features': 2048, 'featurepathstub': stub},
                                   {**model_param, 'data_dir': out})
        for mode, group in CAPTIONS.items():
            batch, = loader.myDataDicts[mode]
            assert batch['cnn_features'].shape == (len(group), *shape)
            assert sorted(batch['imgPaths']) == sorted(f'{id:012d}.jpg' for id in group)
            assert all(caption[-1] == 'eeee' for captions in batch['allcaptions'] for caption in captions)
            for captions, tokens in zip(batch['allcaptions'], batch['allcaptionsAsTokens']):
                assert tokens == [[vocabulary['wordToToken'].get(word, UNKNOWN) for word in caption] for caption in captions]
        assert UNKNOWN in [token for tokens in batch['allcaptionsAsTokens'] for caption in tokens for token in caption]


@pytest.mark.parametrize('regions', [3, 36])
def test_images_have_as_many_regions_as_asked_for(captions, tmp_path, config, model_param, regions):
    features, out = [str(write_tsv(PUBLISHED)(tmp_path))], str(tmp_path / 'out')
    buildCourseLayout(captions, features, out, regions=regions)
    loader = DataLoaderWrapper({**config, 'featurepathstub': 'detectron2_lim10features'}, {**model_param, 'data_dir': out})
    assert loader.config['numberOfRegions'] == regions
    batch, = loader.myDataDicts['val']
    _, boxes, _ = detections(int(batch['imgPaths'][0][:-4]), 12)                 # without scores: the first ones
    assert batch['cnn_features'].shape[1:] == (regions, 2048)
    np.testing.assert_array_equal(batch['boxes'][0], boxes[np.resize(np.arange(min(regions, 12)), regions)])
    os.rename(out, out + '.partial')
    with pytest.raises(UserError, match='begun with another number of REGIONS'):
        buildCourseLayout(captions, features, out)


def test_photos_have_ten_regions(captions, tmp_path):
    photos = tmp_path / 'photos'
    photos.mkdir()
    (photos / f'{1:012d}.jpg').write_bytes(b'')
    with pytest.raises(UserError, match='of photos are of 10 regions'):
        buildCourseLayout(captions, [str(photos)], str(tmp_path / 'out'), regions=36)


def test_fewer_boxes_are_repeated():
    features, boxes, scores = detections(1, 4)
    order = sorted(range(4), key=lambda box: -scores[box])
    chosen, chosen_boxes, K = bestRegions(features, boxes, scores, 10)
    assert K == 4
    np.testing.assert_array_equal(chosen, features[order + order + order[:2]])
    np.testing.assert_array_equal(chosen_boxes, boxes[order + order + order[:2]])
    np.testing.assert_array_equal(chosen.max(0), features.max(0))


def test_boxes_that_are_not_in_pixels_are_left_out():
    features, boxes, _ = detections(1, 12)
    assert bestRegions(features, boxes, None, 10)[1] is not None
    broken = boxes.copy()
    broken[3, 2] = np.nan
    for other in (boxes / 400, boxes[:, [2, 3, 0, 1]], broken, boxes * np.inf, boxes[:11], boxes.T, None):
        assert bestRegions(features, other, None, 10)[1] is None


def test_what_is_left_out_is_said(captions, tmp_path, capsys):
    features = detections(1, 12)[0]
    broken = features.copy()
    broken[2, 5] = np.nan
    path = tmp_path / 'some.tsv'
    lines = [tsv_line(PUBLISHED, 9, features=broken), tsv_line(PUBLISHED, 77), tsv_line(PUBLISHED, 30, 3),
             'nobody' + '\t1' * 5 + '\n', tsv_line(PUBLISHED, 25, boxes=detections(25, 12)[1] / 999),
             tsv_line(PUBLISHED, 25), tsv_line(PUBLISHED, 139)[:-3000]]
    path.write_text(''.join(lines))
    out = build(captions, [path], tmp_path)
    with open(os.path.join(out, 'skipped.json')) as f:
        skipped = json.load(f)
    assert skipped == {'train': {'features that are not finite': ['000000000009.jpg'],
                                 'features that are not num_boxes rows of float32 in base64': ['000000000139.jpg']},
                       'val': {'no features': ['000000581929.jpg']}}
    printed = capsys.readouterr().out
    for line in ('train: 1 of 3 images', 'val: 1 of 2 images',
                 'left out, features that are not finite: 1, such as 000000000009.jpg',
                 'left out, no features: 1, such as 000000581929.jpg', 'features of no image that has captions: 2\n',
                 'features given again, the first usable ones taken: 1\n',
                 'images with fewer than 10 boxes, repeated: 1\n', 'images without boxes in pixels: 1\n'):
        assert line in printed
    assert 'boxes' not in image(out, 25) and sorted(os.listdir(os.path.join(out, 'Val2017_detectron2_lim10features'))) == [
        '000000000030.pickle']


@pytest.mark.parametrize('arrays, reason', [
    ({'feat': np.zeros((12, 1024))}, 'features of 1024 numbers a box instead of [K, 2048]'),
    ({'feat': np.zeros(2048)}, 'features of 1 dimensions instead of [K, 2048]'),
    ({'feat': np.zeros((0, 2048))}, 'no boxes'),
    ({'feat': np.zeros((3, 2048)), 'conf': np.zeros(2)}, 'another number of scores than of boxes'),
    ({'boxes': np.zeros((3, 4))}, 'none of features, feat, x, arr_0 among boxes'),
    ({'feat': np.array([print, 'an object'], dtype=object)}, 'Object arrays cannot be loaded when allow_pickle=False'),
    (None, 'features that cannot be read (BadZipFile)'),
])
def test_a_file_that_cannot_be_used(arrays, reason, captions, tmp_path):
    folder = tmp_path / 'features'
    folder.mkdir()
    write_files('{}.npz', feat='features')(folder)
    if arrays is None:
        (folder / '9.npz').write_bytes((folder / '9.npz').read_bytes()[:5000])
    else:
        np.savez(str(folder / '9.npz'), **arrays)
    out = build(captions, [folder], tmp_path)
    with open(os.path.join(out, 'skipped.json')) as f:
        assert json.load(f) == {'train': {reason: ['000000000009.jpg']}, 'val': {}}


def test_a_stopped_run_goes_on(captions, tmp_path, monkeypatch):
    features = [write_tsv(PUBLISHED)(tmp_path)]
    expected = build(captions, features, tmp_path, 'at once')
    out, calls = str(tmp_path / 'out'), []

    def stopping(path, value, write=script.writePickle):
        calls.append(path)
        if len(calls) == 7:  # the vocabulary, two images and half of the third are written
            with open(os.path.join(os.path.dirname(path), 'partial_' + os.path.basename(path)), 'wb') as f:
                f.write(b'half a fi')  # as a kill leaves it
            raise KeyboardInterrupt
        write(path, value)

    monkeypatch.setattr(script, 'writePickle', stopping)
    with pytest.raises(KeyboardInterrupt):
        build(captions, features, tmp_path)
    assert not os.path.exists(out)
    assert sum(len(files) for _, _, files in os.walk(out + '.partial')) == 7
    first = os.path.join(out + '.partial', 'Train2017_detectron2_lim10maxfeatures', '000000000009.pickle')
    written = os.stat(first)
    build(captions, features, tmp_path)
    assert os.stat(first.replace('.partial', '')).st_mtime_ns == written.st_mtime_ns and not os.path.exists(out + '.partial')
    assert contents(out) == contents(expected)


def contents(root):
    """Path → bytes of every file."""
    paths = [os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names]
    values = {}
    for path in paths:
        with open(path, 'rb') as f:
            values[os.path.relpath(path, root)] = f.read()
    return values


def test_nothing_is_overwritten(captions, tmp_path):
    features = [write_tsv(PUBLISHED)(tmp_path)]
    out = build(captions, features, tmp_path)
    with pytest.raises(UserError, match='exists already'):
        build(captions, features, tmp_path)
    os.rename(out, out + '.partial')
    captions_folder(tmp_path, {'train': {9: ['another caption']}})
    with pytest.raises(UserError, match='begun with other captions'):
        build(captions, features, tmp_path)
    captions_folder(tmp_path, CAPTIONS)
    with pytest.raises(UserError, match='begun with other captions'):
        build(captions, features, tmp_path, minimumCount=2)
    build(captions, features, tmp_path)


def test_one_split_alone_is_kept_until_the_other_comes(captions, tmp_path):
    one, other = tmp_path / 'one.tsv', tmp_path / 'other.tsv'
    one.write_text(''.join(tsv_line(PUBLISHED, id) for id in CAPTIONS['train']))
    other.write_text(''.join(tsv_line(PUBLISHED, id) for id in CAPTIONS['val']))
    with pytest.raises(UserError, match='no usable features of val images'):
        build(captions, [one], tmp_path)
    out = build(captions, [other], tmp_path)
    assert all(image(out, id) for id in IDS)


def test_a_folder_of_tsv_files(captions, tmp_path):
    folder = tmp_path / 'trainval'
    folder.mkdir()
    for mode, group in CAPTIONS.items():
        (folder / f'{mode}.tsv').write_text(''.join(tsv_line(PUBLISHED, id) for id in group))
    (folder / 'readme.txt').write_text('about these files')
    assert all(image(build(captions, [folder], tmp_path), id) for id in IDS[:1])


def test_a_tsv_is_streamed(tmp_path):
    path = tmp_path / 'long.tsv'
    with open(str(path), 'w') as f:
        f.writelines(tsv_line(PUBLISHED, id, 36) for id in range(60))  # 24 MB
    (_, reader), = findReaders([str(path)])
    tracemalloc.start()
    try:
        assert [idInName(name) for name, read in reader if bestRegions(*read(), 10)[2] == 36] == list(range(60))
        assert tracemalloc.get_traced_memory()[1] < 4e6
    finally:
        tracemalloc.stop()


def faulty_features(folder, what):
    path = folder / {'columns': 'a.tsv', 'form': 'a.lmdb', 'shape': 'a.npy', 'no ids': 'a.npy', 'fewer ids': 'a.npy',
                     'a stranger': 'a.npy', 'no array': 'a.npy', 'empty': 'empty', 'missing': 'missing', 'no HDF5': 'a.h5'}[what]
    if what == 'empty':
        path.mkdir()
    elif what in ('shape', 'no ids', 'fewer ids', 'a stranger'):
        np.save(str(path), np.zeros((3, 2048) if what == 'shape' else (3, 12, 2048), np.float32))
    elif what != 'missing':
        path.write_text('1\t2\t3\n')
    if what == 'fewer ids':
        (folder / 'a_ids.json').write_text('[9, 139]')
    elif what == 'a stranger':
        (folder / 'a_ids.pkl').write_bytes(pickle.dumps({os.getcwd: 0}))
    return path


@pytest.mark.parametrize('what, sentence', [
    ('columns', 'has 3 columns .* known are 6, 7, 10'), ('form', 'neither a folder nor'), ('shape', r'the shape \[3, 2048\]'),
    ('no ids', 'a_ids.json'), ('fewer ids', 'lists 2 image ids, .* of 3 images'), ('a stranger', 'a_ids.pkl cannot be read'),
    ('no array', 'cannot be read as a numpy array'), ('empty', 'holds no .npz'), ('missing', 'do not exist'),
    ('no HDF5', 'cannot be read as an HDF5 file'),
])
def test_features_that_cannot_be_used(what, sentence, captions, tmp_path):
    if what == 'no HDF5':
        pytest.importorskip('h5py')
    with pytest.raises(UserError, match=sentence):
        build(captions, [faulty_features(tmp_path, what)], tmp_path)


def test_a_missing_h5py_is_said(captions, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'h5py', None)
    (tmp_path / 'a.hdf5').write_text('')
    with pytest.raises(UserError, match='pip install h5py'):
        build(captions, [tmp_path / 'a.hdf5'], tmp_path)


@pytest.mark.parametrize('fault, sentence', [(KeyboardInterrupt(), 'Stopped. What was finished is kept'),
                                             (OSError(28, 'No space left on device'), 'disk is full.* What was finished')])
def test_a_stop_and_a_full_disk_end_in_a_sentence(fault, sentence, captions, tmp_path, monkeypatch):
    def fail(path, value):
        raise fault

    for name, value in (('CAPTIONS', captions), ('FEATURES', str(write_tsv(PUBLISHED)(tmp_path))),
                        ('OUT', str(tmp_path / 'out'))):
        monkeypatch.setattr(script, name, value)
    with monkeypatch.context() as patch, pytest.raises(SystemExit, match=sentence):
        patch.setattr(script, 'writePickle', fail)
        runScript(script.main)
    script.main()
    assert all(image(str(tmp_path / 'out'), id) for id in IDS)


@pytest.mark.parametrize('name, id', [('139', 139), ('000000000139', 139), ('COCO_val2014_000000000139', 139),
                                      ('000000000139.jpg', 139), ('139_info', None), ('', None),
                                      ('1000268201_693b08cb0e.jpg', None), ('IMG_0139.jpg', None)])
def test_the_id_in_a_name(name, id):
    assert idInName(name) == id


def test_the_script_started_elsewhere_ends_in_a_sentence(tmp_path):
    done = subprocess.run([sys.executable, os.path.join(PROJECT, 'utils', 'buildCourseLayout.py')], cwd=str(tmp_path),
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    assert done.returncode == 1 and 'Traceback' not in done.stderr and 'Set FEATURES' in done.stderr
