"""Captions of the validation images, their scores, and the teacher-forced validation loss."""
import contextlib
import math

import numpy as np
import torch

from utils import metrics
from utils.data.captionForms import keyOf
from utils.data.captionWords import UNKNOWN, attentionAtWords, captionOf
from utils.files.errors import UserError
from utils.files.ownFiles import runFolder, writeJson
from utils.processes.progress import progressBar


def imageId(imgPath):
    """COCO's image id, a 64-bit integer; the file name without extension where it has none."""
    key = keyOf(imgPath)
    return int(key) if key.isdecimal() and len(key) < 19 else key


def finite(loss, imgPaths, where):
    """The loss of a batch, a float.

    Raises:
        UserError: it is infinite or not a number; the message names the batch's images.
    """
    if not math.isfinite(loss):
        raise UserError(
            f"The loss is {loss} in {where}, images {', '.join(imgPaths)}. The files were checked "
            'at the start, so the model has diverged, and this epoch is not saved. Set '
            "config['learningRate'] lower (for self-critical epochs LEARNING_RATE in "
            "utils/networks/selfCritical.py) and modelParam['restoreModelLast'] to 1, and start "
            'again: it goes on after the last saved epoch, or anew where none is saved.')
    return loss


def teacherForcedLoss(model, batches):
    """The loss per word in nats over all words of the batches, each image's first caption given
    word by word."""
    model.net.eval()
    total = words = 0.0
    for batch in batches:
        with torch.no_grad():
            loss = float(sum(model.lossOfParts(batch)))
        total += finite(loss, batch['imgPaths'], 'the validation')
        words += float(batch['yWeights'].sum())
    return total / words


class CaptionValidator:
    """Captions the validation images and scores the captions; one for a whole run.

    The first pass over the images also collects their references, the captions by people.

    Args:
        modelParam: dict.
        dataLoader: a `DataLoaderWrapper` with the mode 'val'.

    Attributes:
        references: dict image id → list of captions as they are.
        token_references: the same as strings of token numbers.
        meteor_per_image: dict image id → METEOR of the caption last scored.

    Raises:
        JavaError: there is no Java, or it failed.
    """

    def __init__(self, modelParam, dataLoader):
        self.modelParam = modelParam
        self.dataLoader = dataLoader
        self.meteor = metrics.METEOR()  # reads its tables while the first captions are made
        self.tokenized = {}  # the references, from the first score on
        self.meteor_per_image = {}
        self.references = {}
        self.token_references = {}

    def close(self):
        """Ends METEOR's Java process."""
        self.meteor.close()

    def batches(self, description):
        """The batches of all validation images, behind a progress bar.

        Raises:
            UserError: two files are of the same image.
        """
        loader = self.dataLoader.myDataDicts['val']
        isFirstPass = not self.references
        for batch in progressBar(loader, description, self.modelParam):
            if not isFirstPass:
                yield batch
                continue
            for imgPath, captions, tokens in zip(batch['imgPaths'], batch['orig_captions'],
                                                 batch['allcaptionsAsTokens']):
                image = imageId(imgPath)
                if image in self.references:
                    raise UserError(f'{loader.dataset.paths[len(self.references)]} is of the image '
                                    f'{image}, as is another file of its folder. Move one away.')
                self.references[image] = captions
                # As the course does it: a caption without an end token loses its last word.
                self.token_references[image] = [' '.join(map(str, caption[1:-1]))
                                                for caption in tokens]
            yield batch

    def results(self, batch, captions):
        """A batch's captions, B lists of tokens, in COCO results form: list of dicts of `image_id`
        and `caption`."""
        vocabulary = self.dataLoader.vocabulary
        return [{'image_id': imageId(imgPath), 'caption': captionOf(vocabulary, tokens)}
                for imgPath, tokens in zip(batch['imgPaths'], captions)]

    def caption(self, model):
        """The greedy captions of all validation images, as `results` has them."""
        model.net.eval()
        return [result for batch in self.batches('captions')
                for result in self.results(batch, model.greedyTokens(batch))]

    def score(self, results):
        """The COCO protocol's scores on words: dict of `bleu_1` … `bleu_4`, `meteor`, `cider`,
        `rouge`, plain floats."""
        self.tokenized = self.tokenized or metrics.tokenize(self.references)
        scores, self.meteor_per_image = metrics.scoreCaptions(self.tokenized, results, self.meteor)
        return scores

    def meteorOnTokens(self, results):
        """The course's METEOR, on strings of token numbers, as `metrics.METEOR` explains."""
        token = self.dataLoader.vocabulary['wordToToken']
        predicted = {
            result['image_id']: [' '.join(str(token.get(word, UNKNOWN))
                                          for word in result['caption'].split())]
            for result in results}
        return self.meteor.compute_score(self.token_references, predicted)[0]

    def allScores(self, results):
        """Those of `score`, and `meteor_tokens`."""
        return {**self.score(results), 'meteor_tokens': self.meteorOnTokens(results)}


