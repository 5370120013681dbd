"""The digest by which tensors are compared."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import torch

# Bytes that one thread digests at a time. What is larger is digested in parts, so that one large
# tensor keeps every core busy; hashlib lets go of the interpreter meanwhile.
PART = 2**26


def fingerprint(tensor: torch.Tensor) -> str:
    """A digest of the tensor's elements, in order, bit for bit; "meta" where there are none.

    Of more than `PART` bytes it is the digest of the digests of its parts.
    """
    return _digest(tensor, map)


def fingerprints(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """The same of many, on all cores; a tensor elsewhere is copied to the CPU only for its turn."""
    if sum(tensor.nbytes for tensor in tensors.values()) <= PART:
        return {name: fingerprint(tensor) for name, tensor in tensors.items()}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        large = {n: _digest(t, pool.map) for n, t in tensors.items() if t.nbytes > PART}
        small = {n: pool.submit(fingerprint, t) for n, t in tensors.items() if n not in large}
        return {n: large[n] if n in large else small[n].result() for n in tensors}


def _digest(tensor: torch.Tensor, each: Callable[..., Iterable[bytes]]) -> str:
    if tensor.is_meta:
        return "meta"
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    digests = list(each(_sha256, torch.split(flat, PART))) if flat.nbytes else [_sha256(flat)]
    whole = digests[0] if len(digests) == 1 else hashlib.sha256(b"".join(digests)).digest()
    return whole.hex()[:16]


def _sha256(flat: torch.Tensor) -> bytes:
    return hashlib.sha256(flat.numpy().data).digest()
