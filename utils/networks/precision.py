"""What `config['precision']` may be: the floating-point type in which a network's large products are computed.

In 'bfloat16' and 'float16' these take half the memory, and less time where a step waits for them. All else stays float32:
weights, optimizer, recurrent states, softmax, loss and checkpoints. float16 has no numbers as small as gradients are, so that the
loss is scaled up before the backward pass and the gradients back before the step (Micikevicius et al. 2018, arXiv:1710.03740).
"""
import contextlib

import torch

FLOAT32, FLOAT16 = 'float32', 'float16'
PRECISIONS = {FLOAT32: torch.float32, 'bfloat16': torch.bfloat16, FLOAT16: torch.float16}
CAPABILITY = {'bfloat16': (8, 0), 'float16': (7, 0)}  # CUDA's, from which on a GPU has fast products of this type
CPU_INSTRUCTIONS = 'avx512_bf16', 'amx_bf16'          # one of which makes bfloat16 faster than float32 on a CPU


def hindrance(precision, device):
    """Why products of this precision are impossible or slow on a device, as half a sentence; '' where they are neither."""
    if precision == FLOAT32:
        return ''
    if device.type == 'cuda':
        capability, needed = torch.cuda.get_device_capability(device), CAPABILITY[precision]
        return '' if capability >= needed else (f'{torch.cuda.get_device_name(device)} has compute capability '
                                                f"{'.'.join(map(str, capability))}, and {'.'.join(map(str, needed))} is needed")
    if precision == FLOAT16:
        return 'a CPU is slow at it'
    found = _cpuInstructions()
    return '' if found & set(CPU_INSTRUCTIONS) else f"this CPU has neither of the instructions {' and '.join(CPU_INSTRUCTIONS)}"


def _cpuInstructions():
    """The names of a CPU's instruction sets as Linux lists them; none elsewhere."""
    try:
        with open('/proc/cpuinfo') as f:
            return set(next((line for line in f if line.startswith('flags')), '').split())
    except OSError:
        return set()


def products(precision, device):
    """A context within which products are computed in this precision."""
    return contextlib.nullcontext() if precision == FLOAT32 else torch.autocast(device.type, dtype=PRECISIONS[precision])


def lossScaler(precision):
    """torch's scaler of losses and gradients, which for all but float16 does nothing."""
    scaler = getattr(getattr(torch, 'amp', None), 'GradScaler', None) or torch.cuda.amp.GradScaler  # its place up to torch 2.2
    return scaler(enabled=precision == FLOAT16)
