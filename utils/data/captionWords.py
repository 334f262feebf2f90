"""From captions to words and tokens, and back."""
END, START, UNKNOWN = 0, 1, 2  # tokens; END also pads
MARKS = ['eeee', 'ssss', 'UNK']


def wordsOfCaption(caption):
    """A caption's words as the course counts them: lower case, letters and digits only, split at spaces."""
    words = (''.join(letter for letter in piece if letter.isalnum()) for piece in caption.lower().split(' '))
    return [word for word in words if word]


def captionRecord(imgPath, captions, wordToToken):
    """What an image's file says about its captions, in the form of the course's; an unknown word becomes the token `UNK`.

    Args:
        imgPath: the file name of the picture.
        captions: list of str.
        wordToToken: dict.

    Returns:
        dict of `imgPath`, `original_captions`, `captions` (word lists with start and end mark), `captionsAsTokens` (lists
        of integers).
    """
    words = [[MARKS[START]] + wordsOfCaption(caption) + [MARKS[END]] for caption in captions]
    return {'imgPath': imgPath, 'original_captions': captions, 'captions': words,
            'captionsAsTokens': [[int(wordToToken.get(word, UNKNOWN)) for word in caption] for caption in words]}


def wordPositions(vocabulary, tokens):
    """Where a predicted caption has words: the positions before its end token, less those that mark or say nothing."""
    end = tokens.index(END) if END in tokens else len(tokens)
    return [position for position in range(end)
            if tokens[position] != START and vocabulary['TokenToWord'][tokens[position]].strip()]


def captionOf(vocabulary, tokens):
    """The caption that predicted tokens spell: a string of words up to the end token."""
    return ' '.join(vocabulary['TokenToWord'][tokens[position]].strip() for position in wordPositions(vocabulary, tokens))
