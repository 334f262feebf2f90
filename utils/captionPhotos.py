"""Captions your own photos.

    python utils/captionPhotos.py

Put photos into the folder PHOTOS, in folders of their own if you like, start this, and open
`photos/captions.html`: each photo with what the model says about it and where its attention looks.
`photos/captions.json` has the captions in COCO's results format. MODEL may be one that you have
trained on photos. This needs no Java, no data folder and no network: nothing leaves your
machine. If you stop it by Ctrl-C, what is captioned so far is written.
"""
import collections
import contextlib
import importlib
import itertools
import math
import os
import sys
import tempfile

if __name__ == '__main__':  # find the modules, as the scripts in the project's folder do
    sys.path[0] = os.path.dirname(os.path.dirname(__file__))
    import utils  # noqa: F401 (before torch)

import numpy as np
import torch

from utils.data.captionWords import END, SMALL_WORDS, START, attentionAtWords, captionOf
from utils.data.dataFolder import POOLED
from utils.data.photoFeatures import (
    N_FEATURES,
    PhotoFeatures,
    applyStandard,
    featuresOfPhotos,
    isStandard,
    photosIn,
)
from utils.data.pictures import FORMATS
from utils.files.errors import UserError, foreignFile
from utils.files.ownFiles import inProject, writeJson
from utils.model import Model, chooseDevice, describeDevice
from utils.pages.captionPage import SHOWN, embedded, writePage
from utils.saverRestorer import loadWeights, newestCheckpoint, readCheckpoint
from utils.scripts.endings import runScript
from utils.validate_metrics import imageId

PHOTOS = 'photos/'   # relative to the project's folder
RESULTS = 'photos/'  # captions.html and captions.json are written there
# A run's folder or a checkpoint, trained on features of photos; relative to the project's folder
MODEL = 'report/models/task4_attention_flickr8k_coco_photos'
BEAM_SIZE = 3        # captions that the beam search keeps for each photo
BATCH = 64           # photos that are captioned together

PRINTED = 20         # captions
# Probability per word below which a caption is marked. Of 1,183 photos that the delivered model was
# not trained on 150 are below, with a mean CIDEr of 33; the others have 71.
UNSURE = .45
MODEL_PARAM = {'cuda': {'use_cuda': True, 'device_idx': 0}, 'inference': True}
AT_THE_TOP = 'at the top of utils/captionPhotos.py'


def loadModel(path):
    """The best model of the run's folder `path`, or the one in the checkpoint `path`.

    Returns:
        the checkpoint, as `readCheckpoint` returns it; its `Model`.

    Raises:
        UserError: it cannot be used, or was not trained on features of photos.
    """
    advice = (f'Set MODEL {AT_THE_TOP} to a model that was trained on photos; '
              'utils/buildCourseLayout.py builds data folders of photos.')
    checkpoint = readCheckpoint(newestCheckpoint(path, 'best') or path, advice)
    with foreignFile(checkpoint['path'], advice):
        if not isStandard(checkpoint.get('photoStandard')):
            raise ValueError('it was not trained on features that this project makes of photos')
        network = checkpoint['network']
        if not network.startswith('cocoSource_'):  # nothing else is imported
            raise ValueError(f'it needs the network {network}, which is not in this project')
        model = Model(checkpoint['config'], MODEL_PARAM,
                      importlib.import_module(network).ImageCaptionModel)
        loadWeights(model, checkpoint, advice)
        captionsOf(np.zeros((1, 10, N_FEATURES), np.float32), model, checkpoint)  # as a trial
    return checkpoint, model


def captionsOf(features, model, checkpoint):
    """Captions photos.

    Args:
        features: list of B arrays [10, 2048], as `featuresOfPhotos` yields them.
        model: the `Model`.
        checkpoint: the model's, as `loadModel` returns it.

    Returns:
        list of B dicts of `caption`, its `confidence` (probability per word), `references` (the
        best captions with theirs) and, if the model has it, `attention` (a row of weights over the
        regions for each word of the caption).

    Raises:
        ValueError: a probability is not finite.
    """
    features = torch.from_numpy(applyStandard(checkpoint['photoStandard'], np.stack(features)))
    if checkpoint['config']['featurepathstub'] == POOLED:
        features = features.max(dim=1).values                                   # [B, 2048]
    batch = {'cnn_features': features, 'xTokens': torch.full((len(features), 1, 1), START)}
    words = list(map(str, checkpoint['words']))
    vocabulary = {'TokenToWord': dict(enumerate(words))}
    may_repeat = torch.tensor([word in SMALL_WORDS for word in words], device=model.device)
    tokens, log_p = model.beamSearch(batch, BEAM_SIZE, may_repeat)        # [B, 3, T], [B, 3]
    if not log_p[:, 0].isfinite().all():
        raise ValueError('its weights or its photoStandard hold values that are not finite')
    steps = ((tokens != END).sum(dim=2) + 1).clamp(max=tokens.shape[2])   # the end is one
    of_a_word = (log_p / steps).exp().tolist()
    tokens = tokens.tolist()
    attention = model.attentionOver(batch, [best[0] for best in tokens])  # [B, T, 10] or None
    details = []
    for row, best in enumerate(tokens):
        captions = [captionOf(vocabulary, caption) for caption in best]
        details.append({'caption': captions[0], 'confidence': round(of_a_word[row][0], 3),
                        'references': [f'{caption} ({100 * share:.0f} % per word)'
                                       for caption, share in zip(captions, of_a_word[row])]})
        if attention is not None:
            details[-1]['attention'] = attentionAtWords(vocabulary, best[0], attention[row])
    return details


