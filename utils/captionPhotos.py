"""Captions your own photos.

    python utils/captionPhotos.py

Put photos into the folder PHOTOS, in folders of their own if you like, start this, and open
`photos/captions.html`: each photo with what the model says about it and where its attention looks.
`photos/captions.json` has the captions in the form of COCO's results. MODEL may be one that you
have trained on photos. This needs no Java, no data folder and no network: nothing leaves your
machine.
"""
import collections
import importlib
import itertools
import os
import sys

if __name__ == '__main__':  # find the modules, as the scripts in the project's folder do
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import numpy as np
import torch

from utils.data.captionWords import END, START, captionOf, wordPositions
from utils.data.dataFolder import POOLED
from utils.data.photoFeatures import (
    PhotoFeatures,
    applyStandard,
    featuresOfPhotos,
    isStandard,
    photosIn,
)
from utils.data.pictures import FORMATS, openPhoto
from utils.files.atomic import writeJson
from utils.files.errors import UserError
from utils.files.project import inProject
from utils.model import Model, describeDevice
from utils.pages.captionPage import PIXELS, SHOWN, embedded, writePage
from utils.saverRestorer import newestCheckpoint, readCheckpoint
from utils.scripts.endings import runScript
from utils.validate_metrics import imageId

PHOTOS = 'photos/'   # relative to the project's folder
RESULTS = 'photos/'  # captions.html and captions.json are written there
# A run's folder or a checkpoint, trained on features of photos; relative to the project's folder
MODEL = 'report/models/task4_attention_flickr8k_photos-c846bb'
BEST = 3             # captions that the beam search keeps for each photo
BATCH = 64           # photos that are captioned together

PRINTED = 20         # captions
CUDA = {'use_cuda': True, 'device_idx': 0}


def findModel(path):
    """The checkpoint at `path`, or the best one of the run's folder `path`, as `readCheckpoint`
    returns it.

    Raises:
        UserError: it cannot be read, or was not trained on features of photos.
    """
    checkpoint = readCheckpoint(newestCheckpoint(path, 'best') or path)
    if 'words' not in checkpoint or not isStandard(checkpoint.get('photoStandard')):
        raise UserError(f'The model {path} was not trained on features that this project makes of '
                        'photos. Set MODEL at the top of utils/captionPhotos.py to one that was; '
                        'utils/buildCourseLayout.py builds data folders of photos.')
    return checkpoint


def modelOf(checkpoint):
    """The trained model of a checkpoint.

    Raises:
        UserError: its network is not this project's.
    """
    network = checkpoint['network']
    is_ours = network.startswith('cocoSource_') and os.path.exists(inProject(f'{network}.py'))
    if not is_ours:
        raise UserError(f'The model {checkpoint["path"]} needs the network {network}.py, which is '
                        'not in this project.')
    model = Model(checkpoint['config'], {'cuda': CUDA, 'inference': True},
                  importlib.import_module(network).ImageCaptionModel)
    model.net.load_state_dict(checkpoint['model_state_dict'])
    model.net.eval()
    model.setFeatureMean(checkpoint.get('feature_mean'))
    return model


def captionsOf(features, model, checkpoint):
    """Captions photos.

    Args:
        features: list of B arrays [10, 2048], as `featuresOfPhotos` yields them.
        model: as `modelOf` returns it.
        checkpoint: the model's.

    Returns:
        list of B dicts of `caption`, `references` (the best captions, each with its probability,
        per word and as a whole) and, if the model has it, `attention` (a row of weights over the
        regions for each word of the caption).
    """
    features = torch.from_numpy(applyStandard(checkpoint['photoStandard'], np.stack(features)))
    if checkpoint['config']['featurepathstub'] == POOLED:
        features = features.max(dim=1).values                                   # [B, 2048]
    batch = {'cnn_features': features, 'xTokens': torch.full((len(features), 1, 1), START)}
    tokens, log_p = model.beamSearch(batch, BEST)
    tokens = tokens.tolist()
    attention = model.attentionOver(batch, [best[0] for best in tokens])  # [B, T, 10] or None
    vocabulary = {'TokenToWord': checkpoint['words']}
    details = []
    for row, best in enumerate(tokens):
        captions = [captionOf(vocabulary, caption) for caption in best]
        references = []
        for caption, text, log in zip(best, captions, log_p[row]):
            steps = caption.index(END) + 1 if END in caption else len(caption)
            references.append(f'{text} ({(log / steps).exp():.0%} a word, {log.exp():.1e} in all)')
        details.append({'caption': captions[0], 'references': references})
        if attention is not None:
            weights = attention[row, wordPositions(vocabulary, best[0])].double()  # [words, 10]
            details[-1]['attention'] = weights.numpy().round(3).tolist()
    return details


def main():
    folder, results_folder, model_path = (inProject(os.path.expanduser(path))
                                          for path in (PHOTOS, RESULTS, MODEL))
    photos = photosIn(folder)
    checkpoint = findModel(model_path)
    model = modelOf(checkpoint)
    maker = PhotoFeatures(model.device)
    print(f'Model: {checkpoint["path"]}. Photos: {len(photos):,} in {folder}. '
          f'Device: {describeDevice(model.device)}.', flush=True)
    os.makedirs(results_folder, exist_ok=True)
    results, pages, broken = [], [], {}
    photos_with_id = collections.Counter(map(imageId, photos))
    for start in range(0, len(photos), SHOWN):
        made = featuresOfPhotos(maker, photos[start:start + SHOWN], broken, 'photos')
        images = []
        while batch := list(itertools.islice(made, BATCH)):
            paths, features, boxes = zip(*batch)
            images += captionsOf(features, model, checkpoint)
            for path, regions, image in zip(paths, boxes, images[-len(batch):]):
                name = os.path.relpath(path, folder)
                image_id = imageId(path) if photos_with_id[imageId(path)] == 1 else name
                picture, size = openPhoto(path, PIXELS)
                image.update(imgPath=name, position=len(results), size=size,
                             picture=embedded(picture), boxes=regions.round(1).tolist())
                results.append({'image_id': image_id, 'caption': image['caption']})
        if images:
            number = f'_{len(pages) + 1}' if pages else ''
            pages.append(os.path.join(results_folder, f'captions{number}.html'))
            writePage(pages[-1], {'images': images, 'ownCaptions': f'The {BEST} best'}, scores=[],
                      model=os.path.basename(os.path.dirname(checkpoint['path'])),
                      about=f'{len(images):,} photos in {folder}.')
    for path, why in sorted(broken.items()):
        print(f'Left out: {os.path.relpath(path, folder)}, {why}.')
    if not results:
        raise UserError(f'There are no photos in {folder} that can be read. Put some there '
                        f'({", ".join(FORMATS)}), or set PHOTOS at the top of '
                        'utils/captionPhotos.py to another folder.')
    for result in results[:PRINTED]:
        print(f"{result['image_id']}: {result['caption']}")
    path = os.path.join(results_folder, 'captions.json')
    writeJson(path, results)
    print(f"Captions for people: {', '.join(pages)}\nCaptions for programs: {path}")


if __name__ == '__main__':
    runScript(main)