def validateCaptions(model, modelParam, config, dataLoader, beamSize=1):
    """Captions and scores the validation images.

    Writes into the run's folder `captions_validation.json`, the captions in COCO results form;
    `details_validation.json`, all that pages about them show: a list of dicts of `image_id`,
    `imgPath`, `caption`, `references` (the captions by people), `meteor` (on words, of this
    image), and where the model and the data have them `attention` (a row of weights over the
    detections per word of the caption) and `boxes` ([x1, y1, x2, y2] in pixels per detection);
    `scores_validation.json`, what is returned and the `epoch` of the model; with a beam also
    `captions_validation_beam{beamSize}.json`.

    Args:
        config: not used; the course's scripts give it.
        beamSize: integer; with more than 1 captions of a beam search are scored as well.

    Returns:
        dict of floats: `loss`, teacher-forced, in nats per word; of greedy captions `bleu_1` …
        `bleu_4`, `meteor`, `cider`, `rouge` by the COCO protocol on words, and `meteor_tokens` as
        the course scores it; with a beam `beam_bleu_1` … `beam_meteor_tokens`.
    """
    results, beam_results, details = [], [], []
    model.net.eval()
    with contextlib.closing(CaptionValidator(modelParam, dataLoader)) as validator:
        for batch in validator.batches('captions'):
            captions = model.greedyTokens(batch)
            attention = model.attentionOver(batch, captions)           # [B, T, detections] or None
            of_batch = validator.results(batch, captions)
            results += of_batch
            for row, result in enumerate(of_batch):
                image = {**result, 'imgPath': batch['imgPaths'][row],
                         'references': batch['orig_captions'][row]}
                if attention is not None:
                    image['attention'] = attentionAtWords(dataLoader.vocabulary, captions[row],
                                                          attention[row])
                if 'boxes' in batch and batch['boxes'][row] is not None:
                    image['boxes'] = np.float64(batch['boxes'][row]).round(1).tolist()
                details.append(image)
            if beamSize > 1:
                beam_results += validator.results(batch, model.beamTokens(batch, beamSize))
        loss = teacherForcedLoss(model, validator.batches('loss'))
        scores = {'loss': loss, **validator.allScores(results)}
        for image in details:
            image['meteor'] = validator.meteor_per_image[image['image_id']]
        files = {'captions_validation.json': results, 'details_validation.json': details}
        if beamSize > 1:
            files[f'captions_validation_beam{beamSize}.json'] = beam_results
            for name, score in validator.allScores(beam_results).items():
                scores[f'beam_{name}'] = score
    files['scores_validation.json'] = {'epoch': model.start_epoch, **scores}
    for name, content in files.items():
        writeJson(runFolder(modelParam, name=name), content)
    return scores


def scoreTable(scores, beamSize):
    """The scores that `validateCaptions` returns as a table in text, with a column for the beam."""
    lines = [f"{'':14s}greedy{f'beam of {beamSize}':>12s}"] if beamSize > 1 else []
    for name, score in scores.items():
        if not name.startswith('beam_'):
            line = f'{name:14s}{score:.4f}'
            if f'beam_{name}' in scores:
                line += f"{scores[f'beam_{name}']:12.4f}"
            lines.append(line)
    return '\n'.join(lines)
