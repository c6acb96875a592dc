"""The processes that share each batch of a run, one on each GPU, or several on processors.

`torchrun` or `accelerate launch` starts them. A process that was started alone is a run of one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..device import resolve_device
from ..errors import InputError, MissingDependency

Shared = TypeVar("Shared")


class Processes:
    """This process among those of the run."""

    def __init__(self, device: str | None = None) -> None:
        """Find the other processes.

        Args:
            device: 'cpu'; None: a GPU for each process if there is one.

        Raises:
            MissingDependency: accelerate is not installed.
        """
        try:
            from accelerate import PartialState
        except ImportError as error:
            raise MissingDependency("training", extra="train") from error
        self._state = PartialState(cpu=device == "cpu" or not torch.cuda.is_available())
        self.count, self.index = self._state.num_processes, self._state.process_index
        self.is_main = self._state.is_main_process  # the one that writes
        self.device = self._state.device if self.count > 1 else resolve_device(device)

    def check_batch(self, batch_size: int) -> None:
        """Raise an InputError unless the processes can share a batch evenly."""
        if batch_size % self.count:
            raise InputError(
                f"batch_size is {batch_size}, expected a multiple of the {self.count} processes"
            )

    def own(self, texts: int) -> slice:
        """Those of a batch's texts that this process encodes.

        Raises:
            InputError: the processes cannot share them evenly.
        """
        if texts % self.count:
            raise InputError(
                f"a batch has {texts} texts, expected a multiple of the {self.count} processes"
            )
        share = texts // self.count
        return slice(self.index * share, (self.index + 1) * share)

    def wait(self) -> None:
        """Wait until all processes have come here."""
        self._state.wait_for_everyone()

    def gather(self, x: Tensor) -> Tensor:
        """The rows [b, ...] of all processes, in the order of the processes."""
        from accelerate.utils import gather

        return x if self.count == 1 else gather(x.contiguous())

    def share(self, value: Shared) -> Shared:
        """What the main process has for this value."""
        from accelerate.utils import broadcast_object_list

        return value if self.count == 1 else broadcast_object_list([value])[0]

    def add_gradients(
        self, parameters: Iterable[nn.Parameter], alike: Iterable[nn.Parameter]
    ) -> None:
        """Give each process the gradients of the whole batch.

        Args:
            parameters: of which each process has the gradients of its own rows; and `alike`.
            alike: those of which each process has the gradients of the whole batch.
        """
        if self.count == 1:
            return
        from accelerate.utils import reduce

        for parameter in alike:
            if parameter.grad is not None:
                parameter.grad /= self.count
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.copy_(reduce(parameter.grad, "sum"))
