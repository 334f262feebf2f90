"""From features to captions, greedily, by chance or by beam search, with any network that answers three questions:

    process_features(cnn_features)      what it makes of the images, a tensor with a row for each
    prepare(processed[rows])            what all steps of captions of such images share, whatever that is
    next_words(image, word, state)      one step from what `prepare` returns, the word before [B] and the state before
                                        [L, B, ..] (None at the start) to the next word's logits [B, V] and the state

Our networks answer by parts of their `forward`, `ThroughForward` answers for any other.
"""
import math

import torch

from utils.data.captionWords import END
from utils.networks.otherNetworks import ThroughForward

CAPTION_STEPS = 40  # words of a caption at most, as `forward` of the models has it


def stepping(net):
    """The network itself, where it answers the three questions, else one that answers for it."""
    return net if hasattr(net, 'next_words') else ThroughForward(net)


def greedyTokens(net, cnn_features, start_tokens):
    """The words that are most likely step after step, up to each caption's end token.

    Args:
        net: an `imageCaptionModel` in evaluation mode.
        cnn_features: [B, D] or [B, K, D].
        start_tokens: [B] integers.

    Returns:
        [B, at most 40] integers, end tokens from each caption's end on.
    """
    net = stepping(net)
    return _wordByWord(net, net.process_features(cnn_features), start_tokens, lambda logits: logits.argmax(dim=-1))


def sampledTokens(net, cnn_features, start_tokens, number):
    """Captions said by chance, each word as probable as the network finds it, by torch's global generator.

    Args:
        net, cnn_features, start_tokens: as in `greedyTokens`.
        number: S, of captions of each image.

    Returns:
        [B, S, at most 40] integers, end tokens from each caption's end on.
    """
    net = stepping(net)
    processed = net.process_features(cnn_features).repeat_interleave(number, dim=0)
    tokens = _wordByWord(net, processed, start_tokens.repeat_interleave(number), _drawn)
    return tokens.reshape(len(start_tokens), number, -1)


def _drawn(logits):
    """A word [B] for each row of logits [B, V], as probable as they say."""
    up_to = logits.float().softmax(dim=-1).cumsum(dim=-1)                        # which is faster than torch.multinomial
    return torch.searchsorted(up_to, torch.rand_like(up_to[:, :1]) * up_to[:, -1:]).squeeze(1).clamp(max=logits.shape[1] - 1)


def _wordByWord(net, processed, start_tokens, choose):
    """Captions whose every word `choose` makes of the logits, as `greedyTokens` returns them."""
    image, word, state = net.prepare(processed), start_tokens, None
    tokens = start_tokens.new_full((len(start_tokens), CAPTION_STEPS), END)
    rows = torch.arange(len(start_tokens), device=start_tokens.device)           # the captions that are computed …
    going = torch.ones_like(rows, dtype=torch.bool)                              # … and have not ended
    for step in range(CAPTION_STEPS):
        logits, state = net.next_words(image, word, state)
        word = choose(logits)
        tokens[rows, step] = word.masked_fill(~going, END)
        going = going & (word != END)
        left = int(going.sum())
        if left == 0:
            break
        if left <= len(rows) // 2:                                               # go on with those alone
            rows, word, state, going = rows[going], word[going], state[:, going], going[going]
            image = net.prepare(processed[rows])
    return tokens[:, :step + 1]


def beamSearch(net, cnn_features, start_tokens, beam_size):
    """The K best captions of each image: step after step it keeps the K best so far, ended or not, none of them empty.

    The best have the highest log-probability per word, the end counted as one (Cho et al. 2014, arXiv:1409.1259): the
    sum alone favours short captions, the more so the wider the beam.

    Args:
        net, cnn_features, start_tokens: as in `greedyTokens`.
        beam_size: K, at least 1; from 2 on no caption is empty.

    Returns:
        [B, K, at most 40] integers, each image's best caption first, end tokens from each caption's end on; and the
        captions' log-probabilities [B, K], in nats; -inf where there are fewer than K captions.

    Raises:
        ValueError: K is less than 1.
    """
    if beam_size < 1:
        raise ValueError(f'beam_size is {beam_size}; it must be at least 1')
    net = stepping(net)
    processed = net.process_features(cnn_features)
    B, K = len(start_tokens), beam_size
    captions = start_tokens.new_full((B, K, CAPTION_STEPS), END)
    dtype = torch.promote_types(processed.dtype, torch.float32)                  # shorter types would rank by rounding
    scores = processed.new_full((B, K), -math.inf, dtype=dtype)
    rows = torch.arange(B, device=start_tokens.device)                           # the b images that are computed
    tokens, log_p = captions.clone(), scores.clone()                             # theirs
    log_p[:, 0] = 0                                                              # the K empty captions are one
    ended = torch.zeros_like(log_p, dtype=torch.bool)
    image, word, state = net.prepare(processed.repeat_interleave(K, dim=0)), start_tokens.repeat_interleave(K), None
    for step in range(CAPTION_STEPS):
        logits, state = net.next_words(image, word, state)
        log_p_of_words = logits.to(dtype).log_softmax(dim=-1)                    # [b·K, V]
        if step == 0 and K > 1:
            log_p_of_words[:, END] = -math.inf
        branches = min(K, log_p_of_words.shape[1])                               # no caption has more of them among the K
        gains, words = (best.view(-1, K, branches) for best in log_p_of_words.topk(branches))
        after_end = gains.new_full((branches,), -math.inf)                       # an end goes on with another, at no cost
        after_end[0] = 0
        log_p = log_p.unsqueeze(2) + torch.where(ended.unsqueeze(2), after_end, gains)  # [b, K, branches]
        words = words.masked_fill(ended.unsqueeze(2), END)
        lengths = (tokens != END).sum(dim=2) + 1                                 # [b, K], with the next word or the end
        chosen = (log_p / lengths.unsqueeze(2)).flatten(1).topk(K).indices       # [b, K], the best first
        parents = torch.div(chosen, branches, rounding_mode='floor')             # [b, K]
        log_p, word = (each.flatten(1).gather(1, chosen) for each in (log_p, words))
        tokens = tokens.gather(1, parents.unsqueeze(2).expand_as(tokens))
        tokens[:, :, step] = word
        ended = word == END
        captions[rows], scores[rows] = tokens, log_p
        going = ~ended.all(dim=1)                                                # [b]
        left = int(going.sum())
        if left == 0:
            break
        state_rows = parents + K * torch.arange(len(rows), device=rows.device).unsqueeze(1)  # [b, K] of b·K
        if left <= len(rows) // 2:                                               # go on with those alone
            rows, tokens, log_p, ended, word, state_rows = (
                each[going] for each in (rows, tokens, log_p, ended, word, state_rows))
            image = net.prepare(processed[rows].repeat_interleave(K, dim=0))
        word, state = word.flatten(), state[:, state_rows.flatten()]
    return captions[:, :, :step + 1], scores
