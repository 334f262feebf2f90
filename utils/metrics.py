"""Scores of captions, METEOR, BLEU, CIDEr and ROUGE-L, by the COCO protocol (Chen et al. 2015,
arXiv:1504.00325)."""
import os
import re

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor import meteor as meteor_package
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer import ptbtokenizer as tokenizer_package

from utils.processes.java import JavaProcess, runJava

METEOR_FOLDER = os.path.dirname(meteor_package.__file__)
TOKENIZER_FOLDER = os.path.dirname(tokenizer_package.__file__)


class BLEU(Bleu):
    """BLEU-1 … BLEU-4: n-gram precision with a brevity penalty (Papineni et al. 2002).

    `compute_score(gts, res)` → (list of 4 floats for all images, list of 4 lists of floats per
    image).
    """

    def compute_score(self, gts, res):
        return super().compute_score(gts, res, verbose=0)


class CIDEr(Cider):
    """CIDEr-D: cosine similarity of TF-IDF-weighted n-grams, the images' references as documents
    (Vedantam et al. 2015), from 0 to 10. An n-gram that every image has counts 0.

    `compute_score(gts, res)` → (float, array per image).
    """


class ROUGE(Rouge):
    """ROUGE-L: F-measure of the longest common subsequence (Lin 2004).

    `compute_score(gts, res)` → (float, array per image).
    """


class METEOR:
    """METEOR 1.5: F-measure of aligned words, stems, synonyms and paraphrases, with a penalty for
    fragmentation (Banerjee & Lavie 2005; Denkowski & Lavie 2014).

    The scores are pycocoevalcap's, from its jar, in a Java process that is started once.
    Captions are words separated by spaces, or, as in the course, token numbers: '17 3 88'. Stems
    and synonyms do not match there, but some different numbers do: METEOR's paraphrase table pairs
    103 with 105. `close()` ends Java; the next call would start it again.

    Raises:
        JavaError: there is no Java.
    """

    def __init__(self):
        self._start()

    def _start(self):
        # With a space in the path METEOR does not find its paraphrases by itself.
        self._java = JavaProcess(
            'Scoring captions with METEOR (Java)',
            '-jar', os.path.join(METEOR_FOLDER, meteor_package.METEOR_JAR),
            '-', '-', '-stdio', '-l', 'en', '-norm',
            '-a', os.path.join(METEOR_FOLDER, 'data', 'paraphrase-en.gz'))

    def compute_score(self, gts, res):
        """Scores one caption per image.

        Args:
            gts: dict image id → list of references, at least one.
            res: dict image id → list of one caption. An empty one scores 0, and its reference's
                words still count.

        Returns:
            The score (of statistics summed over the images, not the mean), and the list of each
            image's score, in the order of `gts`.

        Raises:
            ValueError: the images differ, an image has no reference or not one caption, or there
                are no images.
            JavaError: Java has failed. The next call starts a new one.
        """
        numbers = {len(captions) for captions in res.values()}
        if gts.keys() != res.keys() or not all(gts.values()) or numbers != {1}:
            raise ValueError('Each image needs one caption and at least one reference.')
        if self._java.process.poll() is not None:  # it has ended
            self._start()
        with self._java.conversation():
            statistics = [self._java.ask(_question('SCORE', *gts[image], *res[image]))
                          for image in gts]
            first = self._java.ask(_question('EVAL', *statistics))
            scores = [float(first)] + [float(self._java.read()) for _ in gts]
        return scores[-1], scores[:-1]

    def close(self):
        """Ends the Java process."""
        self._java.close()


def _oneLine(text):
    """The text with a space for each white-space character, some of which end a line for Java."""
    return re.sub(r'\s', ' ', text)


def _question(*fields):
    """A line for METEOR."""
    return ' ||| '.join(_oneLine(field).replace('|||', '') for field in fields)


def tokenize(captions):
    """Words by the Penn Treebank's rules (Stanford's PTBTokenizer, as in the COCO protocol), lower
    case, no punctuation.

    Brackets stay, as -lrb- and so on: the protocol's list of punctuation names them in capitals,
    after lower-casing.

    Args:
        captions: dict image id → list of str.

    Returns:
        dict image id → list of str, the words of each caption with a space between.

    Raises:
        JavaError: there is no Java, or it failed.
    """
    lines = [_oneLine(caption) for captions_of_image in captions.values()
             for caption in captions_of_image]
    jar = os.path.join(TOKENIZER_FOLDER, tokenizer_package.STANFORD_CORENLP_3_4_1_JAR)
    tokenized = runJava('Splitting captions into words (Java)', lines, '-cp', jar,
                        'edu.stanford.nlp.process.PTBTokenizer', '-preserveLines', '-lowerCase')
    words = (' '.join(word for word in line.rstrip().split(' ')
                      if word not in tokenizer_package.PUNCTUATIONS) for line in tokenized)
    return {image: [next(words) for _ in captions_of_image]
            for image, captions_of_image in captions.items()}


def scoreCaptions(references, results, meteor):
    """Scores a caption of every image by the COCO protocol.

    Args:
        references: dict image id → list of captions by people, as `tokenize` returns them.
        results: list of dicts in COCO results form, `image_id` and `caption`; each image of the
            references once.
        meteor: a `METEOR` to score with.

    Returns:
        dict of float: `bleu_1`, `bleu_2`, `bleu_3`, `bleu_4`, `meteor`, `cider`, `rouge` (CIDEr to
        10, others to 1); dict image id → METEOR of its caption.

    Raises:
        JavaError: there is no Java, or it failed.
    """
    captions = tokenize({result['image_id']: [result['caption']] for result in results})
    (bleu, _), (score, per_image), (cider, _), (rouge, _) = (
        metric.compute_score(references, captions) for metric in (BLEU(), meteor, CIDEr(), ROUGE()))
    scores = {f'bleu_{n}': value for n, value in enumerate(bleu, start=1)}
    scores.update(meteor=score, cider=float(cider), rouge=float(rouge))
    return scores, dict(zip(references, per_image))
