"""From captions to words and tokens, and back."""
END, START, UNKNOWN = 0, 1, 2  # tokens; END also pads
MARKS = ['eeee', 'ssss', 'UNK']
SMALL_WORDS = '''a an and another are around as at away behind being beside between by down each for
    from front has have he her his holding in into is it its near next of off on one onto other out
    over she some that the their them there they through to top two up very wearing while who with
    '''.split()


def wordsOfCaption(caption):
    """A caption's words as the course counts them: lower case, letters and digits only, split at
    spaces. The marks `eeee` and `ssss` are no words and are left out."""
    words = (''.join(filter(str.isalnum, piece)) for piece in caption.lower().split(' '))
    return [word for word in words if word not in ['', *MARKS]]


def captionRecord(imgPath, captions, wordToToken):
    """What an image's file says about its captions, in the course's form.

    Args:
        imgPath: file name of the picture.
        captions: list of str.
        wordToToken: dict; a word that it lacks becomes the token of `UNK`.

    Returns:
        dict of `imgPath`, `original_captions`, `captions` (word lists with start and end mark)
        and `captionsAsTokens` (lists of integers).
    """
    words = [[MARKS[START]] + wordsOfCaption(caption) + [MARKS[END]] for caption in captions]
    tokens = [[int(wordToToken.get(word, UNKNOWN)) for word in caption] for caption in words]
    return {'imgPath': imgPath, 'original_captions': captions, 'captions': words,
            'captionsAsTokens': tokens}


def beforeEnd(tokens):
    """A caption's tokens before its end token; all of them where it has none."""
    return tokens[:tokens.index(END)] if END in tokens else tokens


def wordPositions(vocabulary, tokens):
    """The positions of the words in a predicted caption: those before its end token, less start
    tokens and empty words."""
    return [position for position, token in enumerate(beforeEnd(tokens))
            if token != START and _word(vocabulary, token)]


def attentionAtWords(vocabulary, tokens, attention):
    """The attention's weights [T, regions] at a predicted caption's words alone, as rounded
    lists."""
    return attention[wordPositions(vocabulary, tokens)].double().numpy().round(3).tolist()


def captionOf(vocabulary, tokens):
    """The caption of predicted tokens: a string of words up to the end token."""
    positions = wordPositions(vocabulary, tokens)
    return ' '.join(_word(vocabulary, tokens[position]) for position in positions)


def _word(vocabulary, token):
    return vocabulary['TokenToWord'].get(token, MARKS[UNKNOWN]).strip()