def captioned(photos, maker, model, checkpoint, broken):
    """Captions photos, a batch of them in memory; Ctrl-C ends it early.

    Args:
        photos: dict path → name.
        maker: a `PhotoFeatures`.
        model, checkpoint: as `loadModel` returns them.
        broken: dict path → why, to which the photos that cannot be read are added.

    Yields:
        dict for `writePage` of each photo that can be read.
    """
    made = featuresOfPhotos(maker, list(photos), broken, 'photos', embedded)
    with contextlib.suppress(KeyboardInterrupt):
        while batch := list(itertools.islice(made, BATCH)):
            paths, features, regions, pictures = zip(*batch)
            images = captionsOf(features, model, checkpoint)
            for image, path, boxes, picture in zip(images, paths, regions, pictures):
                yield {**image, 'imgPath': photos[path], 'picture': picture,
                       'size': boxes[0, 2:].tolist(), 'boxes': boxes.round(1).tolist()}


def pageName(number):
    return f'captions_{number}.html' if number > 1 else 'captions.html'


def main():
    folder, results_folder, model_path = map(inProject, (PHOTOS, RESULTS, MODEL))
    with foreignFile(results_folder, f'Set RESULTS {AT_THE_TOP} to a folder where you may write.'):
        os.makedirs(results_folder, exist_ok=True)
        tempfile.TemporaryFile(dir=results_folder).close()
    photos = {path: os.fsencode(os.path.relpath(path, folder)).decode('utf-8', 'backslashreplace')
              for path in photosIn(folder)}
    photos_with_id = collections.Counter(map(imageId, photos.values()))
    maker = PhotoFeatures(chooseDevice(MODEL_PARAM))
    checkpoint, model = loadModel(model_path)
    print(f'Model: {checkpoint["path"]}, of epoch {checkpoint["epoch"]}. Choose another by MODEL '
          f'{AT_THE_TOP}.\nPhotos: {len(photos):,} in {folder}. '
          f'Device: {describeDevice(model.device)}.')
    results, lines, broken = [], [], {}
    made = captioned(photos, maker, model, checkpoint, broken)
    json_path = os.path.join(results_folder, 'captions.json')
    about = f'by the model {os.path.basename(os.path.dirname(checkpoint["path"]))}'
    if 'learnedFrom' in checkpoint:
        about += f', which was trained on {checkpoint["learnedFrom"]}'
    page, ahead = 0, next(made, None)
    while ahead:
        page += 1
        images = [ahead, *itertools.islice(made, SHOWN - 1)]
        ahead = next(made, None)
        pages = math.ceil((len(photos) - len(broken)) / SHOWN) if ahead else page
        writePage(os.path.join(results_folder, pageName(page)),
                  {'images': images, 'ownCaptions': f'The {BEAM_SIZE} best', 'region': 'region',
                   'unsure': UNSURE},
                  title='Captions of your photos',
                  about=f'{len(images):,} of {len(photos):,} photos in {folder}, {about}.',
                  page_number=page, pages=pages, previous=pageName(page - 1),
                  next=pageName(page + 1))
        for image in images:
            name, image_id = image['imgPath'], imageId(image['imgPath'])
            results.append({'image_id': image_id if photos_with_id[image_id] == 1 else name,
                            'caption': image['caption']})
            lines.append(f"{name!r}: {image['caption']}")
        writeJson(json_path, results)
    for path, why in sorted(broken.items()):
        print(f'Left out: {photos[path]!r}, {why}.')
    if results:
        print(*lines[:PRINTED], sep='\n')
        if len(lines) > PRINTED:
            print(f'… and {len(lines) - PRINTED:,} more')
        print(f'Captions as JSON: {json_path}')
        while os.path.isfile(further := os.path.join(results_folder, pageName(page + 1))):
            os.remove(further)  # of an earlier run with more photos
            page += 1
    if len(results) + len(broken) < len(photos):
        raise UserError(f'Stopped. {len(results):,} of {len(photos):,} photos are captioned; the '
                        'next start begins anew.')
    if not results:
        raise UserError(f'There are no photos in {folder} that can be read. Put some there '
                        f'({", ".join(FORMATS)}), or set PHOTOS {AT_THE_TOP} to another folder.')


if __name__ == '__main__':
    runScript(main)
