"""Cache of the frozen bottom layers' outputs, computed once per text and read in later epochs.

The outputs are in a memory-mapped file in the run's directory and are deleted with it.
benchmarks/RESULTS.md has measurements with four of MiniLM's six layers frozen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tasks.core.files import atomic_path
from tasks.training.networks.architecture import layer_stack, run_on_two_tokens

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

DIGEST = 16  # bytes


class FrozenPrefix:
    """The bottom layers of a model, frozen and without dropout.

    The key of a text is a digest of its model inputs, independent of its batch. A batch is read
    from the file only if it is cached completely and is computed completely otherwise, so the
    cache's contents do not depend on where a run was interrupted.
    """

    def __init__(
        self, model: PreTrainedModel, depth: int, directory: Path, max_tokens: int
    ) -> None:
        self.layers = layer_stack(model)[:depth]
        self.file, self.index = directory / "states.f32", directory / "index.npz"
        directory.mkdir(parents=True, exist_ok=True)
        # the file is sparse: unwritten states take no disk space
        shape = (max_tokens, model.config.hidden_size)
        self.states = np.memmap(
            self.file, np.float32, "r+" if self.file.is_file() else "w+", shape=shape
        )
        # by digest: first token and number of tokens in `states`
        self.places: dict[bytes, tuple[int, int]] = {}
        self.tokens = 0
        self.given: torch.Tensor | None = None  # cached output for the current batch
        self.made: torch.Tensor | None = None  # computed output for the current batch
        self.recording = False
        # some architectures' layers return a tuple: set when the model is run below
        self.in_tuple = [False] * depth
        for number, layer in enumerate(self.layers):
            layer.forward = partial(self._forward, number, layer.forward)
        run_on_two_tokens(model)
        if self.index.is_file():
            with np.load(self.index, allow_pickle=False) as saved:
                digests = [row.tobytes() for row in saved["digests"]]
                self.places = dict(zip(digests, map(tuple, saved["places"].tolist()), strict=True))
            self.tokens = max((start + count for start, count in self.places.values()), default=0)

    def detach(self) -> None:
        """Restore the layers."""
        for layer in self.layers:
            del layer.forward

    def save(self) -> None:
        """Write the cache to disk, for a resumed run."""
        self.states.flush()
        digests = np.frombuffer(b"".join(self.places), np.uint8).reshape(-1, DIGEST)
        places = np.asarray(list(self.places.values()), np.int64).reshape(-1, 2)
        with atomic_path(self.index) as new, new.open("wb") as file:
            np.savez(file, digests=digests, places=places)

    @contextmanager
    def over(self, batch: Mapping[str, npt.NDArray[Any]], device: torch.device) -> Iterator[None]:
        """Context in which the layers read a training batch's states from the cache or fill it."""
        mask = batch["attention_mask"] == 1
        keys = [_key(batch, mask, row) for row in range(len(mask))]
        if all(key in self.places for key in keys):
            self.given = self._read(keys, mask).to(device)
        else:
            self.recording = True
        try:
            yield
            if self.made is not None:
                self._keep(keys, mask, self.made.float().cpu().numpy())
        finally:
            self.given, self.made, self.recording = None, None, False

    def _forward(self, number: int, compute: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        last = number == len(self.layers) - 1
        if self.given is not None:
            states = self.given if last else args[0] if args else kwargs["hidden_states"]
            return (states,) if self.in_tuple[number] else states
        outputs = compute(*args, **kwargs)
        self.in_tuple[number] = isinstance(outputs, tuple)
        if self.recording and last:
            self.made = (outputs[0] if isinstance(outputs, tuple) else outputs).detach()
        return outputs

    def _read(self, keys: list[bytes], mask: npt.NDArray[np.bool_]) -> torch.Tensor:
        import torch

        states = np.zeros((*mask.shape, self.states.shape[1]), np.float32)
        for row, key in enumerate(keys):
            start, count = self.places[key]
            states[row, mask[row]] = self.states[start : start + count]
        return torch.from_numpy(states)

    def _keep(
        self, keys: list[bytes], mask: npt.NDArray[np.bool_], states: npt.NDArray[np.float32]
    ) -> None:
        for row, key in enumerate(keys):
            count = int(mask[row].sum())
            if key not in self.places and self.tokens + count <= len(self.states):
                self.states[self.tokens : self.tokens + count] = states[row, mask[row]]
                self.places[key] = (self.tokens, count)
                self.tokens += count


def _key(batch: Mapping[str, npt.NDArray[Any]], mask: npt.NDArray[np.bool_], row: int) -> bytes:
    """Digest of a row's inputs, padding excluded."""
    digest = hashlib.blake2b(digest_size=DIGEST)
    for name in sorted(batch):
        digest.update(np.ascontiguousarray(batch[name][row][mask[row]]).tobytes())
    return digest.digest()
