"""Captions your own photos.

    python utils/captionPhotos.py

Put photos into the folder PHOTOS, in folders of their own if you like, start this, and open
`photos/captions.html`: each photo with what the model says about it and where its attention looks.
`photos/captions.json` has the captions in the form of COCO's results. This needs no Java, no data
folder and no network: nothing leaves your machine.
"""
import collections
import glob
import importlib
import os
import re
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
from utils.saverRestorer import DELIVERED, newestCheckpoint, readCheckpoint
from utils.scripts.endings import runScript
from utils.validate_metrics import imageId

PHOTOS = 'photos/'   # relative to the project's folder
RESULTS = 'photos/'  # where captions.html and captions.json are written
MODEL = ''           # a run's folder, such as 'storedModels/task4_attention_…', or a checkpoint;
                     # empty: your newest that was trained on features of photos, else the one
                     # that comes with the project
BEST = 3             # captions that the beam search keeps for each photo

BATCH = 64
PRINTED = 20         # captions
CUDA = {'use_cuda': True, 'device_idx': 0}


def findModel(chosen):
    """The checkpoint to use, as `readCheckpoint` returns it.

    Args:
        chosen: path of a checkpoint or of its folder; '' for your newest, else the delivered one.

    Raises:
        UserError: there is none, or it knows nothing of photos.
    """
    if chosen:
        path = newestCheckpoint(chosen, 'best') if os.path.isdir(chosen) else chosen
        if path is None or not os.path.isfile(path):
            raise UserError(f"There is no checkpoint {chosen}. Set MODEL at the top of "
                            "utils/captionPhotos.py to one, or to ''.")
        checkpoint = readCheckpoint(path)
        if not isForPhotos(checkpoint):
            raise UserError(f'The model {path} was not trained on features that this project makes '
                            'of photos. Train one on a data folder that '
                            'utils/buildCourseLayout.py has built from photos, or set MODEL at the '
                            "top of utils/captionPhotos.py to ''.")
        return checkpoint
    for folder in (inProject('storedModels'), DELIVERED):
        paths = glob.glob(os.path.join(glob.escape(folder), '*', 'best_epoch*.pt'))
        for path in sorted(paths, key=os.path.getmtime, reverse=True):
            try:
                checkpoint = readCheckpoint(path)
            except UserError:
                continue  # a broken one
            if isForPhotos(checkpoint):
                return checkpoint
    raise UserError(f'There is no model for photos in {DELIVERED}, nor one of your own. Copy that '
                    'folder again from where the project came from.')


def isForPhotos(checkpoint):
    """Whether a checkpoint has all that is needed to caption photos."""
    return isStandard(checkpoint.get('photoStandard')) and 'words' in checkpoint


class Captioner:
    """A trained model that captions features of photos.

    Args:
        checkpoint: as `findModel` returns it.

    Raises:
        UserError: its network is not this project's.
    """

    def __init__(self, checkpoint):
        self.path, network, config = (checkpoint[key] for key in ('path', 'network', 'config'))
        if not (re.fullmatch(r'cocoSource_\w+', network)
                and os.path.exists(inProject(f'{network}.py'))):
            raise UserError(f'The model {self.path} is of the network {network}.py, '
                            'which is not here.')
        network = importlib.import_module(network).ImageCaptionModel
        self.model = Model(config, {'cuda': CUDA, 'inference': True}, network)
        self.model.net.load_state_dict(checkpoint['model_state_dict'])
        self.model.net.eval()
        self.model.setFeatureMean(checkpoint.get('feature_mean'))
        self.vocabulary = {'TokenToWord': dict(enumerate(checkpoint['words']))}
        self.standard = checkpoint['photoStandard']
        self.pooled = config['featurepathstub'] == POOLED

    def __call__(self, features):
        """Captions photos.

        Args:
            features: [B, 10, 2048], as `PhotoFeatures` returns them.

        Returns:
            list of B dicts of `caption`, `references` (the best captions, each with its
            probability, per word and as a whole) and, if the model has it, `attention` (a row of
            weights over the regions for each word of the caption).
        """
        features = torch.from_numpy(applyStandard(self.standard, features))     # [B, 10, 2048]
        if self.pooled:
            features = features.max(dim=1).values                               # [B, 2048]
        batch = {'cnn_features': features, 'xTokens': torch.full((len(features), 1, 1), START)}
        tokens, log_p = self.model.beamSearch(batch, BEST)
        tokens = tokens.tolist()
        attention = self.model.attentionOver(batch, [best[0] for best in tokens])  # [B, T, 10]
        details = []
        for row, best in enumerate(tokens):
            references = [self._withProbability(caption, log)
                          for caption, log in zip(best, log_p[row]) if log.isfinite()]
            details.append({'caption': captionOf(self.vocabulary, best[0]),
                            'references': references})
            if attention is not None:
                weights = attention[row, wordPositions(self.vocabulary, best[0])]
                details[-1]['attention'] = weights.double().numpy().round(3).tolist()
        return details

    def _withProbability(self, tokens, log_p):
        steps = tokens.index(END) + 1 if END in tokens else len(tokens)
        return (f'{captionOf(self.vocabulary, tokens)} ({(log_p / steps).exp():.0%} a word, '
                f'{log_p.exp():.1e} in all)')


