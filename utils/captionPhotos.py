"""Captions photos of one's own.

    python utils/captionPhotos.py

Put photos into the folder PHOTOS, in folders of their own if you like, start this, and open `photos/captions.html`: each photo
with what the model says about it and where its attention looks. `photos/captions.json` has the captions in the form of COCO's
results. Needs no Java, no data folder and no network: nothing leaves this machine.
"""
import collections
import contextlib
import glob
import importlib
import itertools
import os
import re
import sys

if __name__ == '__main__':
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # as for the scripts in the project's folder

import numpy as np
import torch
from tqdm import tqdm

from utils.data.captionWords import END, START, captionOf, wordPositions
from utils.data.dataFolder import POOLED
from utils.data.photoFeatures import PhotoFeatures, applyStandard, featuresOfPhotos, isStandard, photosIn
from utils.data.pictures import FORMATS, openPhoto
from utils.files.atomic import writeJson
from utils.files.errors import UserError
from utils.files.project import inProject
from utils.model import Model, describeDevice
from utils.pages.captionPage import PIXELS, SHOWN, embedded, writePage
from utils.saverRestorer import DELIVERED, newestCheckpoint, readCheckpoint
from utils.scripts.endings import runScript
from utils.validate_metrics import imageId

PHOTOS = 'photos/'        # relative to the project's folder
RESULTS = 'photos/'       # where captions.html and captions.json are written
MODEL = ''                # a run's folder, such as 'storedModels/task4_attention_…', or a checkpoint; empty: the newest of one's
                          # own that was trained on features of photos, else the one that comes with the project
BEST = 3                  # captions that the beam search keeps for each photo

BATCH = 64
NAMED = 20                # captions at most are printed, too
CUDA = {'use_cuda': True, 'device_idx': 0}


def findModel(chosen):
    """The checkpoint to use, as `readCheckpoint` returns it.

    Args:
        chosen: the path of a checkpoint or of its folder; '' for the newest of one's own, else the delivered one.

    Raises:
        UserError: there is none, or it knows nothing of photos.
    """
    if chosen:
        path = newestCheckpoint(chosen, 'best') if os.path.isdir(chosen) else chosen
        if path is None or not os.path.isfile(path):
            raise UserError(f"There is no checkpoint {chosen}. Set MODEL at the top of utils/captionPhotos.py to one, or to ''.")
        checkpoint = readCheckpoint(path)
        if not isForPhotos(checkpoint):
            raise UserError(f'The model {path} was not trained on features that this project makes of photos. Train one on a data '
                            'folder that utils/buildCourseLayout.py has built from photos, or set MODEL at the top of '
                            "utils/captionPhotos.py to ''.")
        return checkpoint
    for folder in (inProject('storedModels'), DELIVERED):
        paths = glob.glob(os.path.join(glob.escape(folder), '*', 'best_epoch*.pt'))
        for path in sorted(paths, key=os.path.getmtime, reverse=True):
            with contextlib.suppress(UserError):                                 # a broken one is passed over
                checkpoint = readCheckpoint(path)
                if isForPhotos(checkpoint):
                    return checkpoint
    raise UserError(f'There is no model for photos in {DELIVERED}, nor one of your own. Copy that folder again from where the '
                    'project came from.')


