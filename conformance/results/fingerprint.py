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
    """A tensor's fingerprint: its elements, in order, bit for bit; "meta" where there are none.

    Of more than `PART` bytes it is the digest of the digests of its parts.
    """
    return _digest_of_parts(tensor, map)


def fingerprints(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """The fingerprints of many tensors, on all cores; each is copied to the CPU in its turn."""
    if sum(tensor.nbytes for tensor in tensors.values()) <= PART:
        return {name: fingerprint(tensor) for name, tensor in tensors.items()}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        large = {n: _digest_of_parts(t, pool.map) for n, t in tensors.items() if t.nbytes > PART}
        small = {n: pool.submit(fingerprint, t) for n, t in tensors.items() if n not in large}
        return {n: large[n] if n in large else small[n].result() for n in tensors}


def _digest_of_parts(tensor: torch.Tensor, each: Callable[..., Iterable[bytes]]) -> str:
    """The fingerprint of a tensor whose parts `each` digests."""
    if tensor.is_meta:
        return "meta"
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    digests = list(each(_sha256, torch.split(flat, PART))) if flat.nbytes else [_sha256(flat)]
    whole = digests[0] if len(digests) == 1 else hashlib.sha256(b"".join(digests)).digest()
    return whole.hex()[:16]


def _sha256(flat: torch.Tensor) -> bytes:
    """The SHA-256 of a part of a tensor, for its fingerprint."""
    return hashlib.sha256(flat.numpy().data).digest()