def captionsOf(photos, maker, captioner, broken):
    """Captions photos.

    Args:
        photos: list of paths.
        maker: a `PhotoFeatures`.
        captioner: a `Captioner`.
        broken: dict path → why, to which the photos that cannot be read are added.

    Returns:
        list of a dict for each of the others, as `writePage` takes them, with `path` besides.
    """
    made = list(featuresOfPhotos(maker, photos, broken, 'photos'))
    details = []
    for start in range(0, len(made), BATCH):
        batch = made[start:start + BATCH]
        details += captioner(np.stack([features for _, features, _ in batch]))
    for (path, _, boxes), detail in zip(made, details):
        picture, size = openPhoto(path, PIXELS)
        detail.update(path=path, boxes=boxes.round(1).tolist(), picture=embedded(picture), size=size)
    return details


def main():
    folder, results_folder = (inProject(os.path.expanduser(path)) for path in (PHOTOS, RESULTS))
    photos = photosIn(folder)
    if not photos:
        raise UserError(f'There are no photos in {folder}. Put some there ({", ".join(FORMATS)}), '
                        'or set PHOTOS at the top of utils/captionPhotos.py to another folder.')
    captioner = Captioner(findModel(MODEL and inProject(os.path.expanduser(MODEL))))
    device = captioner.model.device
    maker = PhotoFeatures(device)
    print(f'Model: {captioner.path}. Photos: {len(photos):,} in {folder}. '
          f'Device: {describeDevice(device)}.', flush=True)
    os.makedirs(results_folder, exist_ok=True)
    results, pages, broken = [], [], {}
    photos_with_id = collections.Counter(map(imageId, photos))
    for start in range(0, len(photos), SHOWN):
        images = captionsOf(photos[start:start + SHOWN], maker, captioner, broken)
        if not images:
            continue
        for image in images:
            path = image.pop('path')
            image_id, name = imageId(path), os.path.relpath(path, folder)
            if photos_with_id[image_id] > 1:
                image_id = name
            image.update(image_id=image_id, imgPath=name, position=len(results))
            results.append({'image_id': image_id, 'caption': image['caption']})
        number = f'_{len(pages) + 1}' if pages else ''
        pages.append(os.path.join(results_folder, f'captions{number}.html'))
        writePage(pages[-1], {'images': images, 'ownCaptions': f'The {BEST} best'}, scores=[],
                  model=os.path.basename(os.path.dirname(captioner.path)),
                  about=f'{len(images):,} photos in {folder}.')
    for path, why in sorted(broken.items()):
        print(f'Left out: {os.path.relpath(path, folder)}, {why}.')
    if not results:
        raise UserError(f'None of the {len(photos):,} photos in {folder} can be read.')
    for result in results[:PRINTED]:
        print(f"{result['image_id']}: {result['caption']}")
    path = os.path.join(results_folder, 'captions.json')
    writeJson(path, results)
    print(f"Captions for people: {', '.join(pages)}\nCaptions for programs: {path}")


if __name__ == '__main__':
    runScript(main)