def isForPhotos(checkpoint):
    """Whether a checkpoint brings along all that captioning photos takes."""
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
        if not re.fullmatch(r'cocoSource_\w+', network) or not os.path.exists(inProject(f'{network}.py')):
            raise UserError(f'The model {self.path} is of the network {network}.py, which is not here.')
        self.model = Model(config, {'cuda': CUDA, 'inference': True}, importlib.import_module(network).ImageCaptionModel)
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
            list of B dicts of `caption`, `references` (the best captions, each with its probability, per word and as a whole)
            and where the model has it `attention` (a row of weights over the regions per word of the caption).
        """
        cnn_features = torch.from_numpy(applyStandard(self.standard, features))  # [B, 10, 2048]
        if self.pooled:
            cnn_features = cnn_features.max(dim=1).values                        # [B, 2048]
        batch = {'cnn_features': cnn_features, 'xTokens': torch.full((len(features), 1, 1), START)}
        tokens, log_p = self.model.beamSearch(batch, BEST)
        tokens = tokens.tolist()
        attention = self.model.attentionOver(batch, [best[0] for best in tokens])  # [B, T, 10] or None
        details = []
        for row, best in enumerate(tokens):
            details.append({'caption': captionOf(self.vocabulary, best[0]),
                            'references': [self._withProbability(*said) for said in zip(best, log_p[row]) if said[1].isfinite()]})
            if attention is not None:
                weights = attention[row, wordPositions(self.vocabulary, best[0])].tolist()
                details[-1]['attention'] = [[round(weight, 3) for weight in weights_of_word] for weights_of_word in weights]
        return details

    def _withProbability(self, tokens, log_p):
        per_word = log_p / (tokens.index(END) + 1 if END in tokens else len(tokens))  # the end counts as one
        return f'{captionOf(self.vocabulary, tokens)} ({per_word.exp():.0%} a word, {log_p.exp():.1e} in all)'


def batches(things, size):
    """Yields lists of `size` things, the last perhaps shorter."""
    things = iter(things)
    return iter(lambda: list(itertools.islice(things, size)), [])


def captionsOf(photos, folder, maker, captioner, broken):
    """Captions many photos, a batch of them in memory.

    Args:
        photos: their paths.
        folder: that they lie in.
        maker: a `PhotoFeatures`.
        captioner: a `Captioner`.
        broken: dict name → why, to which the photos are added that cannot be read.

    Yields:
        a dict for each of the others, as a page of captions has it.
    """
    names = {photo: os.path.relpath(photo, folder) for photo in photos}
    number_of = collections.Counter(map(imageId, photos))

    def isReadable(photo):
        path, features, boxes = photo
        if boxes is None:
            broken[names[path]] = str(features)
        return boxes is not None

    position = itertools.count()
    for batch in batches(filter(isReadable, featuresOfPhotos(maker, photos)), BATCH):
        for (path, _, boxes), said in zip(batch, captioner(np.stack([features for _, features, _ in batch]))):
            picture, size = openPhoto(path, PIXELS)
            image_id = imageId(path)  # which photos in several folders may share
            yield {'image_id': image_id if number_of[image_id] == 1 else names[path], 'imgPath': names[path],
                   'position': next(position), 'boxes': boxes.round(1).tolist(), 'picture': embedded(picture), 'size': size, **said}


def main():
    folder, results_folder = (inProject(os.path.expanduser(path)) for path in (PHOTOS, RESULTS))
    photos = photosIn(folder)
    if not photos:
        what = 'holds no photos' if os.path.isdir(folder) else 'does not exist'
        raise UserError(f'The folder {folder} {what}. Put photos there ({", ".join(FORMATS)}), or set PHOTOS at the top of '
                        'utils/captionPhotos.py to another folder.')
    captioner = Captioner(findModel(MODEL and inProject(os.path.expanduser(MODEL))))
    maker = PhotoFeatures(captioner.model.device)
    print(f'Model: {captioner.path}. Photos: {len(photos):,} in {folder}. Device: {describeDevice(captioner.model.device)}.',
          flush=True)
    os.makedirs(results_folder, exist_ok=True)
    results, pages, broken = [], [], {}
    details = captionsOf(photos, folder, maker, captioner, broken)
    for images in batches(tqdm(details, 'captions', len(photos), unit='photo', disable=None, leave=False), SHOWN):
        pages.append(os.path.join(results_folder, f"captions{f'_{len(pages) + 1}' * bool(pages)}.html"))
        writePage(pages[-1], {'images': images, 'ownCaptions': f'The {BEST} best'}, scores=[],
                  model=os.path.basename(os.path.dirname(captioner.path)), about=f'{len(images):,} photos in {folder}.')
        results += [{key: image[key] for key in ('image_id', 'caption')} for image in images]
    for name, why in broken.items():
        print(f'Left out: {name}, {why}.')
    if not results:
        raise UserError(f'None of the {len(photos):,} photos in {folder} can be read.')
    for result in results[:NAMED]:
        print(f"{result['image_id']}: {result['caption']}")
    path = os.path.join(results_folder, 'captions.json')
    writeJson(path, results)
    print(f"Captions for people: {', '.join(pages)}\nCaptions for programs: {path}")


if __name__ == '__main__':
    runScript(main)
